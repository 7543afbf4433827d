//! One message sent by one client. A client's program finds in its environment what to do, and ends with zero only when the
//! relay has taken the message for every recipient; else it says what the relay said.
//!
//! ```text
//! SMTP_HOST SMTP_PORT   where the relay listens       SMTP_SECURITY   none, starttls or implicit
//! SMTP_CA               file: the only authority the client may trust (PEM)
//! SMTP_MECHANISM        of AUTH, or empty             SMTP_USER SMTP_PASSWORD
//! SMTPUTF8              not empty when an address is not ASCII
//! MAIL_FROM             the reverse-path              RCPT_TO         file: the forward-paths, one a line
//! MESSAGE               file: the content, lines end in CRLF
//! SCRATCH               a folder for this message alone
//! ```

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use postroad_tests::processes::{Process, Program};
use postroad_tests::scratch::ScratchFolder;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::clients::Client;
use crate::lettre;
use crate::messages::Kind;
use crate::setting::{PASSWORD, Setting, USER, Way};

/// More than any client needs, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(90);

/// What is to be sent, and how.
#[derive(Clone)]
pub struct Send {
    /// Tells this message from all others of its upstream; letters, digits and hyphens.
    pub name: String,
    pub kind: Kind,
    pub way: Way,
    /// `None` sends without AUTH.
    pub mechanism: Option<&'static str>,
    pub password: String,
    /// The authority that the client trusts, in PEM form.
    pub authority_pem: String,
    pub port: u16,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

impl Send {
    /// What `client` sends when all is in order.
    pub fn new(setting: &Setting, client: &Client, kind: Kind, way: Way) -> Self {
        let mechanism = client.mechanism(way);
        let name = format!("{}-{kind:?}-{way:?}", client.name).to_lowercase();
        Self {
            kind,
            way,
            mechanism,
            password: PASSWORD.to_owned(),
            authority_pem: setting.authority.pem(),
            port: setting.port(way),
            recipients: kind.recipients(&name),
            content: kind.content(&name),
            name,
        }
    }

    /// The reverse-path.
    pub fn reverse_path(&self) -> String {
        self.kind.reverse_path(&self.name)
    }

    /// Sends it by `client`.
    ///
    /// # Errors
    /// All that the client had to say when it could not send.
    pub async fn by(&self, client: &Client, setting: &Setting) -> Result<(), String> {
        let Some(command) = client.command else { return lettre::send(self).await };
        let scratch = setting.folder.path().join(format!("{}-{}", self.name, self.port));
        std::fs::create_dir_all(&scratch).unwrap();
        let program = Program {
            name: self.name.clone(),
            path: PathBuf::from(place(command[0]).await),
            arguments: places(&command[1..]).await,
            environment: self.environment(&scratch).await,
        };
        let process = Process::start(program).await.unwrap();
        let status = process.wait(LIMIT).await.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("{status}\n{}", process.log().lines().join("\n"))) }
    }

    async fn environment(&self, scratch: &Path) -> Vec<(String, String)> {
        let file = |name: &str, content: &[u8]| {
            let path = scratch.join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let security = match self.way {
            Way::Clear => "none",
            Way::StartTls => "starttls",
            Way::Implicit => "implicit",
        };
        let utf8 = if self.kind == Kind::Utf8Addresses { "yes" } else { "" };
        let libraries = &built().await.libraries;
        [
            ("SMTP_HOST", "localhost".to_owned()),
            ("SMTP_PORT", self.port.to_string()),
            ("SMTP_SECURITY", security.to_owned()),
            ("SMTP_CA", file("ca.pem", self.authority_pem.as_bytes())),
            ("SMTP_MECHANISM", self.mechanism.unwrap_or_default().to_owned()),
            ("SMTP_USER", USER.to_owned()),
            ("SMTP_PASSWORD", self.password.clone()),
            ("SMTPUTF8", utf8.to_owned()),
            ("MAIL_FROM", self.reverse_path()),
            ("RCPT_TO", file("recipients", (self.recipients.join("\n") + "\n").as_bytes())),
            ("MESSAGE", file("message", &self.content)),
            ("SCRATCH", scratch.display().to_string()),
            ("NODE_PATH", format!("{libraries}/nodemailer/node_modules")),
            // UTF-8 on the command line and in the environment.
            ("LC_ALL", "C.UTF-8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// What `prepare.sh` made, and the libraries it found.
pub struct Built {
    folder: ScratchFolder,
    pub libraries: String,
}

/// Prepares the clients once for the whole suite.
pub async fn built() -> &'static Built {
    static BUILT: OnceCell<Built> = OnceCell::const_new();
    let build = async || {
        let folder = ScratchFolder::new("postroad-clients-built-").unwrap();
        let script = suite().join("prepare.sh");
        let output = Command::new(script)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "the clients could not be prepared: {}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        Built { folder, libraries: text.lines().last().unwrap().to_owned() }
    };
    BUILT.get_or_init(build).await
}

/// The folder of this suite.
pub fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

async fn place(part: &str) -> String {
    let built = built().await;
    let part = part
        .replace("{built}", &built.folder.path().display().to_string())
        .replace("{libraries}", &built.libraries);
    let committed = suite().join(&part);
    if committed.is_file() { committed.display().to_string() } else { part }
}

async fn places(parts: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for part in parts {
        all.push(place(part).await);
    }
    all
}
