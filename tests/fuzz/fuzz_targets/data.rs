//! Content: two splits decode alike, what is accepted is text of CRLF lines, and what is encoded is decoded again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use smtp_protocol::data::{ChunkDecoder, ContentDecoder, ContentEncoder, ContentFault, Decoded};
use smtp_protocol::{BareNewline, ContentLimits};

const LIMITS: ContentLimits = ContentLimits { message_bytes: 300, header_bytes: 100, header_fields: 5 };

#[derive(Debug, PartialEq)]
struct Outcome {
    content: Vec<u8>,
    fault: Option<ContentFault>,
    ended: bool,
    rest: Vec<u8>,
}

fn decode(input: &[u8], size: usize, mut next: impl FnMut(&mut BytesMut) -> Option<Decoded>) -> Outcome {
    let mut outcome = Outcome { content: Vec::new(), fault: None, ended: false, rest: Vec::new() };
    let mut buffer = BytesMut::new();
    for piece in input.chunks(size) {
        buffer.extend_from_slice(piece);
        while !outcome.ended {
            match next(&mut buffer) {
                Some(Decoded::Slice(slice)) => {
                    assert!(!slice.is_empty() && outcome.fault.is_none());
                    outcome.content.extend_from_slice(&slice);
                }
                Some(Decoded::Fault(fault)) => assert_eq!(outcome.fault.replace(fault), None),
                Some(Decoded::End) => outcome.ended = true,
                None => break,
            }
        }
    }
    outcome.rest = buffer.to_vec();
    if outcome.fault.is_some() {
        // What precedes a fault may be cut anywhere; the driver drops it.
        outcome.content.clear();
    }
    outcome
}

fn is_text(content: &[u8]) -> bool {
    let bare = |index: usize| match content[index] {
        0 => true,
        b'\n' => index == 0 || content[index - 1] != b'\r',
        b'\r' => content.get(index + 1) != Some(&b'\n'),
        _ => false,
    };
    !(0..content.len()).any(bare)
}

fn behind_data(input: &[u8], size: usize, mode: BareNewline) -> Outcome {
    let mut decoder = ContentDecoder::new(LIMITS, mode);
    decode(input, size, |buffer| decoder.decode(buffer))
}

fn behind_bdat(input: &[u8], size: usize, mode: BareNewline) -> Outcome {
    let mut decoder = ChunkDecoder::new(LIMITS, mode);
    decoder.begin(input.len() as u64);
    let outcome = decode(input, size, |buffer| decoder.decode(buffer));
    assert!(outcome.rest.is_empty());
    outcome
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, octets) = (usize::from(input.0).max(1), input.1);
    for mode in [BareNewline::Reject, BareNewline::Normalise] {
        let whole = behind_data(octets, usize::MAX, mode);
        assert_eq!(behind_data(octets, size, mode).rest.is_empty() || whole.ended, true);
        let split = behind_data(octets, size, mode);
        assert_eq!((&whole.content, whole.fault, whole.ended), (&split.content, split.fault, split.ended));
        assert!(!whole.ended || whole.fault.is_some() || is_text(&whole.content));
        assert!(!whole.ended || octets.starts_with(b".\r\n") || octets.windows(5).any(|end| end == b"\r\n.\r\n"));
        let chunk = behind_bdat(octets, usize::MAX, mode);
        let split = behind_bdat(octets, size, mode);
        assert_eq!((chunk.content, chunk.fault), (split.content, split.fault));
    }
    let (mut encoder, mut wire) = (ContentEncoder::new(), BytesMut::new());
    octets.chunks(size).for_each(|piece| encoder.encode(piece, &mut wire));
    encoder.finish(&mut wire);
    let sent = wire.to_vec();
    let mut decoder = ContentDecoder::new(ContentLimits::default(), BareNewline::Reject);
    let arrived = decode(&sent, usize::MAX, |buffer| decoder.decode(buffer));
    assert!(arrived.ended && arrived.rest.is_empty());
    assert_eq!(arrived.fault.is_some(), octets.contains(&0));
});
