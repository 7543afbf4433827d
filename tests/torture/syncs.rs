//! The sync is really there: seen by `strace` to come before the 250, and the one of a note before the final dot; and counted against
//! what it is shared by.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Instant;

use postroad_crds::relay_config::{AmbiguousDelivery, RelayConfig};
use postroad_tests::relay_process::RelayOptions;
use postroad_tests::smtp_server::{Fault, Stage};
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, Scene, strace};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "traces the relay: make torture"]
async fn no_250_to_content_leaves_before_its_sync_has_returned() {
    for clients in [1, 10, 50, 200] {
        let mut scene = Scene::new(None, 1_000_000_000).await;
        let _outage = scene.upstream.inject(Fault::reply(Stage::Greeting, "421 4.3.2 later"));
        (scene.load.clients, scene.load.octets) = (clients, 1 << 10);
        scene.load.messages_per_client = (200 / clients).max(2);
        let (acknowledged, trace) = traced(scene, &[], 0).await;
        let seen = check(&trace, &REPLIES)
            .unwrap_or_else(|line| panic!("no sync since the envelope was written: {line}"));
        assert_eq!(seen.said, acknowledged, "replies seen in the trace");
        record(&Traced { scenario: "sync before 250", clients, replies: seen.said, syncs: seen.syncs });
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "traces the relay: make torture"]
async fn no_content_leaves_before_the_sync_of_its_note_has_returned_where_the_pool_wants_it() {
    let hold = |config: &mut RelayConfig| config.queue.ambiguous_delivery = AmbiguousDelivery::Hold;
    let mut scene = Scene::with(1_000_000_000, RelayOptions::default(), hold).await;
    (scene.load.clients, scene.load.octets, scene.load.messages_per_client) = (10, 1 << 10, 20);
    let (acknowledged, trace) = traced(scene, &["-xx"], 200).await;
    let seen =
        check(&trace, &CONTENTS).unwrap_or_else(|line| panic!("no sync since the note was written: {line}"));
    assert_eq!((seen.said, acknowledged), (200, 200), "contents seen in the trace");
    record(&Traced { scenario: "sync before final dot", clients: 10, replies: seen.said, syncs: seen.syncs });
}

/// Lets the load through, and so many messages arrive; returns how many were acknowledged and what `strace` saw meanwhile.
async fn traced(scene: Scene, options: &[&str], arriving: usize) -> (usize, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let calls = "trace=pwrite64,fdatasync,fsync,sendto,write,writev";
    // Long enough for the largest batch, as everything in it is to be seen.
    let always = ["-y", "-s", "16000000", "-e", calls, "-o", output.to_str().unwrap()];
    let strace = strace::attach(&scene.relay, &[&always, options].concat()).await;
    let sent = scene.load.clone().start().finish().await;
    scene.upstream.wait_for(arriving, LIMIT).await.unwrap();
    scene.relay.sigkill().await.unwrap();
    strace.wait(LIMIT).await.unwrap();
    (sent.acknowledged.len(), String::from_utf8_lossy(&fs::read(output).unwrap()).into_owned())
}

#[derive(Serialize)]
struct Traced {
    scenario: &'static str,
    clients: usize,
    replies: usize,
    syncs: usize,
}

/// What must be on stable storage before something is said.
struct Order {
    /// The messages whose record is in a write.
    written: fn(&str) -> Vec<String>,
    /// The messages of which a call says what rests on that.
    said: fn(&str) -> Vec<String>,
}

/// The envelope, before the reply that says "queued".
const REPLIES: Order =
    Order { written: |call| ids(call, r#"\"id\":\""#), said: |call| ids(call, "250 2.6.0 queued as ") };
/// The note that it is being sent, before the content, in a trace in hexadecimal.
const CONTENTS: Order = Order { written: notes, said: |call| ids(&text(call), "\r\n\tid ") };

/// What a trace shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// What rests on a record.
    said: usize,
    /// Syncs of segments that returned 0.
    syncs: usize,
}

/// Goes through the system calls of a relay: what is said of a message must follow a write of its record to a segment, and a sync of
/// that segment that began after the write and has returned 0. Returns the line of the first that does not.
fn check<'a>(trace: &'a str, order: &Order) -> Result<Seen, &'a str> {
    let mut seen = Seen::default();
    // Records written to each segment and not synced, those that each thread's sync is to bring, and those on stable storage.
    let mut written: HashMap<&str, Vec<String>> = HashMap::new();
    let mut syncing: HashMap<&str, Vec<String>> = HashMap::new();
    let mut durable: HashSet<String> = HashSet::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("pwrite64(") {
            written.entry(path(call)).or_default().extend((order.written)(call));
            continue;
        }
        if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
            syncing.insert(thread, written.remove(path(call)).unwrap_or_default());
        }
        if call.contains("sync") && call.split(" <").next().is_some_and(|call| call.ends_with("= 0")) {
            let ids = syncing.remove(thread).unwrap_or_default();
            seen.syncs += usize::from(!ids.is_empty());
            durable.extend(ids);
        }
        for id in (order.said)(call) {
            if !durable.contains(&id) {
                return Err(line);
            }
            seen.said += 1;
        }
    }
    Ok(seen)
}

/// The file a call is about.
fn path(call: &str) -> &str {
    call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path)
}

/// The message ids that follow `before`.
fn ids(call: &str, before: &str) -> Vec<String> {
    call.split(before).skip(1).filter_map(|rest| rest.get(..26)).map(str::to_owned).collect()
}

/// The messages that a write notes to be sent: the ids in the headers of such records, which are numbers.
fn notes(call: &str) -> Vec<String> {
    const HEADER: &[u8] = b"\xD7PrR\x08";
    let octets = octets(call);
    let headers = octets.windows(HEADER.len() + 16).filter(|window| window.starts_with(HEADER));
    let number = |header: &[u8]| u128::from_le_bytes(*header.last_chunk().unwrap());
    headers.map(|header| message_id(number(header))).collect()
}

/// A message id as it is written for people: Crockford's base 32.
fn message_id(number: u128) -> String {
    let digit = |place: u32| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(number >> (place * 5)) as usize & 31];
    (0..26).rev().map(|place| char::from(digit(place))).collect()
}

/// The octets of a call's data, where the trace has them in hexadecimal.
fn octets(call: &str) -> Vec<u8> {
    let octet = |digits: &str| u8::from_str_radix(digits.get(..2)?, 16).ok();
    call.split("\\x").skip(1).filter_map(octet).collect()
}

fn text(call: &str) -> String {
    String::from_utf8_lossy(&octets(call)).into_owned()
}

#[test]
fn a_reply_before_its_sync_has_returned_is_found() {
    let (one, two) = ("01M8AAE2N5XC01T8F5S2NHVR4D", "01M8AAE2P80RE3X504F7SE4RRV");
    let write = |id| format!("7 pwrite64(9</s/1.log>, \"..{{\\\"id\\\":\\\"{id}\\\",\"..., 100, 64) = 100\n");
    let reply = |id| format!("8 sendto(5<x>, \"250 2.6.0 queued as {id}\\r\\n\", 23, 0, NULL, 0) = 23\n");
    let (begun, returned) =
        ("7 fdatasync(9</s/1.log> <unfinished ...>\n", "7 <... fdatasync resumed>) = 0\n");
    let check = |lines: &[&str]| check(&lines.concat(), &REPLIES).map_err(str::to_owned);
    let seen = |said| Ok(Seen { said, syncs: 1 });
    assert_eq!(check(&[&write(one), &write(two), begun, returned, &reply(two), &reply(one)]), seen(2));
    assert!(check(&[&write(one), begun, &reply(one), returned]).is_err());
    assert!(check(&[begun, &write(one), returned, &reply(one)]).is_err());
    assert!(check(&[&write(one), begun, &write(two), returned, &reply(two)]).is_err());
    let other = "7 fdatasync(9</s/spare>) = 0\n";
    assert!(check(&[&write(one), other, &reply(one)]).is_err());
    let failed = "7 fdatasync(9</s/1.log>) = -1 EIO (Input/output error)\n";
    assert!(check(&[&write(one), failed, &reply(one)]).is_err());
}

#[test]
fn a_content_before_the_sync_of_its_note_has_returned_is_found() {
    let hexadecimal =
        |octets: &[u8]| octets.iter().map(|octet| format!("\\x{octet:02x}")).collect::<String>();
    let number = 0x0191_2b3c_4d5e_6f70_8192_a3b4_c5d6_e7f8_u128;
    let note = |kind| [b"\xD7PrR", &[kind][..], &number.to_le_bytes(), b"[0]"].concat();
    let write = |kind| format!("7 pwrite64(9</s/1.log>, \"{}\", 24, 64) = 24\n", hexadecimal(&note(kind)));
    let content = format!("Received: from x\r\n\tid {}\r\n", message_id(number));
    let content = format!("8 sendto(5<x>, \"{}\", 60, 0, NULL, 0) = 60\n", hexadecimal(content.as_bytes()));
    let sync = "7 fdatasync(9</s/1.log>) = 0\n";
    let check = |lines: &[&str]| check(&lines.concat(), &CONTENTS).map(|seen| seen.said).ok();
    assert_eq!(check(&[&write(8), sync, &content]), Some(1));
    assert_eq!(check(&[&write(8), &content, sync]), None);
    assert_eq!(check(&[&write(3), sync, &content]), None, "another record");
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
