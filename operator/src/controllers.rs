//! `postroad-operator run`: connects, serves health, watches, takes part in the election, and reconciles while it leads.
//!
//! Every process watches, so that a follower takes over without first listing the cluster; only the leader reconciles. A
//! process that loses the Lease ends: whatever it was doing may be undone by the new leader, and starting anew is the one
//! state that is certainly right.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{
    Action, Config as ControllerConfig, Error as ControllerError, ReconcileRequest,
};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, Config, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::client::{Objects, explain};
use crate::context::{Context, Retries, Settings};
use crate::error::Error;
use crate::health::{self, Health};
use crate::lease::{Candidate, Lost};
use crate::metrics::{Metrics, Outcome};
use crate::relay_pool::build::metadata::FIELD_MANAGER;
use crate::relay_pool::heard::Heard;
use crate::standing::board::Board;
use crate::standing::rounds;
use crate::watches::{Scope, Watched, watch};
use crate::{relay_pool, upstream};

/// Changes that come within this time are reconciled once.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Objects of one kind reconciled at the same time.
const CONCURRENCY: u16 = 8;

/// How long reconciles under way may take when the process is to end.
const DRAIN: Duration = Duration::from_secs(10);

/// What `run` needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig to use; without it the one of the environment, or the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Where health and metrics are served.
    pub health_address: SocketAddr,
    /// The namespace of the Lease; without it the client's own.
    pub lease_namespace: Option<String>,
    /// The name of the Lease.
    pub lease_name: String,
    /// Who this process is in the election.
    pub identity: String,
    /// For the build.
    pub settings: Settings,
}

/// Why `run` ended early. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No usable client configuration.
    #[error("{0}")]
    Configuration(String),
    /// The health address cannot be served.
    #[error(transparent)]
    Health(#[from] std::io::Error),
    /// Another process leads, or may.
    #[error("{0}; this process ends and starts anew as a follower")]
    Lost(Lost),
}

/// Runs until `stop` is cancelled.
///
/// # Errors
/// When the kubeconfig cannot be used, the health address cannot be bound, or leadership is lost. An API server that does
/// not answer is no error: it is tried again and again, and readiness says so.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let config = client_config(options.kubeconfig.as_deref()).await?;
    let place = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|error| {
        RunError::Configuration(format!("the kubeconfig for {place} cannot be used: {}", explain(&error)))
    })?;
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let listener = health::bind(options.health_address).await?;
    let served = health::serve(listener, health.clone(), metrics.clone());
    let operator = Operator { options, client, health, metrics, stop };
    tokio::select! {
        ended = operator.lead(&place) => ended,
        failed = served => Err(RunError::Health(failed.err().unwrap_or_else(|| std::io::ErrorKind::Other.into()))),
    }
}

struct Operator {
    options: Options,
    client: Client,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Operator {
    async fn lead(&self, place: &str) -> Result<(), RunError> {
        let stopped = self.stop.cancelled();
        tokio::select! {
            () = self.connected(place) => {}
            () = stopped => return Ok(()),
        }
        let (watched, kept): (Vec<Watched>, Vec<BoxFuture<'static, ()>>) = self
            .scopes()
            .iter()
            .map(|scope| {
                let (watched, kept) = watch(&self.client, scope, &self.health);
                (watched, kept.boxed())
            })
            .unzip();
        tokio::select! {
            _ = futures::future::join_all(kept) => Ok(()),
            ended = self.elect(&watched) => ended,
        }
    }

    fn scopes(&self) -> Vec<Scope> {
        if self.options.namespaces.is_empty() {
            return vec![Scope::All];
        }
        self.options.namespaces.iter().cloned().map(Scope::Namespace).collect()
    }

    /// Waits for the API server's first answer, telling each failure in one sentence.
    async fn connected(&self, place: &str) {
        let mut wait = Duration::from_secs(1);
        loop {
            let why =
                match tokio::time::timeout(Duration::from_secs(10), self.client.apiserver_version()).await {
                    Ok(Ok(version)) => {
                        self.health.answered(Instant::now());
                        tracing::info!("connected to the API server at {place}, {}", version.git_version);
                        return;
                    }
                    Ok(Err(error)) => explain(&error),
                    Err(_) => "no answer within 10 seconds".to_owned(),
                };
            tracing::warn!(
                "the API server at {place} cannot be reached, next attempt in {} s: {why}",
                wait.as_secs()
            );
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Waits for the Lease, reconciles while holding it, and gives it back.
    async fn elect(&self, watched: &[Watched]) -> Result<(), RunError> {
        let namespace = self.options.lease_namespace.clone();
        let namespace = namespace.unwrap_or_else(|| self.client.default_namespace().to_owned());
        let identity = &self.options.identity;
        let client = self.client.clone();
        let mut candidate =
            Candidate::new(client, &namespace, &self.options.lease_name, identity, Instant::now());
        let answered = || self.health.answered(Instant::now());
        tokio::select! {
            () = candidate.acquire(answered) => {}
            () = self.stop.cancelled() => return Ok(()),
        }
        tracing::info!("{identity} leads: it holds the Lease {namespace}/{}", self.options.lease_name);
        self.metrics.leads(true);
        let lost = tokio::select! {
            lost = candidate.hold(answered) => Some(lost),
            () = self.reconcile(watched) => None,
        };
        self.metrics.leads(false);
        match lost {
            Some(lost) => Err(RunError::Lost(lost)),
            None => {
                candidate.release().await;
                Ok(())
            }
        }
    }

    /// Reconciles everything watched until the process is to stop; then lets what is under way finish.
    async fn reconcile(&self, watched: &[Watched]) {
        let running = watched.iter().map(|watched| self.reconcile_scope(watched));
        let mut running = Box::pin(futures::future::join_all(running));
        tokio::select! {
            _ = &mut running => {}
            () = self.stop.cancelled() => {
                let _ = tokio::time::timeout(DRAIN, running).await;
            }
        }
    }

    async fn reconcile_scope(&self, watched: &Watched) {
        // A pool must not be told that its Upstream is missing because the Upstreams have not been listed yet.
        let listed =
            futures::future::join(watched.pools.wait_until_ready(), watched.upstreams.wait_until_ready());
        tokio::select! {
            _ = listed => {}
            () = self.stop.cancelled() => return,
        }
        let reporter =
            Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(self.options.identity.clone()) };
        let context = Arc::new(Context {
            objects: Objects::new(self.client.clone(), self.metrics.clone()),
            recorder: Recorder::new(self.client.clone(), reporter),
            upstreams: watched.upstreams.clone(),
            pools: watched.pools.clone(),
            settings: self.options.settings.clone(),
            metrics: self.metrics.clone(),
            retries: Retries::default(),
            heard: Heard::default(),
            board: Board::default(),
        });
        let upstreams = control(
            upstream::KIND,
            watched.upstreams.clone(),
            watched.upstream_queue.clone().requests().take_until(self.stop.clone().cancelled_owned()),
            context.clone(),
            |object, context| upstream::reconcile(object, context).boxed(),
        );
        let pools = control(
            relay_pool::KIND,
            watched.pools.clone(),
            watched.pool_queue.clone().requests().take_until(self.stop.clone().cancelled_owned()),
            context.clone(),
            |object, context| relay_pool::reconcile(object, context).boxed(),
        );
        let asking = async {
            tokio::select! {
                () = rounds::go(watched, &context) => {}
                () = self.stop.cancelled() => {}
            }
        };
        futures::future::join3(upstreams, pools, asking).await;
    }
}

type Reconcile<K> = fn(Arc<K>, Arc<Context>) -> Pin<Box<dyn Future<Output = Result<Action, Error>> + Send>>;

/// Reconciles the objects that come, those that failed again after a while. Ends with the stream.
async fn control<K>(
    kind: &'static str,
    store: Store<K>,
    requests: impl Stream<Item = Result<ReconcileRequest<K>, std::convert::Infallible>>,
    context: Arc<Context>,
    reconcile: Reconcile<K>,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let config = ControllerConfig::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let failed = move |object: Arc<K>, error: &Error, context: Arc<Context>| {
        let name = format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let wait = context.retries.failed(&name);
        context.metrics.reconcile(kind, Outcome::Failed);
        context.metrics.error(kind, error.reason());
        tracing::warn!(reason = %error.reason(), "{name} is tried again in {} s: {error}", wait.as_secs());
        Action::requeue(wait)
    };
    let ended = kube::runtime::applier(reconcile, failed, context.clone(), store, requests, config);
    ended
        .for_each(|result| {
            match result {
                Ok((object, _)) => {
                    context.retries.forget(&retry_key(kind, object.namespace.as_deref(), &object.name))
                }
                Err(ControllerError::ObjectNotFound(object)) => {
                    context.retries.forget(&retry_key(kind, object.namespace.as_deref(), &object.name));
                }
                // Told by `failed` already.
                Err(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

fn retry_key(kind: &str, namespace: Option<&str>, name: &str) -> String {
    format!("{kind} {}/{name}", namespace.unwrap_or_default())
}

/// Where the API server is and who asks: by this kubeconfig; without one by the environment's, or as the pod's own account.
///
/// # Errors
/// [`RunError::Configuration`] says what is missing and how to give it.
pub async fn client_config(kubeconfig: Option<&Path>) -> Result<Config, RunError> {
    let Some(path) = kubeconfig else {
        return Config::infer().await.map_err(|error| {
            RunError::Configuration(format!(
                "no Kubernetes cluster is configured: run in a pod, or name a kubeconfig by KUBECONFIG or \
                 POSTROAD_KUBECONFIG ({error})"
            ))
        });
    };
    let unusable = |error: kube::config::KubeconfigError| {
        let mut why = error.to_string();
        if let Some(source) =
            std::error::Error::source(&error).filter(|source| !why.contains(&source.to_string()))
        {
            why = format!("{why}: {source}");
        }
        RunError::Configuration(format!(
            "the kubeconfig {} (POSTROAD_KUBECONFIG) cannot be used: {why}",
            path.display()
        ))
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)
}
