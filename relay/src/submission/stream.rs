//! A client's connection, before and under TLS.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use super::received::TlsFacts;
use crate::client_certificate::ClientCertificate;

/// One read from the socket.
const READ_OCTETS: usize = 16 * 1024;

/// A connection from a client.
#[derive(Debug)]
pub(super) enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Performs the server's side of a TLS handshake.
    pub(super) async fn handshake(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        match self {
            Self::Plain(stream) => Ok(Self::Tls(Box::new(TlsAcceptor::from(config).accept(stream).await?))),
            Self::Tls(_) => Err(io::Error::other("the connection is under TLS already")),
        }
    }

    /// What was agreed on in the handshake; `None` in the clear.
    pub(super) fn tls_facts(&self) -> Option<TlsFacts> {
        let Self::Tls(stream) = self else { return None };
        let connection = stream.get_ref().1;
        Some(TlsFacts {
            version: connection.protocol_version()?,
            cipher: connection.negotiated_cipher_suite()?.suite(),
        })
    }

    /// The names in the certificate that the client has shown and the handshake has verified.
    pub(super) fn client_certificate(&self) -> Option<ClientCertificate> {
        let Self::Tls(stream) = self else { return None };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        // Without a name that can be read it is as good as none: no rule admits it.
        Some(ClientCertificate::read(certificate).unwrap_or_default())
    }

    /// The next octets; none at the end of the connection.
    ///
    /// A buffer exists only while there is something to read: 10,000 clients that say nothing hold none. *Cancellation*:
    /// nothing is lost.
    pub(super) async fn receive(&mut self) -> io::Result<BytesMut> {
        poll_fn(|cx| {
            let mut buffer = BytesMut::with_capacity(READ_OCTETS);
            ready!(poll_read_buf(Pin::new(&mut *self), cx, &mut buffer))?;
            Poll::Ready(Ok(buffer))
        })
        .await
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
