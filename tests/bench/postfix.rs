//! Postfix from Debian's package, tuned for throughput.

use std::net::{Ipv4Addr, SocketAddr};

use postroad_tests::postfix::Postfix;

use crate::contender::Contender;

/// Its name in the report.
pub const NAME: &str = "Postfix";

/// Starts it with its queue on the file system of temporary folders.
pub async fn start(sink: u16) -> anyhow::Result<Contender> {
    let postfix = Postfix::relay(sink).await?;
    Ok(Contender {
        name: NAME,
        version: Postfix::version()?,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, postfix.port())),
        process: postfix.id(),
        _running: Box::new(postfix),
    })
}
