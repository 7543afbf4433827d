//! Reading the Secrets that objects name: one place that knows how a missing Secret, a missing key and an unusable value are
//! told apart and told to people. No message here contains a value. Pure: who fetched the Secrets is not its concern.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use postroad_crds::relay_config::{Certificate, Credentials, Sensitive};
use postroad_crds::stored_password::StoredPassword;
use postroad_crds::v1alpha1::CredentialsType;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::reason::{Problem, Reason};

const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

/// The Secrets of one namespace that were asked for and exist, by name.
#[derive(Clone, Default)]
pub struct Secrets {
    namespace: String,
    present: BTreeMap<String, Secret>,
}

/// A Secret together with what names it, for messages.
struct Named<'a> {
    place: String,
    secret: &'a Secret,
}

impl Secrets {
    /// No Secret of this namespace yet.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), present: BTreeMap::new() }
    }

    /// Adds one that exists.
    pub fn insert(&mut self, name: &str, secret: Secret) {
        self.present.insert(name.to_owned(), secret);
    }

    /// What an upstream is authenticated to with. `by` says which field of which object names the Secret.
    ///
    /// # Errors
    /// `SecretNotFound`, `SecretKeyMissing` or `SecretInvalid`.
    pub fn credentials(&self, kind: CredentialsType, name: &str, by: &str) -> Result<Credentials, Problem> {
        let key = match kind {
            CredentialsType::Password => "password",
            CredentialsType::AccessToken => "accessToken",
        };
        let secret = self.find(name, by, &format!("with the keys username and {key}"))?;
        let username = Sensitive(secret.credential("username")?);
        let proof = Some(Sensitive(secret.credential(key)?));
        Ok(match kind {
            CredentialsType::Password => Credentials { username, password: proof, access_token: None },
            CredentialsType::AccessToken => Credentials { username, password: None, access_token: proof },
        })
    }

    /// Passwords by user name: one pair in a Secret of type `kubernetes.io/basic-auth`, else one user a key.
    ///
    /// # Errors
    /// `SecretNotFound`, `SecretKeyMissing` or `SecretInvalid`, the latter also for a Secret without any user.
    pub fn users(&self, name: &str, by: &str) -> Result<BTreeMap<String, Sensitive>, Problem> {
        let secret = self.find(name, by, "with one key per user, the password as its value")?;
        if secret.secret.type_.as_deref() == Some(BASIC_AUTH) {
            let (user, value) = (secret.credential("username")?, secret.credential("password")?);
            StoredPassword::parse(&value)
                .map_err(|error| secret.invalid(&format!("key \"password\" {error}")))?;
            return Ok(BTreeMap::from([(user, Sensitive(value))]));
        }
        let keys: Vec<&String> = secret.secret.data.iter().flatten().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return Err(secret.invalid("holds no user: add one key per user, the password as its value"));
        }
        let user = |key: &String| {
            let value = secret.credential(key)?;
            StoredPassword::parse(&value).map_err(|error| secret.invalid(&format!("key {key:?} {error}")))?;
            Ok((key.clone(), Sensitive(value)))
        };
        keys.into_iter().map(user).collect()
    }

    /// A certificate chain and the key that belongs to it.
    ///
    /// # Errors
    /// `SecretNotFound`, `SecretKeyMissing`, or `SecretInvalid` when either is not PEM or they do not belong together.
    pub fn certificate(&self, name: &str, by: &str) -> Result<Certificate, Problem> {
        let secret = self.find(name, by, "of type kubernetes.io/tls with the keys tls.crt and tls.key")?;
        let chain_pem = secret.text("tls.crt")?;
        let key_pem = secret.text("tls.key")?;
        let chain = secret.certificates("tls.crt", &chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| secret.invalid("key tls.key is not a PEM private key (PKCS#8, PKCS#1 or SEC1)"))?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    secret.invalid("tls.key is not the key of the first certificate in tls.crt")
                }
                _ => secret.invalid(
                    "tls.crt or tls.key cannot be used by TLS: an unsupported kind of key, or damaged",
                ),
            }
        })?;
        Ok(Certificate { certificate_chain_pem: chain_pem, private_key_pem: Sensitive(key_pem) })
    }

    /// Certificate authorities to trust.
    ///
    /// # Errors
    /// `SecretNotFound`, `SecretKeyMissing`, or `SecretInvalid` when one of them is no certificate.
    pub fn ca_bundle(&self, name: &str, by: &str) -> Result<String, Problem> {
        let secret = self.find(name, by, "with the key ca.crt")?;
        let pem = secret.text("ca.crt")?;
        let mut roots = RootCertStore::empty();
        for certificate in secret.certificates("ca.crt", &pem)? {
            roots
                .add(certificate)
                .map_err(|_| secret.invalid("key ca.crt holds something that is not a certificate"))?;
        }
        Ok(pem)
    }

    fn find(&self, name: &str, by: &str, wanted: &str) -> Result<Named<'_>, Problem> {
        let place = format!("Secret {}/{name}, named by {by},", self.namespace);
        let secret = self.present.get(name).ok_or_else(|| {
            Problem::new(Reason::SecretNotFound, format!("{place} does not exist: create it {wanted}"))
        })?;
        Ok(Named { place, secret })
    }
}

impl Named<'_> {
    fn invalid(&self, what: &str) -> Problem {
        Problem::new(Reason::SecretInvalid, format!("{} cannot be used: {what}", self.place))
    }

    /// The value of a key as text.
    fn text(&self, key: &str) -> Result<String, Problem> {
        let data = self.secret.data.as_ref().and_then(|data| data.get(key));
        let value = data.ok_or_else(|| {
            Problem::new(Reason::SecretKeyMissing, format!("{} lacks the key {key:?}", self.place))
        })?;
        String::from_utf8(value.0.clone()).map_err(|_| self.invalid(&format!("key {key:?} is not UTF-8")))
    }

    /// The value of a key as a user name or password: one trailing newline, as editors leave it, does not count.
    fn credential(&self, key: &str) -> Result<String, Problem> {
        let text = self.text(key)?;
        let value =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        match value {
            "" => Err(self.invalid(&format!("key {key:?} is empty"))),
            value if value.contains('\0') => {
                Err(self.invalid(&format!("key {key:?} contains a NUL, which SMTP AUTH cannot carry")))
            }
            value => Ok(value.to_owned()),
        }
    }

    fn certificates(&self, key: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.invalid(&format!("key {key} holds no PEM certificate"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secrets(type_: Option<&str>, data: &[(&str, &[u8])]) -> Secrets {
        let mut secrets = Secrets::of("mail");
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect();
        secrets.insert("s", Secret { type_: type_.map(Into::into), data: Some(data), ..Secret::default() });
        secrets
    }

    fn check<T>(result: Result<T, Problem>, reason: Reason, words: &str) {
        let problem = result.err().expect("refused");
        assert_eq!(problem.reason, reason, "{problem}");
        assert!(problem.message.contains(words), "{words:?} not in {problem}");
        assert!(
            problem.message.contains("Secret mail/s") && !problem.message.contains("hunter2"),
            "{problem}"
        );
    }

    #[test]
    fn an_access_token_has_its_own_key() {
        let held = secrets(None, &[("username", b"u"), ("accessToken", b"hunter2\n")]);
        let credentials = held.credentials(CredentialsType::AccessToken, "s", "x").unwrap();
        assert_eq!(credentials.access_token, Some(Sensitive("hunter2".into())));
        assert!(credentials.password.is_none());
        let password = secrets(None, &[("username", b"u"), ("password", b"hunter2")]);
        let read = password.credentials(CredentialsType::AccessToken, "s", "x");
        check(read, Reason::SecretKeyMissing, "\"accessToken\"");
    }

    #[test]
    fn missing_secrets_keys_and_unusable_values_are_told_apart() {
        let by = "Upstream ses";
        check(
            Secrets::of("mail").credentials(CredentialsType::Password, "s", by),
            Reason::SecretNotFound,
            "named by Upstream ses",
        );
        check(
            secrets(None, &[("username", b"u")]).credentials(CredentialsType::Password, "s", by),
            Reason::SecretKeyMissing,
            "\"password\"",
        );
        for bad in [&b""[..], b"\n", b"\xff", b"hunter2\0"] {
            let secrets = secrets(None, &[("username", b"u"), ("password", bad)]);
            check(
                secrets.credentials(CredentialsType::Password, "s", by),
                Reason::SecretInvalid,
                "\"password\"",
            );
        }
    }

    #[test]
    fn one_trailing_newline_does_not_count() {
        for value in [&b"hunter2"[..], b"hunter2\n", b"hunter2\r\n"] {
            let secrets = secrets(None, &[("username", b"u\n"), ("password", value)]);
            let credentials = secrets.credentials(CredentialsType::Password, "s", "x").unwrap();
            let password = credentials.password.unwrap();
            assert_eq!((credentials.username.0.as_str(), password.0.as_str()), ("u", "hunter2"));
            assert!(credentials.access_token.is_none());
        }
        let secrets = secrets(None, &[("app", b"hunter2\n\n")]);
        assert_eq!(secrets.users("s", "x").unwrap()["app"].0, "hunter2\n", "a second one does");
    }

    #[test]
    fn users_come_as_a_pair_or_one_a_key() {
        let pair = secrets(Some(BASIC_AUTH), &[("username", b"app"), ("password", b"hunter2")]);
        assert_eq!(pair.users("s", "x").unwrap().into_keys().collect::<Vec<_>>(), ["app"]);
        let keys = secrets(Some("Opaque"), &[("username", b"hunter2"), ("password", b"hunter2")]);
        assert_eq!(keys.users("s", "x").unwrap().len(), 2, "an Opaque Secret has users of those names");
        check(secrets(None, &[]).users("s", "x"), Reason::SecretInvalid, "holds no user");
        let damaged = secrets(None, &[("app", b"$2b$04$hunter2")]);
        check(damaged.users("s", "x"), Reason::SecretInvalid, "key \"app\" is not a bcrypt hash");
        check(secrets(None, &[("app", b"")]).users("s", "x"), Reason::SecretInvalid, "\"app\" is empty");
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let pair = |name: &str| {
            let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            (pair.cert.pem(), pair.signing_key.serialize_pem())
        };
        let ((chain, key), (_, other)) = (pair("a.example"), pair("b.example"));
        let tls = |chain: &str, key: &str| {
            secrets(None, &[("tls.crt", chain.as_bytes()), ("tls.key", key.as_bytes())])
        };
        assert_eq!(tls(&chain, &key).certificate("s", "x").unwrap().private_key_pem.0, key);
        check(tls(&chain, &other).certificate("s", "x"), Reason::SecretInvalid, "is not the key of");
        check(
            tls("hunter2", &key).certificate("s", "x"),
            Reason::SecretInvalid,
            "tls.crt holds no PEM certificate",
        );
        check(
            tls(&chain, "hunter2").certificate("s", "x"),
            Reason::SecretInvalid,
            "tls.key is not a PEM private key",
        );
        assert!(secrets(None, &[("ca.crt", chain.as_bytes())]).ca_bundle("s", "x").is_ok());
        check(secrets(None, &[("ca.crt", b"hunter2")]).ca_bundle("s", "x"), Reason::SecretInvalid, "ca.crt");
    }
}
