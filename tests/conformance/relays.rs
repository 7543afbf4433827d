//! The relays that transcripts are spoken to: one process for each way a listener has to be set.

use std::collections::HashMap;
use std::rc::Rc;

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::certificates::{CertificateAuthority, IssuedCertificate};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};

use crate::settings::Settings;
use crate::transcript::Transcript;

/// What transcripts expect the relay to call itself.
pub(crate) const HOSTNAME: &str = "mail.example.com";

/// A relay and where it listens.
pub(crate) struct Relay {
    pub(crate) process: RelayProcess,
    pub(crate) port: u16,
}

/// Relays by their configuration, started when first needed.
pub(crate) struct Relays {
    authority: CertificateAuthority,
    certificate: IssuedCertificate,
    running: HashMap<String, Rc<Relay>>,
}

impl Relays {
    pub(crate) fn new() -> Self {
        let authority = CertificateAuthority::new("conformance").unwrap();
        let certificate = authority.issue(&[HOSTNAME]).unwrap();
        Self { authority, certificate, running: HashMap::new() }
    }

    /// Whom to trust, in PEM form.
    pub(crate) fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The relay for this transcript. One that is stopped in the course of it is its own.
    pub(crate) async fn get(&mut self, transcript: &Transcript) -> Rc<Relay> {
        let settings = Settings::of(transcript);
        if transcript.stops_the_server() {
            return Rc::new(self.start(&settings).await);
        }
        let key = settings.render("", "");
        if !self.running.contains_key(&key) {
            let relay = Rc::new(self.start(&settings).await);
            self.running.insert(key.clone(), relay);
        }
        self.running[&key].clone()
    }

    async fn start(&self, settings: &Settings) -> Relay {
        let port = free_port().unwrap();
        let certificate = serde_json::json!({
            "certificateChainPem": self.certificate.certificate_pem,
            "privateKeyPem": self.certificate.key_pem,
        });
        let text = settings.render(&format!("127.0.0.1:{port}"), &certificate.to_string());
        let config = RelayConfig::from_yaml(&text).unwrap();
        Relay { process: RelayProcess::start(&config, RelayOptions::default()).await.unwrap(), port }
    }

    /// How many processes run.
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }
}
