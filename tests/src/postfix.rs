//! A real Postfix on a loopback port: as upstream, with STARTTLS and SASL, discarding what it takes; or as a relay to compare
//! with, tuned for throughput.
//!
//! Its configuration, queue and log live in a temporary folder; the machine's own Postfix is not touched. Needs root, as
//! Postfix' master does, and the packages postfix, libsasl2-modules and sasl2-bin. Called by the suites and the benchmark.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::{CertificateAuthority, CertificateError};
use crate::ports::free_port;
use crate::processes::{Process, ProcessError, Program, Signal};

/// How long Postfix may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Rest between two looks at its port or log, which are not watched.
const POLL_REST: Duration = Duration::from_millis(50);

/// Why Postfix could not be run.
#[derive(Debug, thiserror::Error)]
pub enum PostfixError {
    /// Its folder, or one of its commands.
    #[error("Postfix could not be set up: {0}")]
    Io(#[from] io::Error),
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its master process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It did not get where it was expected.
    #[error("Postfix {0}; its last words:\n{1}")]
    Late(&'static str, String),
}

/// A running Postfix. *Cancellation*: dropping it ends its master, and with it all of it.
pub struct Postfix {
    port: u16,
    ca_pem: String,
    log: PathBuf,
    master: Process,
    _folder: TempDir,
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.master.signal(Signal::Terminate);
    }
}

impl Postfix {
    /// Starts an instance that takes mail from `user` with `password`, under TLS only.
    ///
    /// # Errors
    /// [`PostfixError`]
    pub async fn start(user: &str, password: &str) -> Result<Self, PostfixError> {
        let authority = CertificateAuthority::new("Postroad test Postfix")?;
        let prepare = |path: &Path| {
            write_certificate(path, &authority)?;
            add_user(path, user, password)?;
            Ok(upstream_settings(path))
        };
        Self::run(prepare, MASTER_OF_AN_UPSTREAM, authority.pem()).await
    }

    /// Starts an instance that takes mail from this machine in the clear and relays all of it to `upstream` on 127.0.0.1, tuned
    /// for throughput: no address rewriting, no lookups, connections to the upstream kept, a hundred processes on either side.
    /// It keeps each message on stable storage before it acknowledges it, as Postfix always does.
    ///
    /// # Errors
    /// [`PostfixError`]
    pub async fn relay(upstream: u16) -> Result<Self, PostfixError> {
        Self::run(|_| Ok(relay_settings(upstream)), MASTER_OF_A_RELAY, String::new()).await
    }

    /// `prepare` gets the folder and gives what main.cf says beside [`settings`].
    async fn run(
        prepare: impl FnOnce(&Path) -> Result<String, PostfixError>,
        services: &str,
        ca_pem: String,
    ) -> Result<Self, PostfixError> {
        let folder = TempDir::with_prefix("postroad-postfix-")?;
        // Postfix' processes run as the user postfix.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let (port, path) = (free_port()?, folder.path());
        for folder in ["etc", "etc/sasl", "log", "spool", "data"] {
            std::fs::create_dir(path.join(folder))?;
        }
        run(Command::new("chown").arg("postfix").arg(path.join("data")))?;
        let own = prepare(path)?;
        std::fs::write(path.join("etc/main.cf"), settings(path) + &own)?;
        std::fs::write(
            path.join("etc/master.cf"),
            format!("127.0.0.1:{port} inet n - n - 110 smtpd\n{services}"),
        )?;
        run(Command::new("/usr/sbin/postfix").arg("-c").arg(path.join("etc")).arg("check"))?;
        // -d: in the foreground, and in the process group it is given; with -s it wants to lead a session of its own.
        let master = Process::start(Program {
            name: "postfix".to_owned(),
            path: "/usr/lib/postfix/sbin/master".into(),
            arguments: vec!["-c".to_owned(), path.join("etc").display().to_string(), "-d".to_owned()],
            environment: Vec::new(),
        });
        let log = path.join("log/mail.log");
        let postfix = Self { port, ca_pem, log, master: master.await?, _folder: folder };
        postfix
            .wait_for("does not listen", READY_LIMIT, || {
                std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            })
            .await?;
        Ok(postfix)
    }

    /// The version of the package, as `postconf` tells it.
    ///
    /// # Errors
    /// The command's failure.
    pub fn version() -> io::Result<String> {
        let output = Command::new("/usr/sbin/postconf").args(["-d", "-h", "mail_version"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The process id of its master, from which all of its processes descend.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.master.id()
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that issued its own, in PEM form.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The lines of its log so far that contain `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until it has discarded `count` messages, which is its way of delivering them.
    ///
    /// # Errors
    /// [`PostfixError::Late`] after `limit`.
    pub async fn wait_for_messages(&self, count: usize, limit: Duration) -> Result<(), PostfixError> {
        self.wait_for("has not taken every message", limit, || self.logged("status=sent").len() >= count)
            .await
    }

    async fn wait_for(
        &self,
        what: &'static str,
        limit: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), PostfixError> {
        let begin = std::time::Instant::now();
        while !done() {
            if begin.elapsed() >= limit || self.master.exited().is_some() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(20).collect();
                return Err(PostfixError::Late(
                    what,
                    format!("{}\n{}", lines.join("\n"), self.master.log().tail(20)),
                ));
            }
            tokio::time::sleep(POLL_REST).await;
        }
        Ok(())
    }
}

fn write_certificate(path: &Path, authority: &CertificateAuthority) -> Result<(), PostfixError> {
    let issued = authority.issue(&["localhost"])?;
    std::fs::write(path.join("etc/chain.pem"), issued.certificate_pem)?;
    std::fs::write(path.join("etc/key.pem"), issued.key_pem)?;
    let sasl = format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN SCRAM-SHA-256\nsasldb_path: {}\n",
        path.join("etc/sasl/users").display()
    );
    Ok(std::fs::write(path.join("etc/sasl/smtpd.conf"), sasl)?)
}

fn settings(path: &Path) -> String {
    let path = path.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {path}/spool
data_directory = {path}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {path}/log/mail.log
maillog_file_prefixes = {path}
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
in_flow_delay = 0
"
    )
}

fn upstream_settings(path: &Path) -> String {
    let path = path.display();
    format!(
        "myhostname = upstream.test
default_transport = discard
relay_transport = discard
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {path}/etc/key.pem, {path}/etc/chain.pem
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = upstream.test
cyrus_sasl_config_path = {path}/etc/sasl
"
    )
}

fn relay_settings(upstream: u16) -> String {
    format!(
        "myhostname = relay.test
relayhost = [127.0.0.1]:{upstream}
mynetworks = 127.0.0.0/8
local_transport = error:no local delivery
alias_database =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtputf8_enable = no
default_process_limit = 200
initial_destination_concurrency = 50
smtp_destination_concurrency_limit = 100
default_destination_recipient_limit = 50
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = [127.0.0.1]:{upstream}
smtp_connection_reuse_time_limit = 300s
smtpd_discard_ehlo_keywords = chunking
receive_override_options = no_address_mappings, no_header_body_checks
disable_vrfy_command = yes
max_use = 10000
"
    )
}

const MASTER_OF_AN_UPSTREAM: &str = "cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";

const MASTER_OF_A_RELAY: &str = "cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - 100 smtp
relay unix - - n - 100 smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

fn add_user(path: &Path, user: &str, password: &str) -> io::Result<()> {
    let users = path.join("etc/sasl/users");
    let mut command = Command::new("/usr/sbin/saslpasswd2");
    command.args(["-p", "-c", "-u", "upstream.test", "-f"]).arg(&users).arg(user).stdin(Stdio::piped());
    let mut running = command.spawn()?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(password.as_bytes())?;
    }
    if !running.wait()?.success() {
        return Err(io::Error::other("saslpasswd2 failed"));
    }
    run(Command::new("chown").arg("postfix").arg(users))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
