//! The control plane's processes: etcd, kube-apiserver, kube-controller-manager, on loopback ports, with throw-away
//! credentials. It knows flags and files; starting order and waiting are its caller's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;

use crate::certificates::CertificateAuthority;
use crate::control_plane::audit;
use crate::control_plane::binaries::locate;
use crate::control_plane::error::{ControlPlaneError, failed};
use crate::ports::free_port;
use crate::processes::Program;

/// The folder, ports and credentials of one control plane.
pub(crate) struct Parts {
    folder: PathBuf,
    etcd_client: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl Parts {
    /// Chooses ports and writes certificates, tokens and kubeconfigs into `folder`.
    pub(crate) fn prepare(folder: &Path) -> Result<Self, ControlPlaneError> {
        let port = || free_port().map_err(failed("a port for the control plane"));
        let parts =
            Self { folder: folder.to_owned(), etcd_client: port()?, etcd_peer: port()?, api_server: port()? };
        parts.write_credentials()?;
        Ok(parts)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path("audit.log")
    }

    /// The text of a kubeconfig for the bearer of `token`.
    pub(crate) fn kubeconfig_text(&self, token: &str) -> Result<String, ControlPlaneError> {
        let ca = std::fs::read(self.path("ca.crt")).map_err(failed("the control plane's CA"))?;
        Ok(format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{}\", certificate-authority-data: {}}}}}]\n\
             users: [{{name: test, user: {{token: {token}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\ncurrent-context: test\n",
            self.api_server,
            STANDARD.encode(ca)
        ))
    }

    pub(crate) async fn etcd(&self) -> Result<Program, ControlPlaneError> {
        let client = format!("http://127.0.0.1:{}", self.etcd_client);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer);
        let flags = [
            format!("--data-dir={}", self.shown("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // The data is worth nothing after the test.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        program("etcd", flags.to_vec(), &[]).await
    }

    pub(crate) async fn api_server(&self, further: &[String]) -> Result<Program, ControlPlaneError> {
        let flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_client),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // Nobody reaches the API server through its Service, and the reconciler refuses a loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.api_server),
            format!("--tls-cert-file={}", self.shown("api-server.crt")),
            format!("--tls-private-key-file={}", self.shown("api-server.key")),
            format!("--token-auth-file={}", self.shown("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-signing-key-file={}", self.shown("service-account.key")),
            format!("--service-account-key-file={}", self.shown("service-account.crt")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--profiling=false".to_owned(),
            format!("--audit-policy-file={}", self.shown("audit-policy.yaml")),
            format!("--audit-log-path={}", self.shown("audit.log")),
            // A write is in the log when its answer is out: a count is then never too small.
            "--audit-log-mode=blocking-strict".to_owned(),
        ];
        program("kube-apiserver", flags, further).await
    }

    pub(crate) async fn controller_manager(
        &self,
        controllers: &[String],
    ) -> Result<Program, ControlPlaneError> {
        let flags = vec![
            format!("--kubeconfig={}", self.shown("controller-manager.kubeconfig")),
            format!("--controllers={}", controllers.join(",")),
            format!("--service-account-private-key-file={}", self.shown("service-account.key")),
            format!("--root-ca-file={}", self.shown("ca.crt")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        program("kube-controller-manager", flags, &[]).await
    }

    fn write_credentials(&self) -> Result<(), ControlPlaneError> {
        let authority = CertificateAuthority::new("Postroad test control plane")?;
        let names = ["localhost", "127.0.0.1", "10.96.0.1", "kubernetes", "kubernetes.default.svc"];
        let issued = authority.issue(&names)?;
        self.write("ca.crt", &authority.pem())?;
        self.write("api-server.crt", &issued.certificate_pem)?;
        self.write("api-server.key", &issued.key_pem)?;
        // Any P-256 key will do: only the API server signs with it and checks it.
        // The API server reads the public half from a certificate, but not from a private key in PKCS #8.
        let service_account = authority.issue(&["service-account"])?;
        self.write("service-account.key", &service_account.key_pem)?;
        self.write("service-account.crt", &service_account.certificate_pem)?;
        let (admin, controllers) = (token(), token());
        self.write(
            "tokens.csv",
            &format!(
                "{admin},admin,admin,\"system:masters\"\n\
                 {controllers},system:kube-controller-manager,controllers,\"system:masters\"\n"
            ),
        )?;
        self.write("admin.kubeconfig", &self.kubeconfig_text(&admin)?)?;
        self.write("controller-manager.kubeconfig", &self.kubeconfig_text(&controllers)?)?;
        self.write("audit-policy.yaml", audit::POLICY)
    }

    fn write(&self, name: &str, content: &str) -> Result<(), ControlPlaneError> {
        std::fs::write(self.path(name), content).map_err(failed(self.shown(name)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where the API server listens, for messages.
    pub(crate) fn address(&self) -> String {
        format!("https://{}:{}", Ipv4Addr::LOCALHOST, self.api_server)
    }
}

fn token() -> String {
    let octets: [u8; 16] = rand::rng().random();
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

async fn program(
    name: &str,
    mut arguments: Vec<String>,
    further: &[String],
) -> Result<Program, ControlPlaneError> {
    arguments.extend_from_slice(further);
    Ok(Program { name: name.to_owned(), path: locate(name).await?, arguments, environment: Vec::new() })
}
