//! The spool's note that a content is about to be sent: asked for when its transaction begins, so that it is made while the upstream
//! answers MAIL, RCPT and DATA, and awaited before the content is sent (promise P3). Notes of several sessions share a batch.
//!
//! Every note ends: with the outcome that dispatch settles, or [withdrawn](withdraw) with the job that a session gives back. A message in
//! transit is its client's to send again, and not noted.

use super::Job;
use crate::spool::{Pending, Spool, SpoolError};

/// A note that was asked for.
pub(super) struct Note {
    asked: Result<Option<Pending<()>>, SpoolError>,
    needed: bool,
}

impl Note {
    /// Asks for the note; with `needed`, for one on stable storage, without which nothing may be sent.
    pub(super) async fn ask(spool: &Spool, job: &Job, needed: bool) -> Self {
        let asked = match job.in_transit {
            true => Ok(None),
            false => spool.sending(job.id, &job.recipients, needed).await.map(Some),
        };
        Self { asked, needed }
    }

    /// Waits until it is made.
    ///
    /// # Errors
    /// When the content must not be sent: the message is gone, or the spool takes no note and one is needed.
    pub(super) async fn made(self) -> Result<(), SpoolError> {
        let made = match self.asked {
            Ok(None) => Ok(()),
            Ok(Some(pending)) => pending.answered().await,
            Err(error) => Err(error),
        };
        match made {
            // Sent again by the next start in any case, as its outcome cannot be recorded either.
            Err(SpoolError::Unhealthy(_)) if !self.needed => Ok(()),
            made => made,
        }
    }
}

/// Takes the note of a job back whose content's end has not left. To be done before the job is given back: whoever takes it next
/// asks for a note of his own.
pub(super) async fn withdraw(spool: &Spool, job: &Job) {
    if !job.in_transit {
        // A spool that takes nothing keeps the note, and the next start counts a recipient too many.
        drop(spool.not_sent(job.id, &job.recipients).await);
    }
}
