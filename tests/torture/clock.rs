//! Clocks that jump: the relay's wall clock is moved under it by libfaketime, forth and back, by minutes and by weeks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use postroad_tests::relay_process::RelayOptions;
use postroad_tests::smtp_server::{Fault, Stage};

use crate::judge::judge;
use crate::{LIMIT, Scene};

/// The offsets to which the clock jumps, in turn; beyond the pool's expiry only while the upstream takes mail.
const MINUTES: [&str; 4] = ["+50m", "-50m", "+0", "+50m"];
const WEEKS: [&str; 3] = ["+21d", "-21d", "+0"];

/// libfaketime for programs with threads, where Debian has it.
fn library() -> String {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is installed by make setup").to_str().unwrap().to_owned()
}

/// A wall clock that the relay believes in. Its monotonic clock goes on as it should, as the kernel's does.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let clock = Self { file: folder.join("offset") };
        clock.jump("+0");
        clock
    }

    /// Atomically, as the relay may read at any moment.
    fn jump(&self, offset: &str) {
        let next = self.file.with_extension("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    fn environment(&self) -> Vec<(String, String)> {
        let entries = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        entries.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: make torture"]
async fn clocks_that_jump_lose_nothing_and_strand_nothing() {
    let begin = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new(folder.path());
    let options = RelayOptions { environment: clock.environment(), ..RelayOptions::default() };
    let mut scene = Scene::with(1_000_000_000, options, |_| {}).await;
    let running = scene.load.clone().start();
    let outage = scene.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
    for offset in MINUTES {
        clock.jump(offset);
        running.wait_for_acknowledged(running.acknowledged() + 100, LIMIT).await.unwrap();
    }
    // What waits is killed while the clock is ahead, and found by a start when it is right again.
    scene.relay.sigkill().await.unwrap();
    let mut crashes = vec![Instant::now()];
    clock.jump("+0");
    scene.upstream.withdraw(outage);
    scene.relay.restart().await.unwrap();
    running.wait_for_acknowledged(running.acknowledged() + 100, LIMIT).await.unwrap();
    for offset in WEEKS {
        clock.jump(offset);
        running.wait_for_acknowledged(running.acknowledged() + 100, LIMIT).await.unwrap();
        scene.relay.sigkill().await.unwrap();
        crashes.push(Instant::now());
        scene.relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;
    assert!(sent.refused.is_empty(), "{:?}", sent.refused);
    judge("clock jumps", &sent, &scene.upstream, &crashes, begin, LIMIT).await;
}
