//! A real Postfix as upstream: an instance of its own on a loopback port, with STARTTLS and SASL, that discards what it takes.
//!
//! Its configuration, queue and log live in a temporary folder; the machine's own Postfix is not touched. Needs root, as
//! Postfix' master does, and the packages postfix, libsasl2-modules and sasl2-bin. Called by the suites.

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
        let folder = TempDir::with_prefix("postroad-postfix-")?;
        // Postfix' processes run as the user postfix.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let authority = CertificateAuthority::new("Postroad test Postfix")?;
        let (port, path) = (free_port()?, folder.path());
        write_files(path, port, &authority)?;
        add_user(path, user, password)?;
        run(Command::new("/usr/sbin/postfix").arg("-c").arg(path.join("etc")).arg("check"))?;
        // -d: in the foreground, and in the process group it is given; with -s it wants to lead a session of its own.
        let master = Process::start(Program {
            name: "postfix".to_owned(),
            path: "/usr/lib/postfix/sbin/master".into(),
            arguments: vec!["-c".to_owned(), path.join("etc").display().to_string(), "-d".to_owned()],
            environment: Vec::new(),
        });
        let postfix = Self {
            port,
            ca_pem: authority.pem(),
            log: path.join("log/mail.log"),
            master: master.await?,
            _folder: folder,
        };
        postfix
            .wait_for("does not listen", READY_LIMIT, || {
                std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            })
            .await?;
        Ok(postfix)
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

fn write_files(path: &Path, port: u16, authority: &CertificateAuthority) -> Result<(), PostfixError> {
    let issued = authority.issue(&["localhost"])?;
    for folder in ["etc", "etc/sasl", "log", "spool", "data"] {
        std::fs::create_dir(path.join(folder))?;
    }
    run(Command::new("chown").arg("postfix").arg(path.join("data")))?;
    std::fs::write(path.join("etc/main.cf"), main_cf(path))?;
    std::fs::write(path.join("etc/master.cf"), master_cf(port))?;
    std::fs::write(path.join("etc/chain.pem"), issued.certificate_pem)?;
    std::fs::write(path.join("etc/key.pem"), issued.key_pem)?;
    let sasl = format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN SCRAM-SHA-256\nsasldb_path: {}\n",
        path.join("etc/sasl/users").display()
    );
    Ok(std::fs::write(path.join("etc/sasl/smtpd.conf"), sasl)?)
}

fn main_cf(path: &Path) -> String {
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
myhostname = upstream.test
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
default_transport = discard
relay_transport = discard
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {path}/etc/key.pem, {path}/etc/chain.pem
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = upstream.test
cyrus_sasl_config_path = {path}/etc/sasl
in_flow_delay = 0
"
    )
}

fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - 20 smtpd
cleanup unix n - n - 0 cleanup
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
"
    )
}

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
