//! A relay under test, whichever it is: a port to send to and processes whose work is counted.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::{postfix, postroad};

/// A running relay that forwards everything to the sink.
pub struct Contender {
    /// Its name in the report.
    pub name: &'static str,
    /// Its version, as it tells it.
    pub version: String,
    /// Where it accepts mail.
    pub address: SocketAddr,
    /// The process from which all of its processes descend.
    pub process: u32,
    /// Ends it when dropped.
    pub _running: Box<dyn Any>,
}

/// How a contender is started.
pub struct Start {
    /// Its name in the report.
    pub name: &'static str,
    /// Starts it with the sink's port as its only upstream, and waits until it accepts mail.
    pub run: fn(u16) -> Starting,
}

/// A contender that is being started.
pub type Starting = Pin<Box<dyn Future<Output = anyhow::Result<Contender>>>>;

/// All of them, in the order in which they take turns.
pub fn all() -> [Start; 2] {
    [
        Start { name: postroad::NAME, run: |sink| Box::pin(postroad::start(sink)) },
        Start { name: postfix::NAME, run: |sink| Box::pin(postfix::start(sink)) },
    ]
}
