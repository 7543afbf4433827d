//! A write that fails, for real: the process may make no file larger than 256 KiB (`RLIMIT_FSIZE`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::super::{Fate, Health, Options, SpoolError};
use super::support::{assert_stored, open, runtime, state, store};
use crate::message::MessageId;

const DIRECTORY: &str = "POSTROAD_SPOOL_TEST_DIRECTORY";

#[test]
fn a_failed_write_is_not_acknowledged_and_ends_storing_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &test_name()])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    let acknowledged: u128 =
        fs::read_to_string(directory.path().join("acknowledged")).unwrap().parse().unwrap();
    assert!(acknowledged > 10);
    let (spool, recovery) = open(&directory.path().join("spool"), Options::default());
    assert!(recovery.quarantined.is_empty() && recovery.messages.len() as u128 >= acknowledged);
    runtime().block_on(async {
        for id in 1..=acknowledged {
            assert_stored(&spool, id, 10_000, 0).await;
        }
    });
}

fn test_name() -> String {
    let module = module_path!();
    let within_crate = module.split_once("::").map_or(module, |(_, rest)| rest);
    format!("{within_crate}::stores_until_a_write_fails")
}

#[test]
#[ignore = "run by the test above, under a limit"]
fn stores_until_a_write_fails() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("started by the test above"));
    let (spool, _) = open(&directory.join("spool"), Options::default());
    runtime().block_on(async {
        let mut acknowledged = 0;
        let failure = loop {
            assert!(acknowledged < 1_000, "the limit has no effect on what is acknowledged");
            match store(&spool, acknowledged + 1, 10_000).await {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(failure, SpoolError::Unhealthy(_)), "{failure}");
        assert!(failure.to_string().contains("segment-0000000000000001.log"), "{failure}");
        assert!(matches!(&*spool.health().borrow(), Health::Unhealthy(_)));
        // Smaller ones would fit, yet nothing is tried again.
        assert!(matches!(store(&spool, 900, 1).await, Err(SpoolError::Unhealthy(_))));
        assert!(matches!(spool.update(MessageId(1), state(1)).await, Err(SpoolError::Unhealthy(_))));
        assert!(matches!(spool.remove(MessageId(1), Fate::Delivered).await, Err(SpoolError::Unhealthy(_))));
        assert_stored(&spool, 1, 10_000, 0).await;
        assert_eq!(spool.usage().messages as u128, acknowledged);
        fs::write(directory.join("acknowledged"), acknowledged.to_string()).unwrap();
        spool.close().await;
    });
}
