//! The sync is really there: seen by `strace` to come before the 250, and counted against what it is shared by.

use std::fs;
use std::time::Instant;

use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::{Fault, Stage};
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, Scene, strace};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "traces the relay: make torture"]
async fn no_250_to_content_leaves_before_its_sync_has_returned() {
    const MESSAGES: usize = 50;
    let scene = Scene::new(None, 1_000_000_000).await;
    let _outage = scene.upstream.inject(Fault::reply(Stage::Greeting, "421 4.3.2 later"));
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let calls = "trace=pwrite64,fdatasync,sendto,write,writev";
    let strace = strace::attach(&scene.relay, &["-e", calls, "-o", output.to_str().unwrap()]).await;
    let mut client = SmtpClient::open(scene.load.address, &Security::None, "client.example").await.unwrap();
    client.set_patience(LIMIT);
    for number in 0..MESSAGES {
        let content = scene.load.content(&format!("trace-{number}"));
        let reply = client.message("a@example.com", &["b@example.net"], &content).await.unwrap();
        assert_eq!(reply.code, 250);
    }
    scene.relay.sigkill().await.unwrap();
    strace.wait(LIMIT).await.unwrap();
    let trace = fs::read_to_string(output).unwrap();
    let replies =
        check(&trace).unwrap_or_else(|line| panic!("no sync since the content was written: {line}"));
    assert_eq!(replies, MESSAGES, "replies seen in the trace");
}

/// Goes through the system calls of one client's session, in their order: each reply that says "queued" must follow a write to
/// the log and a sync that began after it and has returned 0. Returns how many there are, or the line of the first that does not.
fn check(trace: &str) -> Result<usize, &str> {
    let (mut written, mut syncing, mut synced) = (false, false, false);
    let mut replies = 0;
    for line in trace.lines() {
        if line.contains("pwrite64(") {
            (written, syncing, synced) = (true, false, false);
        }
        if line.contains("fdatasync(") {
            syncing = written;
        }
        if line.contains("fdatasync") && line.ends_with("= 0") {
            synced |= syncing;
        }
        if line.contains("\"250 2.6.0 queued") {
            if !synced {
                return Err(line);
            }
            (written, syncing, synced) = (false, false, false);
            replies += 1;
        }
    }
    Ok(replies)
}

#[test]
fn a_reply_before_its_sync_has_returned_is_found() {
    let write = "7 pwrite64(9, \"\", 100, 64) = 100\n";
    let reply = "8 sendto(5, \"250 2.6.0 queued as 1\\r\\n\", 23, 0, NULL, 0) = 23\n";
    let (begun, returned) = ("7 fdatasync(9 <unfinished ...>\n", "7 <... fdatasync resumed>) = 0\n");
    assert_eq!(check(&[write, begun, returned, reply].concat()), Ok(1));
    assert!(check(&[write, begun, reply, returned].concat()).is_err());
    assert!(check(&[begun, write, returned, reply].concat()).is_err());
    assert!(check(&[write, begun, returned, reply, reply].concat()).is_err());
    assert!(check(&[write, "7 fdatasync(9) = -1 EIO (Input/output error)\n", reply].concat()).is_err());
}

#[derive(Debug, Serialize)]
struct Sharing {
    scenario: &'static str,
    clients: usize,
    messages: usize,
    messages_per_sync: f64,
    messages_per_second: f64,
}

/// What so many clients share when they send about a thousand messages of 10 KiB.
async fn share(mut scene: Scene, scenario: &'static str, clients: usize) -> Sharing {
    let _outage = scene.upstream.inject(Fault::reply(Stage::Greeting, "421 4.3.2 later"));
    (scene.load.clients, scene.load.octets) = (clients, 10 << 10);
    scene.load.messages_per_client = (1_000 / clients).min(200);
    let messages = clients * scene.load.messages_per_client;
    let before = scene.relay.scrape().await.unwrap().value("postroad_relay_spool_syncs").unwrap();
    let begin = Instant::now();
    let sent = scene.load.start().finish().await;
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(sent.acknowledged.len(), messages);
    let syncs = scene.relay.scrape().await.unwrap().value("postroad_relay_spool_syncs").unwrap() - before;
    let (messages_per_sync, messages_per_second) = (messages as f64 / syncs, messages as f64 / seconds);
    let sharing = Sharing { scenario, clients, messages, messages_per_sync, messages_per_second };
    record(&sharing);
    sharing
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures: make torture"]
async fn a_sync_is_shared_by_the_clients_that_wait_for_it() {
    let mut sharing = Vec::new();
    for clients in [1, 10, 50, 200] {
        sharing.push(share(Scene::new(None, 1_000_000_000).await, "messages a sync", clients).await);
    }
    assert!(sharing[0].messages_per_sync <= 1.0, "one client waits for each of its syncs: {sharing:?}");
    assert!(sharing[2].messages_per_sync > sharing[0].messages_per_sync, "syncs are shared: {sharing:?}");
}

/// How many share a sync is the disk's to say; with one whose sync takes 5 ms there is time for a queue to form.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "traces the relay: make torture"]
async fn fifty_clients_share_the_syncs_of_a_slow_disk() {
    let scene = Scene::new(None, 1_000_000_000).await;
    let slow = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=5000", "-o", "/dev/null"];
    let _strace = strace::attach(&scene.relay, &slow).await;
    let sharing = share(scene, "messages a sync of a slow disk", 50).await;
    assert!(sharing.messages_per_sync > 2.0, "{sharing:?}");
}
