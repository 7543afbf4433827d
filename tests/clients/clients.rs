//! The clients, and what each can do.

use crate::setting::Way;

/// A mail library or program.
pub struct Client {
    /// Its name, and that of its folder.
    pub name: &'static str,
    /// What it is, for the reference.
    pub kind: &'static str,
    /// The command that sends one message; `None` for lettre, which runs in the suite's own process. Relative to the
    /// suite's folder or, with `{built}` in it, to what `prepare.sh` made.
    pub command: Option<&'static [&'static str]>,
    /// What prints its version, for the reference.
    pub version: &'static [&'static str],
    /// The mechanisms of AUTH it knows of those the relay offers; the first is the one that is used throughout.
    pub mechanisms: &'static [&'static str],
    /// Whether it can ask for SMTPUTF8.
    pub smtputf8: bool,
    /// Whether it can send a message without any octet.
    pub empty: bool,
    /// Whether it ends every message with one more empty line.
    pub empty_line: bool,
    /// Whether it also carries the large attachment: few do, for time.
    pub attachment: bool,
}

const PLAIN: &str = "PLAIN";
const LOGIN: &str = "LOGIN";
const SCRAM: &str = "SCRAM-SHA-256";

/// All of them.
pub const CLIENTS: [Client; 9] = [
    Client {
        name: "lettre",
        kind: "Rust library",
        command: None,
        version: &["sh", "-c", "grep -A1 '^name = \"lettre\"' ../../Cargo.lock | tail -n 1 | cut -d'\"' -f2"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: true,
        empty: true,
        empty_line: true,
        attachment: true,
    },
    Client {
        name: "smtplib",
        kind: "Python's standard library",
        command: Some(&["/usr/bin/env", "python3", "smtplib/send.py"]),
        version: &["python3", "--version"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: true,
    },
    Client {
        name: "nodemailer",
        kind: "Node.js library",
        command: Some(&["/usr/bin/env", "node", "nodemailer/send.js"]),
        version: &["node", "-p", "require('nodemailer/package.json').version"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: true,
    },
    Client {
        name: "net-smtp",
        kind: "Go's standard library (net/smtp)",
        command: Some(&["{built}/net-smtp"]),
        version: &["go", "env", "GOVERSION"],
        mechanisms: &[PLAIN],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: true,
    },
    Client {
        name: "swaks",
        kind: "Perl program",
        command: Some(&["swaks/send.sh"]),
        version: &["sh", "-c", "swaks --version | head -n 1 | cut -d' ' -f3"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: false,
        empty: false,
        empty_line: true,
        attachment: false,
    },
    Client {
        name: "curl",
        kind: "command-line program and C library",
        command: Some(&["curl/send.sh"]),
        version: &["sh", "-c", "curl --version | head -n 1 | cut -d' ' -f2"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: false,
    },
    Client {
        name: "msmtp",
        kind: "sendmail replacement",
        command: Some(&["msmtp/send.sh"]),
        version: &["sh", "-c", "msmtp --version | head -n 1 | cut -d' ' -f3"],
        mechanisms: &[PLAIN, LOGIN, SCRAM],
        smtputf8: false,
        empty: true,
        empty_line: false,
        attachment: false,
    },
    Client {
        name: "postfix",
        kind: "mail server, as a client",
        command: Some(&["postfix/send.sh"]),
        version: &["postconf", "-d", "-h", "mail_version"],
        mechanisms: &[PLAIN, LOGIN, SCRAM],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: false,
    },
    Client {
        name: "jakarta-mail",
        kind: "Java library (Eclipse Angus)",
        command: Some(&["/usr/bin/env", "java", "-cp", "{built}:{libraries}/jakarta-mail/*", "Send"]),
        version: &["sh", "-c", "grep -A1 angus-mail jakarta-mail/pom.xml | grep version | tr -dc '0-9.'"],
        mechanisms: &[PLAIN, LOGIN],
        smtputf8: true,
        empty: true,
        empty_line: false,
        attachment: false,
    },
];

impl Client {
    /// The client of this name.
    pub fn named(name: &str) -> &'static Self {
        CLIENTS.iter().find(|client| client.name == name).unwrap()
    }

    /// The mechanism it authenticates with by way of `way`; none where the relay knows it by its network.
    pub fn mechanism(&self, way: Way) -> Option<&'static str> {
        (way != Way::Clear).then_some(self.mechanisms[0])
    }
}
