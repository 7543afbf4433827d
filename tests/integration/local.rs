//! Local mode: manifests in, the operator renders, its relays run what was rendered.

use std::path::Path;

use postroad_tests::binaries;
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::processes::{Process, Program};
use postroad_tests::scratch::ScratchFolder;
use postroad_tests::smtp_client::Security;
use postroad_tests::smtp_server::SmtpServer;

use crate::{alone, arrived_once};

const SESSIONS: usize = 3;

fn indented(pem: &str) -> String {
    pem.trim_end().replace('\n', "\n    ")
}

fn manifests(port: u16, upstream: &SmtpServer, authority: &CertificateAuthority) -> String {
    let issued = authority.issue(&["localhost"]).unwrap();
    format!(
        "apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec:
  smarthost:
    host: localhost
    ports: [{{port: {upstream_port}, tls: StartTLS}}]
    tls: {{caBundleSecretRef: {{name: service-ca}}}}
    credentials: {{secretRef: {{name: service}}}}
  connections: {{maximum: {SESSIONS}}}
---
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {{name: main}}
spec:
  listeners: [{{name: submission, port: {port}, tls: Required, authentication: Required}}]
  certificate: {{secretRef: {{name: main-tls}}}}
  clients:
    identities: [{{name: apps, type: Password, password: {{usersSecretRef: {{name: users}}}}}}]
  routes: [{{name: all, upstreams: [{{name: service}}]}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: service}}
type: kubernetes.io/basic-auth
stringData: {{username: relay, password: secret}}
---
apiVersion: v1
kind: Secret
metadata: {{name: users}}
stringData: {{app: 'p a:s\"s'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: service-ca}}
stringData:
  ca.crt: |
    {ca}
---
apiVersion: v1
kind: Secret
metadata: {{name: main-tls}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {chain}
  tls.key: |
    {key}
",
        upstream_port = upstream.port(),
        ca = indented(upstream.ca_pem()),
        chain = indented(&issued.certificate_pem),
        key = indented(&issued.key_pem),
    )
}

async fn operator(folder: &Path) -> Process {
    let shown = |name: &str| folder.join(name).display().to_string();
    let program = Program {
        name: "postroad-operator".to_owned(),
        path: binaries::locate("postroad-operator").unwrap(),
        arguments: vec!["local".to_owned(), shown("manifests"), "--data".to_owned(), shown("data")],
        environment: Vec::new(),
    };
    Process::start(program).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_rendered_carries_a_thousand_messages_within_its_sessions() {
    let _alone = alone().await;
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let authority = CertificateAuthority::new("test").unwrap();
    let port = free_port().unwrap();
    let folder = ScratchFolder::new("postroad-local-").unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    let text = manifests(port, &upstream, &authority);
    std::fs::write(folder.path().join("manifests/all.yaml"), text).unwrap();
    let _operator = operator(folder.path()).await;
    let mut load = Load::to_address(([127, 0, 0, 1], port).into());
    load.security = Security::StartTls { server_name: "localhost".to_owned(), ca_pem: authority.pem() };
    load.credentials = Some(("app".to_owned(), "p a:s\"s".to_owned()));

    // Clients try again while nothing listens yet.
    let sent = load.clone().start().finish().await;
    for message in arrived_once(&load, &sent, &upstream, SESSIONS).await {
        assert!(message.tls && message.user.as_deref() == Some("relay"));
    }
}
