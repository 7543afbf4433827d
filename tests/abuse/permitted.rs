//! A permitted client: what RFC 5321 grants it arrives as it should; what nobody may do is refused for it too.

use crate::probe::{Probe, Start, probe, run_all};
use crate::setting::{LIMIT, OURS, Port, Setting};

/// The paths as given, and as they must arrive.
const GRANTED: [(&str, &str, &str, &str); 14] = [
    ("MAIL FROM:<>", "", "RCPT TO:<b@recipient.example>", "b@recipient.example"),
    // Source routes are accepted and ignored (§4.1.2, appendix C).
    (
        "MAIL FROM:<@x.example,@y.example:a@sender.example>",
        "a@sender.example",
        "RCPT TO:<b@recipient.example>",
        "b@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<@elsewhere.example:b@recipient.example>",
        "b@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<@x.example,@y.example:b@recipient.example>",
        "b@recipient.example",
    ),
    // A local part is its own host's affair: neither rewritten nor interpreted (§2.3.11).
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<\"b c\"@recipient.example>",
        "\"b c\"@recipient.example",
    ),
    (
        "MAIL FROM:<\"a@b\"@sender.example>",
        "\"a@b\"@sender.example",
        "RCPT TO:<\"x@elsewhere.example\"@recipient.example>",
        "\"x@elsewhere.example\"@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<\"b>c\"@recipient.example>",
        "\"b>c\"@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<x%elsewhere.example@recipient.example>",
        "x%elsewhere.example@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<elsewhere.example!x@recipient.example>",
        "elsewhere.example!x@recipient.example",
    ),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<x%0d%0aDATA@recipient.example>",
        "x%0d%0aDATA@recipient.example",
    ),
    // §4.5.1: postmaster, in any case, with and without a domain.
    ("MAIL FROM:<a@sender.example>", "a@sender.example", "RCPT TO:<PostMaster>", "Postmaster@relay.example"),
    (
        "MAIL FROM:<a@sender.example>",
        "a@sender.example",
        "RCPT TO:<postmaster@relay.example>",
        "postmaster@relay.example",
    ),
    ("MAIL FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]", "RCPT TO:<b@recipient.example>", "b@recipient.example"),
    // RFC 6531 §3.4: UTF-8 in addresses where SMTPUTF8 is asked for.
    (
        "MAIL FROM:<grün@sender.example> SMTPUTF8",
        "grün@sender.example",
        "RCPT TO:<größe@recipient.example>",
        "größe@recipient.example",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_rfc_5321_grants_a_permitted_client_arrives_as_it_says() {
    let setting = Setting::start(OURS).await;
    for (number, (mail, reverse_path, rcpt, recipient)) in GRANTED.into_iter().enumerate() {
        let mut client = setting.client(Port::Smtp).await;
        for (command, code) in [(mail, 250), (rcpt, 250), ("DATA", 354), ("Subject: x\r\n\r\n.", 250)] {
            let reply = client.command(command).await.unwrap();
            assert_eq!(reply.code, code, "{mail} {rcpt}: {command}: {reply}");
        }
        let arrived = setting.upstream.wait_for(number + 1, LIMIT).await.unwrap();
        let message = &arrived[number];
        assert_eq!(message.reverse_path, reverse_path, "{mail}");
        assert_eq!(message.recipients, [recipient], "{rcpt}");
    }
    setting.only_what_is_in_order_arrives(GRANTED.len()).await;
}

/// Recipients and senders that get no further.
fn addresses() -> Vec<Probe> {
    let refused = |name, octets, codes| {
        let begin: &[u8] = b"MAIL FROM:<a@sender.example>\r\n";
        probe(name, Port::Smtp, Start::Ready, [(begin, "250"), (octets, codes)])
    };
    let sender = |name, octets, codes| probe(name, Port::Smtp, Start::Ready, [(octets, codes)]);
    vec![
        refused("a domain that no route takes", b"RCPT TO:<x@elsewhere.example>\r\n", "550"),
        refused("a source route to it", b"RCPT TO:<@recipient.example:x@elsewhere.example>\r\n", "550"),
        refused("the percent hack to it", b"RCPT TO:<x%recipient.example@elsewhere.example>\r\n", "550"),
        refused("a bang path", b"RCPT TO:<elsewhere.example!x>\r\n", "501|550|553"),
        refused("two domains", b"RCPT TO:<x@elsewhere.example@recipient.example>\r\n", "501|553"),
        refused("a domain literal", b"RCPT TO:<x@[192.0.2.1]>\r\n", "550"),
        refused("an IPv6 literal", b"RCPT TO:<x@[IPv6:2001:db8::1]>\r\n", "550"),
        refused("a subdomain of a served domain", b"RCPT TO:<x@sub.recipient.example>\r\n", "550"),
        refused("a domain that ends in a served one", b"RCPT TO:<x@notrecipient.example>\r\n", "550"),
        refused("an empty recipient", b"RCPT TO:<>\r\n", "501|550|553"),
        refused("no brackets", b"RCPT TO:x@recipient.example\r\n", "501"),
        refused("a display name", b"RCPT TO:X <x@recipient.example>\r\n", "501"),
        refused(
            "two recipients in one command",
            b"RCPT TO:<x@recipient.example>,<y@recipient.example>\r\n",
            "501",
        ),
        refused("a comment", b"RCPT TO:<x(y)@recipient.example>\r\n", "501|553"),
        refused("UTF-8 without SMTPUTF8", "RCPT TO:<größe@recipient.example>\r\n".as_bytes(), "553|501"),
        refused("Latin-1", b"RCPT TO:<gr\xf6\xdfe@recipient.example>\r\n", "500|501|553"),
        refused("a NUL", b"RCPT TO:<x\0y@recipient.example>\r\n", "500|501|553"),
        refused("a control character", b"RCPT TO:<x\x07y@recipient.example>\r\n", "500"),
        refused("a tab in quotes", b"RCPT TO:<\"x\ty\"@recipient.example>\r\n", "500"),
        refused(
            "a header field behind a bare CR",
            b"RCPT TO:<x@recipient.example\rBcc: y@recipient.example>\r\n",
            "500|501|553",
        ),
        refused("a command behind a bare CR", b"RCPT TO:<x@recipient.example>\rDATA\r\n", "500|501"),
        refused("a command behind a bare LF", b"RCPT TO:<x@recipient.example>\nDATA\r\n", "500 421 closed"),
        refused("a quoted CR LF", b"RCPT TO:<\"x\\\r\nBcc: y\"@recipient.example>\r\n", "501 500"),
        sender(
            "UTF-8 as sender without SMTPUTF8",
            "MAIL FROM:<grün@sender.example>\r\n".as_bytes(),
            "553|501",
        ),
        sender("an unknown parameter", b"MAIL FROM:<a@sender.example> FROB=1\r\n", "555"),
        sender("a parameter twice", b"MAIL FROM:<a@sender.example> SIZE=1 SIZE=2\r\n", "501"),
        sender("a size that is no number", b"MAIL FROM:<a@sender.example> SIZE=1e9\r\n", "501"),
        sender(
            "a size beyond all numbers",
            b"MAIL FROM:<a@sender.example> SIZE=99999999999999999999999999\r\n",
            "501|552",
        ),
        sender("a size that is too large", b"MAIL FROM:<a@sender.example> SIZE=1000001\r\n", "552"),
        sender("an unknown body", b"MAIL FROM:<a@sender.example> BODY=BINARYMIME\r\n", "501|504|555"),
        sender("a line end in ENVID", b"MAIL FROM:<a@sender.example> ENVID=a+0D+0Ab\r\n", "501"),
        refused("a line end in ORCPT", b"RCPT TO:<b@recipient.example> ORCPT=rfc822;b+0D+0AX\r\n", "501"),
        refused("xtext that is none in ORCPT", b"RCPT TO:<b@recipient.example> ORCPT=rfc822;b+zz\r\n", "501"),
        sender("a NUL in a command", b"NOOP\0\r\n", "500|501"),
        sender("8-bit octets in a command", b"N\xd6\xd6P\r\n", "500"),
        sender("8-bit octets in a name", b"EHLO gr\xfcn.example\r\n", "501|500"),
        sender("no name", b"EHLO\r\n", "501"),
        sender("a command out of nothing but spaces", b"    \r\n", "500"),
    ]
}

/// Commands that come when they may not.
fn order() -> Vec<Probe> {
    let open = |name, octets, codes| probe(name, Port::Smtp, Start::Transaction, [(octets, codes)]);
    let ready = |name, octets, codes| probe(name, Port::Smtp, Start::Ready, [(octets, codes)]);
    vec![
        open("MAIL within a transaction", b"MAIL FROM:<x@sender.example>\r\n", "503"),
        open("EHLO ends a transaction", b"EHLO a.example\r\nDATA\r\n", "250 503"),
        open("RSET ends a transaction", b"RSET\r\nDATA\r\n", "250 503"),
        ready("RCPT before MAIL", b"RCPT TO:<b@recipient.example>\r\n", "503"),
        ready("DATA before RCPT", b"MAIL FROM:<a@sender.example>\r\nDATA\r\n", "250 503|554"),
        ready(
            "DATA behind refused recipients only",
            b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n",
            "250 550 554|503",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_may_do_is_refused_to_a_permitted_client_as_well() {
    let setting = Setting::start(OURS).await;
    let probes: Vec<Probe> = addresses().into_iter().chain(order()).collect();
    run_all(&probes, &setting).await;
    setting.only_what_is_in_order_arrives(0).await;
}
