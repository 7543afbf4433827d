//! The reference lists the clients and what is tried with each, from the same tables that the tests run from.

use std::fmt::Write;
use std::path::Path;

use tokio::process::Command;

use crate::accepted::plan;
use crate::clients::{CLIENTS, Client};
use crate::messages::Kind;
use crate::refused::REFUSALS;
use crate::send::{built, suite};

/// What follows differs from machine to machine, and is not compared.
const VERSIONS: &str = "## Versions\n";

#[tokio::test]
async fn the_reference_lists_what_is_tried() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/clients.md");
    let tried = tried();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, tried.clone() + &versions().await).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let compared = committed.split_once(VERSIONS).map_or("", |(before, _)| before);
    assert!(compared == tried, "docs/reference/clients.md is out of date: run `make generate`");
}

fn tried() -> String {
    let mut text = "# Clients\n\n<!-- Generated from tests/clients by `make generate`. Do not edit. -->\n\n\
        These mail libraries and programs send through a relay in every test run: in the clear, known by their network;\n\
        with STARTTLS and AUTH; with implicit TLS and AUTH. The certificate is verified. Each message must arrive once,\n\
        octet for octet, to exactly its recipients.\n\n| client | what it is | AUTH | messages |\n|---|---|---|---|\n"
        .to_owned();
    for client in &CLIENTS {
        let plan = plan(client);
        let kinds = Kind::ALL.into_iter().filter(|kind| plan.iter().any(|(planned, ..)| planned == kind));
        let kinds: Vec<&str> = kinds.map(Kind::title).collect();
        let mechanisms = client.mechanisms.join(", ");
        let _ = writeln!(text, "| {} | {} | {mechanisms} | {} |", client.name, client.kind, kinds.join(", "));
    }
    text.push_str("\nLarge messages, 500 recipients, and the second and third mechanism are tried with STARTTLS only.\n");
    text.push_str("\n## Refusals\n\nEach client is refused in each of these ways, and must report it in the relay's own words:\n\n");
    for refusal in &REFUSALS {
        let told: Vec<String> =
            refusal.told.iter().map(|words| format!("`{}`", words.replace('|', "` or `"))).collect();
        let told = if told.is_empty() { "the client itself refuses".to_owned() } else { told.join(", ") };
        let _ = writeln!(text, "- {}: {told}", refusal.name);
    }
    let odd = CLIENTS.iter().filter(|client| client.empty_line).map(|client| client.name);
    let _ = writeln!(
        text,
        "\n## Peculiarities\n\n\
         - {} end every message with one more empty line; the relay passes it on.\n\
         - curl, msmtp and Jakarta Mail send octets above 127 without saying `BODY=8BITMIME`; the relay says it to the upstream.\n\
         - swaks sends no message without content.\n\
         - Postfix asks EHLO for the size limit and refuses by itself what is too large.\n\
         - smtplib does not send a user name or password outside ASCII.\n",
        odd.collect::<Vec<_>>().join(" and "),
    );
    text
}

async fn versions() -> String {
    let mut text = format!("{VERSIONS}\nTried last, when this page was generated:\n\n");
    for client in &CLIENTS {
        let _ = writeln!(text, "- {} {}", client.name, version(client).await);
    }
    text
}

async fn version(client: &Client) -> String {
    let mut command = Command::new(client.version[0]);
    command.args(&client.version[1..]).current_dir(suite());
    command.env("NODE_PATH", format!("{}/nodemailer/node_modules", built().await.libraries));
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().trim_start_matches("Python ").to_owned()
}
