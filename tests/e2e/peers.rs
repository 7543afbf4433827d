//! The pods around Postroad: apps that send by Go's net/smtp (tests/e2e/app) and the harness's SMTP server as an upstream service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use postroad_tests::certificates::{CertificateAuthority, IssuedCertificate};
use postroad_tests::cluster::{PodPort, eventually};
use postroad_tests::control_plane::{TestNamespace, until};
use serde::Deserialize;

use crate::LIMIT;

const CONTROL_PORT: u16 = 8080;

/// A pod of this suite, restricted in every way that Pod Security asks for. `placement` is a node's name.
fn pod(
    name: &str,
    image: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    secret: &str,
    placement: Option<&str>,
) -> String {
    let environment: String =
        environment.iter().map(|(key, value)| format!("\n    - {{name: {key}, value: '{value}'}}")).collect();
    let node = placement
        .map_or_else(String::new, |node| format!("\n  nodeSelector: {{kubernetes.io/hostname: {node}}}"));
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1{node}
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: {name}
    image: localhost/postroad-test/{image}:1
    imagePullPolicy: IfNotPresent
    args: {arguments:?}
    env:
    - {{name: CONTROL_ADDRESS, value: '0.0.0.0:{CONTROL_PORT}'}}{environment}
    securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    volumeMounts: [{{name: tls, mountPath: /tls, readOnly: true}}]
  volumes: [{{name: tls, secret: {{secretName: {secret}}}}}]
"
    )
}

/// A certificate as a `kubernetes.io/tls` Secret, with the authority that issued it as `ca.crt`.
pub fn tls_secret(name: &str, authority: &CertificateAuthority, issued: &IssuedCertificate) -> String {
    let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  ca.crt: |\n    {}\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(&authority.pem()),
        indented(&issued.certificate_pem),
        indented(&issued.key_pem)
    )
}

/// How an app sends.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    /// The name of the pool's Service, in full.
    pub host: &'a str,
    pub port: u16,
    /// `starttls`, `implicit` or `plain`.
    pub tls: &'a str,
    /// User and password.
    pub user: Option<(&'a str, &'a str)>,
    /// The Secret with a certificate for the app to show, its key, and the authority of the server's certificate.
    pub certificate: Option<&'a str>,
    /// The node that the app's pod runs on.
    pub node: Option<&'a str>,
}

impl Sending<'_> {
    fn arguments(&self, mode: &str, further: &[&str]) -> Vec<String> {
        let mut arguments =
            vec![mode.to_owned(), format!("--host={}", self.host), format!("--port={}", self.port)];
        arguments.extend([format!("--tls={}", self.tls), "--ca=/tls/ca.crt".to_owned()]);
        arguments.extend(self.certificate.map(|_| "--certificate=/tls".to_owned()));
        arguments.extend(self.user.map(|(user, _)| format!("--user={user}")));
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    fn pod(&self, name: &str, mode: &str, further: &[&str]) -> String {
        let arguments = self.arguments(mode, further);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let password = self.user.map_or("", |(_, password)| password);
        pod(
            name,
            "app",
            &arguments,
            &[("PASSWORD", password)],
            self.certificate.unwrap_or("main-tls"),
            self.node,
        )
    }
}

/// What an app that sent one message came to.
#[derive(Debug)]
pub struct Sent {
    /// 0 accepted, 1 refused for good, 2 to be tried again.
    pub exit_code: i32,
    /// The server's words.
    pub said: String,
}

/// Runs an app that sends one message with this token, and answers what it was told.
pub async fn send(namespace: &TestNamespace, name: &str, sending: Sending<'_>, token: &str) -> Sent {
    namespace.apply(&sending.pod(name, "send", &[&format!("--token={token}")])).await.unwrap();
    let ended = |pod: Option<&Pod>| exit_code(pod).is_some();
    let pod = until(&namespace.api::<Pod>(), name, "has ended", LIMIT, ended).await.unwrap();
    let said = namespace.kubectl(&["logs", name]).await.unwrap();
    Sent { exit_code: exit_code(pod.as_ref()).unwrap(), said }
}

fn exit_code(pod: Option<&Pod>) -> Option<i32> {
    let statuses = pod?.status.as_ref()?.container_statuses.as_ref()?;
    Some(statuses.first()?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

pub fn is_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|held| held.iter().any(|held| held.type_ == "Ready" && held.status == "True"))
}

/// An app that sends at a rate, over sessions that it keeps.
pub struct Load {
    port: PodPort,
}

/// What the load came to: the app's `Ledger`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Tokens with the digest of what was sent.
    pub acknowledged: BTreeMap<String, String>,
    pub unknown: Option<Vec<String>>,
    pub refused: Option<Vec<String>>,
    pub transient: usize,
    pub lost: usize,
    pub longest_pause_milliseconds: u64,
    pub milliseconds: u64,
    pub troubles: Option<Vec<String>>,
}

impl Load {
    pub async fn start(namespace: &TestNamespace, sending: Sending<'_>) -> Self {
        namespace.apply(&sending.pod("load", "load", &[])).await.unwrap();
        until(&namespace.api::<Pod>(), "load", "is ready", LIMIT, is_ready).await.unwrap();
        Self { port: PodPort::new(namespace.client(), namespace.name(), "load", CONTROL_PORT) }
    }

    pub async fn begin(&self, prefix: &str, rate: usize, clients: usize) -> Result<(), kube::Error> {
        self.port.post(&format!("/start?prefix={prefix}&rate={rate}&clients={clients}")).await.map(drop)
    }

    pub async fn acknowledged(&self) -> anyhow::Result<usize> {
        Ok(self.port.get("/acknowledged").await?.parse()?)
    }

    pub async fn end(&self) -> anyhow::Result<Ledger> {
        Ok(serde_json::from_str(&self.port.post("/stop").await?)?)
    }
}

/// A mail service in a pod: STARTTLS and AUTH required.
pub struct Service {
    port: PodPort,
}

/// What the service saw, in numbers.
#[derive(Clone, Debug, Deserialize)]
pub struct Totals {
    pub messages: usize,
    pub sessions: usize,
    pub most_open_sessions: usize,
    pub cut_sessions: usize,
    /// Sessions by the user who authenticated.
    pub users: BTreeMap<String, usize>,
    pub violations: Vec<String>,
}

/// The most messages that the service had within any second, wherever it begins.
#[derive(Clone, Debug, Deserialize)]
pub struct Busiest {
    pub all: usize,
    /// From each pod's address.
    pub by_client: BTreeMap<IpAddr, usize>,
}

/// One message at the service: copies and the digest of their content (`differ` when they are not the same).
pub type Arrived = BTreeMap<String, (usize, String)>;

impl Service {
    /// Starts it behind the Service name `upstream`, with the Upstream resource `service` that leads to it by the user `relay`, and a
    /// Secret `other-credentials` that would do as well.
    pub async fn start(namespace: &TestNamespace, connections: usize, node: Option<&str>) -> Self {
        let host = format!("upstream.{}.svc.cluster.local", namespace.name());
        let authority = CertificateAuthority::new("Upstream").unwrap();
        let issued = authority.issue(&[&host]).unwrap();
        namespace.apply(&tls_secret("upstream-tls", &authority, &issued)).await.unwrap();
        let environment =
            [("TLS_DIR", "/tls"), ("USERS", "relay=first,other=second"), ("SMTP_ADDRESS", "0.0.0.0:2525")];
        namespace
            .apply(&pod("upstream", "fake-upstream", &[], &environment, "upstream-tls", node))
            .await
            .unwrap();
        namespace.apply(&resources(&host, connections)).await.unwrap();
        until(&namespace.api::<Pod>(), "upstream", "is ready", LIMIT, is_ready).await.unwrap();
        Self { port: PodPort::new(namespace.client(), namespace.name(), "upstream", CONTROL_PORT) }
    }

    /// The messages whose token begins with `prefix`.
    pub async fn arrived(&self, prefix: &str) -> anyhow::Result<Arrived> {
        let text = self.port.get(&format!("/messages?{prefix}")).await?;
        let entry = |line: &str| {
            let mut fields = line.split(' ');
            let (token, count, digest) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
            Some((token.to_owned(), (count, digest.to_owned())))
        };
        text.lines()
            .map(|line| entry(line).ok_or_else(|| anyhow::anyhow!("not a line of the ledger: {line}")))
            .collect()
    }

    /// Waits until all of these tokens have arrived.
    pub async fn wait_for<'a>(
        &self,
        prefix: &str,
        tokens: impl Iterator<Item = &'a String> + Clone,
    ) -> anyhow::Result<Arrived> {
        let all = async || {
            let arrived = self.arrived(prefix).await?;
            let missing = tokens.clone().filter(|token| !arrived.contains_key(*token));
            let (count, first) =
                missing.fold((0, None), |(count, first), token| (count + 1, first.or(Some(token))));
            anyhow::Ok(match first {
                None => Ok(arrived),
                Some(first) => {
                    Err(format!("{count} acknowledged messages have not arrived, {first} among them"))
                }
            })
        };
        Ok(eventually(&format!("all of {prefix} to arrive"), LIMIT, all).await?)
    }

    pub async fn totals(&self) -> anyhow::Result<Totals> {
        Ok(serde_json::from_str(&self.port.get("/sessions").await?)?)
    }

    pub async fn busiest(&self) -> anyhow::Result<Busiest> {
        Ok(serde_json::from_str(&self.port.get("/busiest").await?)?)
    }

    pub async fn down(&self) -> Result<(), kube::Error> {
        self.port.post("/down").await.map(drop)
    }

    pub async fn up(&self) -> Result<(), kube::Error> {
        self.port.post("/up").await.map(drop)
    }
}

fn resources(host: &str, connections: usize) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: upstream}}
spec: {{selector: {{app: upstream}}, ports: [{{name: submission, port: 587, targetPort: 2525}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: service-credentials}}
type: kubernetes.io/basic-auth
stringData: {{username: relay, password: first}}
---
apiVersion: v1
kind: Secret
metadata: {{name: other-credentials}}
type: kubernetes.io/basic-auth
stringData: {{username: other, password: second}}
---
apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec:
  smarthost:
    host: {host}
    ports: [{{port: 587, tls: StartTLS}}]
    tls: {{caBundleSecretRef: {{name: upstream-tls}}}}
    credentials: {{secretRef: {{name: service-credentials}}}}
  connections: {{maximum: {connections}}}
"
    )
}
