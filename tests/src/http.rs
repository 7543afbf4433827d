//! One HTTP request, for the relay's admin port. Not a client: no TLS, no body, no redirects, no reuse of connections.
//!
//! It speaks HTTP/1.0, so that the answer ends with the connection and is never chunked (RFC 9112 §6.3).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time one request may take, from connecting to the last byte.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, as 200 or 503.
    pub status: u16,
    /// The body, with what is not UTF-8 replaced.
    pub body: String,
}

/// Fetches `path` from the HTTP server at `address`.
///
/// # Errors
/// The socket's error; `TimedOut` after five seconds; `InvalidData` when the answer is not HTTP.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    request(address, "GET", path, None).await
}

/// Sends a request without a body, with `token` as its bearer token if there is one.
///
/// # Errors
/// As [`get`].
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<Response> {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{bearer}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&answer)
    };
    tokio::time::timeout(LIMIT, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn parse(answer: &[u8]) -> io::Result<Response> {
    let text = String::from_utf8_lossy(answer);
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let status =
        head.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(not_http)?;
    Ok(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_from_an_answer() {
        let response =
            parse(b"HTTP/1.0 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready").unwrap();
        assert_eq!(response, Response { status: 503, body: "not ready".to_owned() });
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error() {
        assert_eq!(parse(b"220 mail ESMTP\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
