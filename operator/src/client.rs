//! The operator's access to the API server: reads, server-side apply, deletion. Every call has a deadline, every write is
//! counted, and every failure says what was being done. It decides nothing: `drift` says whether a write is needed.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::metrics::{Metrics, Verb};
use crate::reason::Reason;
use crate::relay_pool::build::metadata::FIELD_MANAGER;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A namespaced kind that the operator knows at compile time.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// A call that failed, with what it was for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {}", sentence(.fault))]
pub struct ApiError {
    doing: String,
    fault: Fault,
}

/// Why a call failed.
#[derive(Debug)]
enum Fault {
    Api(Box<kube::Error>),
    Deadline,
}

impl ApiError {
    /// The reason for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.code() {
            Some(401 | 403) => Reason::Forbidden,
            Some(400 | 422) => Reason::ObjectRefused,
            _ => Reason::ApiUnavailable,
        }
    }

    /// Whether the write failed because the namespace is going away, and everything in it.
    #[must_use]
    pub fn is_namespace_ending(&self) -> bool {
        matches!(&self.fault, Fault::Api(error) if is_namespace_ending(error))
    }

    /// The HTTP status of the answer, when there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match &self.fault {
            Fault::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Fault::Deadline => None,
        }
    }
}

fn sentence(fault: &Fault) -> String {
    match fault {
        Fault::Api(error) => explain(error),
        Fault::Deadline => format!("no answer within {} seconds", DEADLINE.as_secs()),
    }
}

/// What an error of the client means, in one line: the API server's own message, or the innermost cause of a failed
/// connection.
#[must_use]
pub fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() {
            format!("status {}", status.code)
        } else {
            status.message.clone()
        };
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether a write failed because its namespace is going away.
#[must_use]
pub fn is_namespace_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Reads and writes objects.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    metrics: Arc<Metrics>,
}

impl Objects {
    /// Access by this client; writes are counted in these metrics.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics }
    }

    /// The object of this name, if there is one.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn find<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        let doing = || format!("read {} {namespace}/{name}", K::kind(&()));
        call(doing, Api::<K>::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    /// The objects with these labels (`key=value,…`).
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn list<K: Kind>(&self, namespace: &str, labels: &str) -> Result<Vec<K>, ApiError> {
        let doing = || format!("list objects of kind {} in namespace {namespace}", K::kind(&()));
        let parameters = ListParams::default().labels(labels);
        Ok(call(doing, Api::<K>::namespaced(self.client.clone(), namespace).list(&parameters)).await?.items)
    }

    /// Makes the API server hold the desired fields (server-side apply, forced: the fields are the operator's).
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn apply<K: Kind>(&self, desired: &K) -> Result<K, ApiError> {
        let (namespace, name) = (desired.namespace().unwrap_or_default(), desired.name_any());
        let doing = || format!("apply {} {namespace}/{name}", K::kind(&()));
        self.metrics.write(Verb::Apply, &K::kind(&()));
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        call(doing, api.patch(&name, &parameters(), &Patch::Apply(desired))).await
    }

    /// Sets one annotation of an object without touching anything else.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn annotate<K: Kind>(&self, object: &K, key: &str, value: &str) -> Result<(), ApiError> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let doing = || format!("annotate {} {namespace}/{name}", K::kind(&()));
        self.metrics.write(Verb::Patch, &K::kind(&()));
        let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        call(doing, api.patch_metadata(&name, &parameters, &Patch::Merge(patch))).await.map(drop)
    }

    /// Replaces one entry of a Secret's data; answers the Secret's new version.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn set_data(
        &self,
        secret: &Secret,
        key: &str,
        value: ByteString,
    ) -> Result<Option<String>, ApiError> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let doing = || format!("change Secret {namespace}/{name}");
        self.metrics.write(Verb::Patch, &Secret::kind(&()));
        let patch = serde_json::json!({"data": {key: value}});
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = Api::<Secret>::namespaced(self.client.clone(), &namespace);
        call(doing, api.patch(&name, &parameters, &Patch::Merge(patch)))
            .await
            .map(|new| new.resource_version())
    }

    /// Makes exactly this object bear this finalizer, or none of the operator's. An object that is gone, or another one under its
    /// name, is left as it is.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn set_finalizer(
        &self,
        kind: &ApiResource,
        metadata: &ObjectMeta,
        finalizer: Option<&str>,
    ) -> Result<(), ApiError> {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let doing = || format!("change the finalizers of {} {namespace}/{name}", kind.kind);
        self.metrics.write(Verb::Apply, &kind.kind);
        // The UID makes the API server refuse an object that is not this one, and make none.
        let patch = serde_json::json!({
            "apiVersion": kind.api_version, "kind": kind.kind,
            "metadata": {"name": name, "uid": metadata.uid, "finalizers": finalizer.as_slice()},
        });
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, kind);
        match call(doing, api.patch(name, &parameters(), &Patch::Apply(patch))).await {
            Err(error) if !matches!(error.code(), Some(404 | 409)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes exactly this object: not another one that has taken its name since.
    ///
    /// # Errors
    /// When the API server does not answer or refuses. An object that is gone already is no error.
    pub async fn delete<K: Kind>(&self, object: &K) -> Result<(), ApiError> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let doing = || format!("delete {} {namespace}/{name}", K::kind(&()));
        self.metrics.write(Verb::Delete, &K::kind(&()));
        let preconditions = Some(Preconditions { uid: object.uid(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        match call(doing, api.delete(&name, &parameters)).await {
            Err(error) if !matches!(error.code(), Some(404 | 409)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The status of an object as it is stored, also of one that cannot be read as its type. `None`: no such object.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn status(
        &self,
        kind: &ApiResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>, ApiError> {
        let doing = || format!("read {} {namespace}/{name}", kind.kind);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, kind);
        Ok(call(doing, api.get_opt(name)).await?.map(|object| Stored {
            uid: object.uid(),
            status: object.data.get("status").cloned().unwrap_or(Value::Null),
        }))
    }

    /// Makes the API server hold these fields of an object's status (server-side apply, forced).
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn apply_status(
        &self,
        kind: &ApiResource,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<(), ApiError> {
        let doing = || format!("write the status of {} {namespace}/{name}", kind.kind);
        self.metrics.write(Verb::ApplyStatus, &kind.kind);
        let patch = serde_json::json!({
            "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "status": status,
        });
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, kind);
        call(doing, api.patch_status(name, &parameters(), &Patch::Apply(patch))).await.map(drop)
    }
}

/// A status as stored, and whose it is.
pub struct Stored {
    /// The object's `metadata.uid`.
    pub uid: Option<String>,
    /// `status`, or null.
    pub status: Value,
}

fn parameters() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

async fn call<T>(
    doing: impl Fn() -> String,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    let fault = match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => Fault::Api(Box::new(error)),
        Err(_) => Fault::Deadline,
    };
    Err(ApiError { doing: doing(), fault })
}
