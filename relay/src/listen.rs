//! Binding a port, on hosts with and without IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// Binds `address`. `[::]` serves IPv4 clients as well; on a host without IPv6 its IPv4 counterpart is bound instead.
///
/// # Errors
/// Those of the system; for `[::]` what binding that said, when neither could be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let refused = match TcpListener::bind(address).await {
        Ok(socket) => return Ok(socket),
        Err(refused) => refused,
    };
    // A kernel without IPv6 says "address family not supported", one with it disabled "cannot assign requested address"; a
    // port that is taken or forbidden is so for IPv4 too.
    let about_port = matches!(refused.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    if about_port || address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return Err(refused);
    }
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| refused)
}
