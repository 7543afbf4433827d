//! `postroad-operator check`: whether an installation works, for `helm test`. It sees with the operator's own account what the
//! operator needs: the definitions are served and may be read, a replica holds the Lease and renews it, and every resource
//! has been reported on. It changes nothing.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use postroad_crds::v1alpha1::{RelayPool, Upstream};

use crate::client::explain;
use crate::lease;

/// Rest between two looks at an installation that is not ready yet.
const REST: Duration = Duration::from_millis(500);

/// Where to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespaces that the operator serves; empty: all.
    pub namespaces: Vec<String>,
    /// The Lease's namespace.
    pub lease_namespace: String,
    /// The Lease's name.
    pub lease_name: String,
    /// How long the installation may take to become what it should be.
    pub limit: Duration,
}

/// Looks until everything is as it should be, and answers one line for each thing that was found.
///
/// # Errors
/// After the limit: what is wrong, in a sentence that names the object and what to do.
pub async fn check(client: &Client, options: &Options) -> Result<Vec<String>, String> {
    let begin = std::time::Instant::now();
    loop {
        match look(client, options).await {
            Ok(found) => return Ok(found),
            Err(problem) if begin.elapsed() >= options.limit => return Err(problem),
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn look(client: &Client, options: &Options) -> Result<Vec<String>, String> {
    let leases = Api::<Lease>::namespaced(client.clone(), &options.lease_namespace);
    let name = format!("{}/{}", options.lease_namespace, options.lease_name);
    let lease = leases.get_opt(&options.lease_name).await.map_err(|error| cannot("read", &name, &error))?;
    let mut found = vec![leading(&name, lease.as_ref(), Timestamp::now())?];
    found.push(reported::<RelayPool>(client, options).await?);
    found.push(reported::<Upstream>(client, options).await?);
    Ok(found)
}

/// Who leads, or why nobody does.
fn leading(name: &str, lease: Option<&Lease>, now: Timestamp) -> Result<String, String> {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let Some(holder) = holder else {
        return Err(format!("no operator holds the Lease {name}: look at the operator's pods and their log"));
    };
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| now.duration_since(time.0));
    // A clock that is ahead of ours renews in our future: that counts as just now.
    match renewed.and_then(|since| Duration::try_from(since.max(SignedDuration::ZERO)).ok()) {
        Some(since) if since < lease::DURATION => {
            Ok(format!("the operator {holder} leads (Lease {name}, renewed {} s ago)", since.as_secs()))
        }
        _ => Err(format!("the operator {holder} has stopped renewing the Lease {name}: look at its log")),
    }
}

/// Reads the resources of one kind as they are stored: also those that a newer or older operator could not read.
async fn reported<K>(client: &Client, options: &Options) -> Result<String, String>
where
    K: Resource<DynamicType = ()> + Debug,
{
    let resource = ApiResource::erase::<K>(&());
    let apis = match &options.namespaces[..] {
        [] => vec![Api::<DynamicObject>::all_with(client.clone(), &resource)],
        names => names
            .iter()
            .map(|name| Api::<DynamicObject>::namespaced_with(client.clone(), name, &resource))
            .collect(),
    };
    let mut count = 0;
    for api in apis {
        let listed = api.list(&ListParams::default()).await;
        for object in listed.map_err(|error| cannot("list", &resource.plural, &error))? {
            observed(&resource.kind, &object)?;
            count += 1;
        }
    }
    Ok(format!("{} are served, and the operator has reported on each of the {count}", resource.plural))
}

/// Whether the operator has reported on the present generation of an object. One that waits for its end has none to report on.
fn observed(kind: &str, object: &DynamicObject) -> Result<(), String> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    let accepted = conditions.iter().find(|condition| condition.type_ == "Accepted");
    if accepted.is_some_and(|accepted| accepted.observed_generation >= object.metadata.generation) {
        return Ok(());
    }
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    Err(format!("the operator has not reported on {kind} {name} yet: look at the operator's log"))
}

fn cannot(verb: &str, what: &str, error: &kube::Error) -> String {
    format!("cannot {verb} {what}: {}", explain(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn lease(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn an_operator_leads_only_while_it_renews() {
        let now = Timestamp::from_second(100).unwrap();
        let at = |lease: Option<Lease>| leading("n/l", lease.as_ref(), now);
        assert!(at(Some(lease("a", 95))).unwrap().contains("a leads (Lease n/l, renewed 5 s ago)"));
        assert!(at(Some(lease("a", 103))).unwrap().contains("renewed 0 s ago"));
        assert!(at(Some(lease("a", 85))).unwrap_err().contains("stopped renewing"));
        assert!(at(Some(lease("", 100))).unwrap_err().contains("no operator holds"));
        assert!(at(None).unwrap_err().contains("n/l"));
    }

    #[test]
    fn an_object_counts_as_reported_when_its_present_generation_is() {
        let object = |generation: i64, observed: i64| {
            let condition = serde_json::json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "observedGeneration": observed, "lastTransitionTime": "2025-01-01T00:00:00Z"});
            let value = serde_json::json!({"apiVersion": "postroad.dev/v1alpha1", "kind": "RelayPool",
                "metadata": {"name": "main", "namespace": "mail", "generation": generation}, "status": {"conditions": [condition]}});
            serde_json::from_value::<DynamicObject>(value).unwrap()
        };
        observed("RelayPool", &object(2, 2)).unwrap();
        assert!(observed("RelayPool", &object(3, 2)).unwrap_err().contains("RelayPool mail/main"));
    }
}
