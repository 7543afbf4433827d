//! The end-to-end suite: the chart on a real cluster, apps in pods, faults under load. `make e2e` brings the cluster up, runs these
//! tests one after the other (they break nodes) and takes it down; without it they are ignored.
//!
//! ```text
//! installation  helm, once for all tests        mail      what an app sees: names, ports, TLS, refusals
//! peers         the pods that are not Postroad   volume    a volume follows its pod to another node
//! rates         five relays share a budget       scene     what they share
//! faults        each fault under load            account   the table of what came of them
//! departures    relays that go for good            certificates  apps that are known by one
//! ```

#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod account;
mod certificates;
mod departures;
mod faults;
mod installation;
mod mail;
mod peers;
mod rates;
mod scene;
mod volume;

use std::time::Duration;

/// How long anything that is awaited may take. Generous, because the machine may be busy: what is awaited is asserted all the same.
const LIMIT: Duration = Duration::from_secs(180);
