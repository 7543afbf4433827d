//! One type for a connection in the clear and one under TLS, shared by the raw client and the fake upstream.

use tokio::io::{AsyncRead, AsyncWrite};

/// What both ends read from and write to.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for T {}

/// A connection of either kind. TLS is laid over the boxed stream, so STARTTLS replaces a box by a box.
pub(crate) type BoxedStream = Box<dyn ByteStream>;
