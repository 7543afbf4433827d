//! A client that says where it comes from (PROXY protocol, haproxy's proxy-protocol.txt): believed from the listener's load
//! balancers, a syntax error from anybody else. The rules admit 192.0.2.0/24, where no client of the test really is.

use std::net::Ipv4Addr;

use crate::setting::{ELSEWHERE, Port, Setting};

/// An address of [`crate::setting::BALANCERS`].
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 1);
/// An address that is none.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 3, 0, 1);

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for IPv4 over TCP, with this source and more behind the addresses.
fn binary(source: [u8; 4], more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + more.len()).unwrap().to_be_bytes();
    let addresses = [&source[..], &[127, 0, 0, 1], &4000u16.to_be_bytes(), &25u16.to_be_bytes()].concat();
    [SIGNATURE, &[0x21, 0x11], &length, &addresses, more].concat()
}

/// The codes that a client from `source` gets for these octets, EHLO and MAIL; none when the connection is closed.
async fn codes(setting: &Setting, source: Ipv4Addr, header: &[u8]) -> Vec<u16> {
    let mut client = setting.connect_from(source, Port::Proxied).await;
    let commands = b"EHLO client.example\r\nMAIL FROM:<a@sender.example>\r\nQUIT\r\n";
    // A relay that has closed already may refuse them.
    let _ = client.send(&[header, commands].concat()).await;
    let mut codes = Vec::new();
    while let Ok(reply) = client.reply().await {
        codes.push(reply.code);
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancers_word_counts_and_only_in_the_form_it_has() {
    let setting = Setting::start(ELSEWHERE).await;
    let tlv = [&[0x04, 0x00, 0x03][..], b"abc"].concat();
    let admitted = [220, 250, 250, 221];
    for header in [
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n".to_vec(),
        binary([192, 0, 2, 7], b""),
        binary([192, 0, 2, 7], &tlv),
    ] {
        assert_eq!(codes(&setting, BALANCER, &header).await, admitted, "{}", header.escape_ascii());
    }
    // The client is who it is said to be, and the balancer itself is nobody.
    let refused = [220, 250, 550, 221];
    for header in [
        b"PROXY TCP4 198.51.100.7 192.0.2.7 4000 25\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 25\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 4000 25\r\n".to_vec(),
        binary([198, 51, 100, 7], b""),
        [SIGNATURE, &[0x20, 0x00, 0, 0]].concat(),
    ] {
        assert_eq!(codes(&setting, BALANCER, &header).await, refused, "{}", header.escape_ascii());
    }
    // A second header is what the client behind the balancer sent.
    let twice = b"PROXY TCP4 198.51.100.7 127.0.0.1 4000 25\r\nPROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n";
    assert_eq!(codes(&setting, BALANCER, twice).await, [220, 500, 250, 550, 221]);
    let long = format!("PROXY TCP4 192.0.2.7 127.0.0.1 4000 25{}\r\n", " ".repeat(200));
    for header in [
        b"".as_slice(),
        b"EHLO a.example\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.700 127.0.0.1 4000 25\r\n",
        b"PROXY TCP6 192.0.2.7 127.0.0.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\n",
        b"proxy TCP4 192.0.2.7 127.0.0.1 4000 25\r\n",
        long.as_bytes(),
        &[SIGNATURE, &[0x11, 0x11, 0, 12], &[0; 12]].concat(),
        &[SIGNATURE, &[0x21, 0x11, 0, 4], &[192, 0, 2, 7]].concat(),
        &[SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; 12]].concat(),
    ] {
        assert_eq!(codes(&setting, BALANCER, header).await, [0; 0], "{}", header.escape_ascii());
    }
    setting.only_what_is_in_order_arrives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_anybody_else_the_header_is_a_syntax_error_and_the_address_in_it_nothing() {
    let setting = Setting::start(ELSEWHERE).await;
    let text = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n";
    assert_eq!(codes(&setting, STRANGER, text).await, [220, 500, 250, 550, 221]);
    let binary = codes(&setting, STRANGER, &binary([192, 0, 2, 7], b"")).await;
    assert!(binary.starts_with(&[220, 500]) && !binary.contains(&250), "{binary:?}");
    setting.only_what_is_in_order_arrives(0).await;
}
