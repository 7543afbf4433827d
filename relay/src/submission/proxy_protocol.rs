//! The PROXY protocol, versions 1 and 2: a load balancer's word for where a connection really comes from.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Parsing is pure and strict; [`read`] takes exactly the
//! header from the connection, so that what follows, be it SMTP or a TLS handshake, is left as it came. Who may send a header
//! is the listener's to say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: the longest line with its CRLF.
const LINE_OCTETS: usize = 107;
/// Octets behind the fixed part of version 2: addresses and extensions. §2.2 asks receivers for 536 at least in all.
const EXTENSION_OCTETS: usize = 2048;

/// What the load balancer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The connection was made by this address.
    Client(IpAddr),
    /// The load balancer itself made it (a health check), or does not know.
    Unknown,
}

/// Reads the header that must begin the connection.
///
/// # Errors
/// `InvalidData` when it is none; those of the connection.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Source> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE {
        return read_binary(stream).await;
    }
    if !begin.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut line = begin.to_vec();
    // §2.1: so short a line comes in one segment. By octets, because what is behind it must stay unread.
    while !line.ends_with(b"\n") {
        if line.len() == LINE_OCTETS {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line).ok_or_else(malformed)
}

async fn read_binary(stream: &mut TcpStream) -> io::Result<Source> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > EXTENSION_OCTETS {
        return Err(malformed());
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    parse_binary(fixed[0], fixed[1], &addresses).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the PROXY protocol header is missing or malformed")
}

/// §2.1.
fn parse_line(line: &[u8]) -> Option<Source> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let rest = line.strip_prefix("PROXY ")?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(Source::Unknown);
    }
    let words: Vec<&str> = rest.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else { return None };
    port(source_port)?;
    port(destination_port)?;
    match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            Some(Source::Client(IpAddr::V4(source.parse().ok()?)))
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            Some(Source::Client(IpAddr::V6(source.parse().ok()?)))
        }
        _ => None,
    }
}

/// 0 to 65535, without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain)
}

/// §2.2: version and command, family and protocol, addresses with extensions behind them.
fn parse_binary(version_command: u8, family: u8, addresses: &[u8]) -> Option<Source> {
    match (version_command, family) {
        // LOCAL: whatever the rest says is to be ignored.
        (0x20, _) | (0x21, 0x00) => Some(Source::Unknown),
        (0x21, 0x11) => {
            let (source, _) = addresses.get(..12)?.split_first_chunk::<4>()?;
            Some(Source::Client(IpAddr::V4(Ipv4Addr::from(*source))))
        }
        (0x21, 0x21) => {
            let (source, _) = addresses.get(..36)?.split_first_chunk::<16>()?;
            Some(Source::Client(IpAddr::V6(Ipv6Addr::from(*source))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<Source> {
        Some(Source::Client(text.parse().unwrap()))
    }

    #[test]
    fn a_line_names_the_client() {
        let check = |line: &str, expected| assert_eq!(parse_line(line.as_bytes()), expected, "{line:?}");
        check("PROXY TCP4 192.0.2.1 10.0.0.1 56324 25\r\n", client("192.0.2.1"));
        check("PROXY TCP6 2001:db8::1 ::1 56324 25\r\n", client("2001:db8::1"));
        check("PROXY UNKNOWN\r\n", Some(Source::Unknown));
        check("PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", Some(Source::Unknown));
        for line in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 25\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 25 \r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 56324 25\r\n",
            "PROXY TCP4 2001:db8::1 10.0.0.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.1 ::1 56324 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 056 25\r\n",
            "PROXY TCP4 192.0.2.001 10.0.0.1 1 25\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 25\r\n",
            "PROXY UNKNOWNx\r\n",
            "proxy UNKNOWN\r\n",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn the_binary_form_names_the_client() {
        let ipv4 = [192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 0, 25];
        assert_eq!(parse_binary(0x21, 0x11, &ipv4), client("192.0.2.1"));
        assert_eq!(
            parse_binary(0x21, 0x11, &[&ipv4[..], &[0x04, 0, 0]].concat()),
            client("192.0.2.1"),
            "extensions"
        );
        assert_eq!(parse_binary(0x21, 0x11, &ipv4[..11]), None);
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let ipv6 = [&source.octets()[..], &[0; 20]].concat();
        assert_eq!(parse_binary(0x21, 0x21, &ipv6), client("2001:db8::1"));
        assert_eq!(parse_binary(0x20, 0x11, &[]), Some(Source::Unknown), "LOCAL");
        assert_eq!(parse_binary(0x21, 0x00, &[]), Some(Source::Unknown), "UNSPEC");
        for (version_command, family) in
            [(0x11, 0x11), (0x22, 0x11), (0x21, 0x12), (0x21, 0x31), (0x31, 0x11)]
        {
            assert_eq!(parse_binary(version_command, family, &ipv6), None);
        }
    }
}
