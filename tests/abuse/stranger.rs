//! A client that no rule permits. Each attempt is refused with the right code; none of it reaches the upstream.

use crate::probe::{Probe, Start, probe, run_all};
use crate::setting::{ELSEWHERE, Port, Setting};

const DENIED: &[u8] = b"MAIL FROM:<a@sender.example>\r\n";

/// Attempts to have mail relayed without any right to it.
fn relaying() -> Vec<Probe> {
    let smtp = |name, exchange: [(&[u8], &'static str); 3]| probe(name, Port::Smtp, Start::Ready, exchange);
    // A malformed path is answered 501 before the order of commands is looked at.
    let recipient = |name, octets| smtp(name, [(DENIED, "550"), (octets, "501|503"), (b"DATA\r\n", "503")]);
    let sender = |name, octets| {
        smtp(name, [(octets, "550"), (b"RCPT TO:<b@recipient.example>\r\n", "503"), (b"DATA\r\n", "503")])
    };
    vec![
        sender("a plain attempt", DENIED),
        sender("the null reverse-path", b"MAIL FROM:<>\r\n"),
        sender("a sender of the relay's own domain", b"MAIL FROM:<a@relay.example>\r\n"),
        sender("the relay's postmaster as sender", b"MAIL FROM:<postmaster@relay.example>\r\n"),
        sender("a sender at the relay's address", b"MAIL FROM:<a@[127.0.0.1]>\r\n"),
        sender(
            "a source route by way of the relay as sender",
            b"MAIL FROM:<@relay.example:a@sender.example>\r\n",
        ),
        sender("a quoted sender", b"MAIL FROM:<\"a@relay.example\"@sender.example>\r\n"),
        sender("a declared size and body", b"MAIL FROM:<a@sender.example> SIZE=1 BODY=8BITMIME\r\n"),
        recipient("a recipient the relay serves", b"RCPT TO:<b@recipient.example>\r\n"),
        recipient("a recipient elsewhere", b"RCPT TO:<victim@elsewhere.example>\r\n"),
        recipient("a source route", b"RCPT TO:<@relay.example:victim@elsewhere.example>\r\n"),
        recipient(
            "a source route of two",
            b"RCPT TO:<@relay.example,@recipient.example:victim@elsewhere.example>\r\n",
        ),
        recipient("the percent hack", b"RCPT TO:<victim%elsewhere.example@relay.example>\r\n"),
        recipient(
            "the percent hack with the relay's address",
            b"RCPT TO:<victim%elsewhere.example@[127.0.0.1]>\r\n",
        ),
        recipient("a UUCP bang", b"RCPT TO:<elsewhere.example!victim>\r\n"),
        recipient("a UUCP bang at the relay", b"RCPT TO:<elsewhere.example!victim@relay.example>\r\n"),
        recipient("a quoted local part with a domain", b"RCPT TO:<\"victim@elsewhere.example\">\r\n"),
        recipient("the same at the relay", b"RCPT TO:<\"victim@elsewhere.example\"@relay.example>\r\n"),
        recipient("a domain literal", b"RCPT TO:<victim@[192.0.2.1]>\r\n"),
        recipient("an address without domain", b"RCPT TO:<victim>\r\n"),
        recipient("two domains", b"RCPT TO:<victim@elsewhere.example@relay.example>\r\n"),
        recipient("postmaster", b"RCPT TO:<Postmaster>\r\n"),
        recipient("content in chunks", b"BDAT 5 LAST\r\nhello"),
    ]
}

/// Attempts to pass for someone else.
fn pretending() -> Vec<Probe> {
    let greeted =
        |name, exchange: [(&[u8], &'static str); 2]| probe(name, Port::Smtp, Start::Greeted, exchange);
    vec![
        greeted("HELO as localhost", [(b"HELO localhost\r\n", "250"), (DENIED, "550")]),
        greeted("EHLO as the relay", [(b"EHLO relay.example\r\n", "250"), (DENIED, "550")]),
        greeted("EHLO as the relay's address", [(b"EHLO [127.0.0.1]\r\n", "250"), (DENIED, "550")]),
        greeted("HELO with a user name", [(b"HELO app\r\n", "250"), (DENIED, "550")]),
        greeted("no HELO at all", [(DENIED, "503|550"), (b"EHLO a.example\r\n", "250")]),
        greeted(
            "a PROXY header, version 1",
            [(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 25\r\nEHLO a.example\r\n", "500 250"), (DENIED, "550")],
        ),
        greeted(
            "a PROXY header, version 2",
            [
                (
                    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x13\x88\x00\x19\r\n",
                    "500 500 500 500 421 closed",
                ),
                (b"", ""),
            ],
        ),
        probe(
            "XCLIENT",
            Port::Smtp,
            Start::Ready,
            [(b"XCLIENT ADDR=192.0.2.7 LOGIN=app\r\n", "500|502"), (DENIED, "550")],
        ),
        probe(
            "XFORWARD",
            Port::Smtp,
            Start::Ready,
            [(b"XFORWARD ADDR=192.0.2.7\r\n", "500|502"), (DENIED, "550")],
        ),
        probe(
            "AUTH= of MAIL",
            Port::Smtp,
            Start::Ready,
            [(b"MAIL FROM:<a@sender.example> AUTH=app\r\n", "550|555"), (DENIED, "550")],
        ),
    ]
}

/// Attempts by other commands and other protocols.
fn other_commands() -> Vec<Probe> {
    let one = |name, octets, codes| probe(name, Port::Smtp, Start::Ready, [(octets, codes)]);
    vec![
        one("VRFY of a user", b"VRFY app\r\n", "252"),
        one("VRFY of nobody gets the same", b"VRFY nobody\r\n", "252"),
        one("EXPN", b"EXPN users\r\n", "502|500"),
        one("ETRN", b"ETRN elsewhere.example\r\n", "502|500"),
        one("TURN", b"TURN\r\n", "502|500"),
        one("SEND", b"SEND FROM:<a@sender.example>\r\n", "502|500"),
        one("SAML", b"SAML FROM:<a@sender.example>\r\n", "502|500"),
        one("AUTH where it is not offered", b"AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNl\r\n", "502|503"),
        one("STARTTLS where it is not offered", b"STARTTLS\r\n", "502"),
        one("DATA without anything", b"DATA\r\nSubject: x\r\n.\r\n", "503 500 500"),
        one(
            "a whole message in one piece",
            b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@recipient.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n",
            "550 503 503 500 500 500",
        ),
        probe(
            "an HTTP request that carries a message",
            Port::Smtp,
            Start::Greeted,
            [(
                b"POST / HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 99\r\n\r\nEHLO a\r\nMAIL FROM:<a@sender.example>\r\n",
                "421 closed",
            )],
        ),
        probe(
            "an HTTP request whose first line is too long to be seen",
            Port::Smtp,
            Start::Greeted,
            [(&[b"GET /".as_slice(), &[b'x'; 20_000], b" HTTP/1.1\r\nHost: relay.example\r\n\r\n"].concat(), "500 421 closed")],
        ),
        probe(
            "an HTTP request",
            Port::Smtp,
            Start::Greeted,
            [(b"GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n", "421 closed")],
        ),
        probe(
            "a TLS client hello on a port in the clear",
            Port::Smtp,
            Start::Greeted,
            [(b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03\r\n", "500"), (DENIED, "503|550")],
        ),
        probe(
            "SMTP in the clear on the TLS port",
            Port::Submissions,
            Start::Connected,
            [(b"EHLO a.example\r\nMAIL FROM:<a@sender.example>\r\n", "alert")],
        ),
    ]
}

/// Attempts around STARTTLS and AUTH.
fn tls_and_authentication() -> Vec<Probe> {
    let submission =
        |name, start, exchange: [(&[u8], &'static str); 2]| probe(name, Port::Submission, start, exchange);
    let ready = |name, exchange| submission(name, Start::Ready, exchange);
    let greeted = |name, exchange| submission(name, Start::Greeted, exchange);
    vec![
        greeted("mail without the TLS that is required", [(b"EHLO a.example\r\n", "250"), (DENIED, "530")]),
        greeted(
            "a password in the clear",
            [(b"EHLO a.example\r\n", "250"), (b"AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNl\r\n", "530|538|503|504")],
        ),
        greeted(
            "commands behind STARTTLS in the clear",
            [
                (b"EHLO a.example\r\n", "250"),
                (b"STARTTLS\r\nEHLO a.example\r\nMAIL FROM:<a@sender.example>\r\n", "554|501|503 closed"),
            ],
        ),
        greeted("STARTTLS with an argument", [(b"EHLO a.example\r\n", "250"), (b"STARTTLS now\r\n", "501")]),
        ready("a second STARTTLS", [(b"STARTTLS\r\n", "503"), (DENIED, "530")]),
        ready("mail without AUTH", [(DENIED, "530"), (b"RCPT TO:<b@recipient.example>\r\n", "503")]),
        ready("a wrong password", [(b"AUTH PLAIN AGFwcAB3cm9uZw==\r\n", "535"), (DENIED, "530")]),
        ready("no password", [(b"AUTH PLAIN AGFwcAA=\r\n", "535|501"), (DENIED, "530")]),
        ready("an unknown user", [(b"AUTH PLAIN AG5vYm9keQB3cm9uZw==\r\n", "535"), (DENIED, "530")]),
        // admin NUL app NUL correct horse: RFC 4616 lets the server refuse to act for another.
        ready(
            "the right password to act for another",
            [(b"AUTH PLAIN YWRtaW4AYXBwAGNvcnJlY3QgaG9yc2U=\r\n", "535"), (DENIED, "530")],
        ),
        // NUL app NUL correct horse NUL x
        ready(
            "a third NUL in the credentials",
            [(b"AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNlAHg=\r\n", "501|535"), (DENIED, "530")],
        ),
        ready("no NUL in the credentials", [(b"AUTH PLAIN YXBw\r\n", "501|535"), (DENIED, "530")]),
        ready("credentials that are not base64", [(b"AUTH PLAIN !!!!\r\n", "501"), (DENIED, "530")]),
        ready("AUTH that is called off", [(b"AUTH LOGIN\r\n*\r\n", "334 501"), (DENIED, "530")]),
        ready("AUTH PLAIN that is called off", [(b"AUTH PLAIN\r\n*\r\n", "334 501"), (DENIED, "530")]),
        ready(
            "a command in the place of a response",
            [(b"AUTH LOGIN\r\nNOOP\r\n", "334 334|501|535"), (b"*\r\n", "500|501")],
        ),
        ready("a mechanism that is not offered", [(b"AUTH CRAM-MD5\r\n", "504"), (DENIED, "530")]),
        ready("EXTERNAL without a certificate", [(b"AUTH EXTERNAL =\r\n", "504"), (DENIED, "530")]),
        ready("AUTH without a mechanism", [(b"AUTH\r\n", "501"), (DENIED, "530")]),
        probe(
            "AUTH once more",
            Port::Submission,
            Start::Authenticated,
            [(b"AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNl\r\n", "503")],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_no_rule_permits_is_refused_and_nothing_reaches_the_upstream() {
    let setting = Setting::start(ELSEWHERE).await;
    let probes = [relaying(), pretending(), other_commands(), tls_and_authentication()].concat_all();
    assert!(probes.len() >= 60, "{} probes", probes.len());
    run_all(&probes, &setting).await;
    assert!(setting.upstream.sessions().is_empty(), "{:?}", setting.upstream.sessions());
    setting.only_what_is_in_order_arrives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failed_password_gets_the_same_words() {
    let setting = Setting::start(ELSEWHERE).await;
    let mut words = std::collections::BTreeSet::new();
    for (user, password) in [("app", "wrong"), ("nobody", "wrong"), ("app", ""), ("", "correct horse")] {
        let mut client = setting.client(Port::Submission).await;
        words.insert(client.auth_plain(user, password).await.unwrap().to_string());
        let mut client = setting.client(Port::Submission).await;
        words.insert(client.auth_login(user, password).await.unwrap().to_string());
    }
    assert_eq!(words.len(), 1, "{words:?}");
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Probe>;
}

impl<const N: usize> ConcatAll for [Vec<Probe>; N] {
    fn concat_all(self) -> Vec<Probe> {
        self.into_iter().flatten().collect()
    }
}
