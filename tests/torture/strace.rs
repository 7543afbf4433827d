//! `strace` of a relay that runs: to see its system calls, or to change what they do.

use std::fs;
use std::time::Duration;

use postroad_tests::processes::{Process, Program};
use postroad_tests::relay_process::RelayProcess;

/// `strace` of the relay with these options, attached. It ends with the relay.
pub(crate) async fn attach(relay: &RelayProcess, options: &[&str]) -> Process {
    let relay = relay.id().to_string();
    let strace = Process::start(Program {
        name: "strace".to_owned(),
        path: "/usr/bin/strace".into(),
        arguments: [&["-f", "-p", &relay], options].concat().into_iter().map(str::to_owned).collect(),
        environment: Vec::new(),
    });
    let strace = strace.await.unwrap();
    let traced = || fs::read_to_string(format!("/proc/{relay}/status")).unwrap();
    while traced().contains("TracerPid:\t0\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    strace
}
