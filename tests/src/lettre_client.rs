//! A second, independent client: lettre's SMTP transport, as an app's mail library would use the relay.
//!
//! It composes its messages itself, so they show that Postroad takes what a library sends and not only what the raw
//! client sends. Called by the suites and by the harness's own tests.

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::response::Response;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::conservation::TOKEN_FIELD;

/// Why lettre could not send.
#[derive(Debug, thiserror::Error)]
pub enum LettreError {
    /// The server refused, or the connection failed.
    #[error("lettre could not send: {0}")]
    Transport(#[from] lettre::transport::smtp::Error),
    /// The message could not be composed.
    #[error("lettre could not compose the message: {0}")]
    Message(#[from] lettre::error::Error),
    /// An address is not one.
    #[error("not an address: {0}")]
    Address(#[from] lettre::address::AddressError),
}

/// How lettre reaches the server.
#[derive(Clone, Debug)]
pub struct LettreOptions {
    /// Host name or IP address, expected in the certificate.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The trust anchor in PEM form: STARTTLS is then required. `None` sends in the clear.
    pub ca_pem: Option<String>,
    /// TLS from the first octet in place of STARTTLS.
    pub implicit: bool,
    /// User and password.
    pub credentials: Option<(String, String)>,
}

/// A pool of lettre connections.
pub struct LettreClient {
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl LettreClient {
    /// Prepares a client; connects on the first message.
    ///
    /// # Errors
    /// [`LettreError::Transport`] when the trust anchor or the host is unusable.
    pub fn new(options: &LettreOptions) -> Result<Self, LettreError> {
        let tls = match &options.ca_pem {
            None => Tls::None,
            Some(ca_pem) if options.implicit => Tls::Wrapper(tls_parameters(&options.host, ca_pem)?),
            Some(ca_pem) => Tls::Required(tls_parameters(&options.host, ca_pem)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(options.host.as_str())
            .port(options.port)
            .tls(tls);
        if let Some((user, password)) = &options.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(Self { transport: builder.build() })
    }

    /// Composes and sends a plain text message that carries `token`, and returns the server's reply.
    ///
    /// # Errors
    /// [`LettreError`]; the first refused recipient refuses the whole message, as lettre does it.
    pub async fn send(
        &self,
        token: &str,
        from: &str,
        to: &[&str],
        body: &str,
    ) -> Result<Response, LettreError> {
        let mut builder =
            Message::builder().from(from.parse()?).subject(token).header(Token(token.to_owned()));
        for recipient in to {
            builder = builder.to(recipient.parse()?);
        }
        Ok(self.transport.send(builder.body(body.to_owned())?).await?)
    }
}

fn tls_parameters(host: &str, ca_pem: &str) -> Result<TlsParameters, LettreError> {
    let parameters = TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(Certificate::from_pem(ca_pem.as_bytes())?)
        .build_rustls()?;
    Ok(parameters)
}

#[derive(Clone)]
struct Token(String);

impl Header for Token {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str(TOKEN_FIELD)
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}
