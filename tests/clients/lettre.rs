//! lettre, the one client that runs in the suite's own process.

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::send::Send;
use crate::setting::{USER, Way};

/// Sends one message.
///
/// # Errors
/// What lettre says.
pub async fn send(send: &Send) -> Result<(), String> {
    attempt(send).await.map_err(|error| format!("{error:?}"))
}

async fn attempt(send: &Send) -> anyhow::Result<()> {
    let parameters = || {
        TlsParameters::builder("localhost".to_owned())
            .certificate_store(CertificateStore::None)
            .add_root_certificate(Certificate::from_pem(send.authority_pem.as_bytes())?)
            .build()
    };
    let tls = match send.way {
        Way::Clear => Tls::None,
        Way::StartTls => Tls::Required(parameters()?),
        Way::Implicit => Tls::Wrapper(parameters()?),
    };
    let mut builder =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost").port(send.port).tls(tls);
    if let Some(mechanism) = send.mechanism {
        let mechanism = if mechanism == "LOGIN" { Mechanism::Login } else { Mechanism::Plain };
        builder = builder
            .credentials(Credentials::new(USER.to_owned(), send.password.clone()))
            .authentication(vec![mechanism]);
    }
    let recipients = send.recipients.iter().map(|recipient| recipient.parse()).collect::<Result<_, _>>()?;
    let envelope = Envelope::new(Some(send.reverse_path().parse()?), recipients)?;
    builder.build().send_raw(&envelope, &send.content).await?;
    Ok(())
}
