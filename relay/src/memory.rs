//! Whether the relay has memory left for more mail: the watermark at which clients are asked to come back later.
//!
//! What a session may hold is bounded, so this is reached only where more sessions are allowed than the container's memory is
//! made for; without it the kernel would end the process, and every session with it. The limit is told by the caller:
//! Kubernetes passes on what the container has (`resourceFieldRef`).

use std::io;
use std::time::Duration;

use rustix::param::page_size;
use tokio::sync::watch;

/// How often the memory in use is looked at. What all sessions together read within it is far below the reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether memory is short, to be looked at before mail is accepted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(watch::Receiver<bool>);

/// How much memory there is, and how much of it is in use before more mail is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watermark {
    limit: u64,
}

impl Watermark {
    /// Whether memory is short with `used` octets in use; `short` is the answer before. Beyond 85 % it is, until less than
    /// 75 % are in use, so that it does not change with each message.
    fn is_short(self, used: u64, short: bool) -> bool {
        let percent = u128::from(used) * 100 / u128::from(self.limit.max(1));
        percent >= if short { 75 } else { 85 }
    }
}

impl Memory {
    /// Memory without a limit: never short.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(watch::channel(false).1)
    }

    /// Watches this process against `limit` octets, from a task that ends when nobody looks any more.
    #[must_use]
    pub fn watch(limit: u64) -> Self {
        let (short, look) = watch::channel(false);
        tokio::spawn(observe(Watermark { limit }, short));
        Self(look)
    }

    /// Whether memory is short.
    #[must_use]
    pub fn is_short(&self) -> bool {
        *self.0.borrow()
    }
}

async fn observe(watermark: Watermark, short: watch::Sender<bool>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    while !short.is_closed() {
        look.tick().await;
        let used = match resident() {
            Ok(used) => used,
            Err(error) => {
                tracing::error!(%error, "the memory in use cannot be read: mail is accepted whatever it is");
                return;
            }
        };
        let before = *short.borrow();
        let now = watermark.is_short(used, before);
        if now != before {
            short.send_replace(now);
            if now {
                tracing::warn!(used, limit = watermark.limit, "memory is short: no mail is accepted");
            } else {
                tracing::info!(used, limit = watermark.limit, "there is memory for mail again");
            }
        }
    }
}

/// Octets of memory that only this process's end gives back: resident pages without those that files back (proc(5),
/// `statm`).
fn resident() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let mut fields = text.split(' ').skip(1).map(str::parse::<u64>);
    let (Some(Ok(resident)), Some(Ok(shared))) = (fields.next(), fields.next()) else {
        return Err(io::Error::other("/proc/self/statm is not as it should be"));
    };
    Ok(resident.saturating_sub(shared) * page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_85_percent_on_until_it_has_fallen_below_75() {
        let watermark = Watermark { limit: 1_000 };
        let mut short = false;
        let steps = [(849, false), (850, true), (760, true), (749, false), (800, false)];
        for (used, expected) in steps {
            short = watermark.is_short(used, short);
            assert_eq!(short, expected, "{used}");
        }
    }

    #[tokio::test]
    async fn a_process_with_less_memory_than_it_uses_is_short_of_it() {
        let mut memory = Memory::watch(1_000);
        memory.0.wait_for(|short| *short).await.unwrap();
        assert!(!Memory::watch(u64::MAX).is_short() && !Memory::unlimited().is_short());
    }
}
