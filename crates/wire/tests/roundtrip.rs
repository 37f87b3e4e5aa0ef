//! What is encoded decodes to the same, and nothing else does without being noticed.

#[path = "made_up/mod.rs"]
mod made_up;
#[path = "made_up/operations.rs"]
mod operations;

use made_up::{Random, some_value};
use pontoon_wire::frame::{self, FrameBuffer, Payload, code};
use pontoon_wire::hello::{Hello, Refusal, SharedLayout, Welcome};
use pontoon_wire::limits::{MAX_ARENA_PAYLOAD, MAX_FRAME_BODY, MAX_HELLO_BODY, MAX_INLINE_PAYLOAD};
use pontoon_wire::{Command, DecodeError, Event, Id, Op, Reader};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    pontoon_wire::encode(value, &mut bytes);
    bytes
}

/// A made-up value survives the way there and back, its prefixes and bit flips do no harm.
fn there_and_back<T: Serialize + for<'a> Deserialize<'a>>(random: &mut Random) {
    let bytes = encoded(&some_value::<T>(random));
    let again: T = pontoon_wire::decode(&bytes).expect("what was encoded decodes");
    assert_eq!(encoded(&again), bytes);
    for end in 0..bytes.len() {
        assert!(pontoon_wire::decode::<T>(&bytes[..end]).is_err(), "a prefix of {end} bytes decodes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(pontoon_wire::decode::<T>(&longer), Err(DecodeError::Trailing(1))));
    let mut flipped = bytes;
    for _ in 0..16.min(flipped.len()) {
        let at = random.below(flipped.len() as u64) as usize;
        let bit = 1 << random.below(8);
        flipped[at] ^= bit;
        let _ = pontoon_wire::decode::<T>(&flipped);
        flipped[at] ^= bit;
    }
}

fn take_ops(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (mut reader, mut again) = (Reader::new(bytes), Vec::new());
    while reader.remaining() > 0 {
        Op::take(&mut reader)?.put(&mut again);
    }
    Ok(again)
}

/// Whatever a guest sends as a body, decoded as the host would.
fn decode_body(code: u8, body: &[u8]) {
    match code % 9 {
        code::COMMAND => drop(pontoon_wire::decode::<Command>(body)),
        code::ENCODE => drop(frame::Encode::decode(body).map(|piece| take_ops(piece.ops))),
        code::WRITE_BUFFER | code::WRITE_MAPPED => drop(frame::WriteBuffer::decode(body)),
        code::STAGE => drop(Payload::take(&mut Reader::new(body))),
        code::SUBMIT => drop(frame::Submit::decode(body).map(|submit| submit.buffers().count())),
        code::FORGET => drop(frame::Forget::decode(body)),
        8 => drop(frame::MappedBytes::decode(body)),
        _ => drop(pontoon_wire::decode::<Hello>(body)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn commands(seed: u64) {
        there_and_back::<Command>(&mut Random::new(seed));
    }

    #[test]
    fn events(seed: u64) {
        there_and_back::<Event>(&mut Random::new(seed));
    }

    #[test]
    fn first_words(seed: u64) {
        let random = &mut Random::new(seed);
        there_and_back::<Hello>(random);
        there_and_back::<Refusal>(random);
        there_and_back::<SharedLayout>(random);
    }

    #[test]
    fn operations_have_the_documented_layout(seed: u64) {
        let random = &mut Random::new(seed);
        let mut bytes = Vec::new();
        for layout in operations::LAYOUTS {
            let start = bytes.len();
            operations::put(random, layout, &mut bytes);
            let mut reader = Reader::new(&bytes[start..]);
            let op = Op::take(&mut reader).expect(layout.1);
            prop_assert_eq!((op.name(), reader.remaining()), (layout.1, 0));
            let mut again = Vec::new();
            op.put(&mut again);
            prop_assert_eq!(&again[..], &bytes[start..], "{}", layout.1);
            for end in start..bytes.len() {
                prop_assert!(Op::take(&mut Reader::new(&bytes[start..end])).is_err(), "{}", layout.1);
            }
        }
        prop_assert_eq!(&take_ops(&bytes).unwrap(), &bytes);
        for _ in 0..64 {
            let at = random.below(bytes.len() as u64) as usize;
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << random.below(8);
            let _ = take_ops(&flipped);
        }
    }

    #[test]
    fn random_bytes_do_no_harm(code: u8, body in prop::collection::vec(any::<u8>(), 0..512)) {
        decode_body(code, &body);
        let _ = frame::split(&body, MAX_FRAME_BODY);
        let _ = take_ops(&body);
        let _ = pontoon_wire::decode::<Event>(&body);
        let _ = pontoon_wire::decode::<Welcome>(&body);
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
        cut in 1usize..700,
    ) {
        let mut stream = Vec::new();
        for (code, body) in &bodies {
            frame::put(&mut stream, *code, |out| out.extend_from_slice(body));
        }
        let (mut frames, mut found) = (FrameBuffer::default(), Vec::new());
        for piece in stream.chunks(cut) {
            frames.space().extend_from_slice(piece);
            while let Some((code, body)) = frames.next_frame().unwrap() {
                found.push((code, body.to_vec()));
            }
        }
        prop_assert!(!frames.is_mid_frame());
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn bodies_of_fixed_layout(a: u64, b: u64, at in 0u64..1 << 40, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut stream = Vec::new();
        let len = bytes.len() as u64;
        let write = frame::WriteBuffer {
            buffer: Id::from_bits(a), offset: b, total: at + len, at, payload: Payload::Inline(&bytes),
        };
        write.put(&mut stream, code::WRITE_BUFFER);
        let arena = frame::WriteBuffer { payload: Payload::Arena { at: b, len: len as u32 }, ..write };
        arena.put(&mut stream, code::WRITE_MAPPED);
        let named = frame::WriteBuffer { payload: Payload::Named { digest: [a as u8; 32], len: len as u32 }, ..write };
        named.put(&mut stream, code::WRITE_BUFFER);
        let packed = frame::WriteBuffer { payload: Payload::Packed { len: len as u32, block: &bytes }, ..write };
        packed.put(&mut stream, code::WRITE_MAPPED);
        frame::Encode { encoder: Id::from_bits(a), ops: &bytes }.put(&mut stream);
        frame::Submit::put(&mut stream, Id::from_bits(a), b, &[Id::from_bits(b), Id::from_bits(a)]);
        frame::Forget { kind: a as u8, id: b }.put(&mut stream);
        frame::MappedBytes { map: a, at: b, bytes: &bytes }.put(&mut stream);
        let mut frames = FrameBuffer::default();
        frames.space().extend_from_slice(&stream);
        let mut body = |expected: u8| {
            let (code, body) = frames.next_frame().unwrap().unwrap();
            assert_eq!(code, expected);
            body.to_vec()
        };
        let piece = body(code::WRITE_BUFFER);
        prop_assert_eq!(frame::WriteBuffer::decode(&piece), Ok(write));
        let piece = body(code::WRITE_MAPPED);
        prop_assert_eq!(frame::WriteBuffer::decode(&piece), Ok(arena));
        let piece = body(code::WRITE_BUFFER);
        prop_assert_eq!(frame::WriteBuffer::decode(&piece), Ok(named));
        let piece = body(code::WRITE_MAPPED);
        prop_assert_eq!(frame::WriteBuffer::decode(&piece), Ok(packed));
        let piece = body(code::ENCODE);
        prop_assert_eq!(frame::Encode::decode(&piece).unwrap(), frame::Encode { encoder: Id::from_bits(a), ops: &bytes });
        let submit = body(code::SUBMIT);
        let submit = frame::Submit::decode(&submit).unwrap();
        prop_assert_eq!((submit.device.to_bits(), submit.index), (a, b));
        prop_assert_eq!(submit.buffers().map(Id::to_bits).collect::<Vec<_>>(), vec![b, a]);
        prop_assert_eq!(frame::Forget::decode(&body(code::FORGET)), Ok(frame::Forget { kind: a as u8, id: b }));
        let mapped = body(code::MAPPED_BYTES);
        prop_assert_eq!(frame::MappedBytes::decode(&mapped), Ok(frame::MappedBytes { map: a, at: b, bytes: &bytes }));
    }
}

#[test]
fn every_command_and_event_is_made_up_in_the_end() {
    let random = &mut Random::new(7);
    let name = |text: String| text.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
    let commands: std::collections::BTreeSet<_> =
        (0..4000).map(|_| name(format!("{:?}", some_value::<Command>(random)))).collect();
    assert_eq!(commands.len(), 30, "{commands:?}");
    let events: std::collections::BTreeSet<_> =
        (0..1000).map(|_| name(format!("{:?}", some_value::<Event>(random)))).collect();
    assert_eq!(events.len(), 6, "{events:?}");
}

#[test]
fn welcomes() {
    let random = &mut Random::new(3);
    for _ in 0..20 {
        there_and_back::<Welcome>(random);
    }
}

#[test]
fn unknown_codes_and_options_are_named() {
    for code in [0, 41, 255] {
        let error = Op::take(&mut Reader::new(&[code, 0, 0, 0])).unwrap_err();
        assert_eq!(error, DecodeError::UnknownCode { what: "operation", code: code.into() });
    }
    let mut op = vec![3, 0, 0, 0, 0, 2];
    op.resize(64, 0);
    assert_eq!(Op::take(&mut Reader::new(&op)).unwrap_err(), DecodeError::Invalid("option"));
    assert!(Payload::take(&mut Reader::new(&[4])).unwrap_err().to_string().contains("payload code 4"));
}

#[test]
fn headers_and_payloads_have_maxima() {
    let header = |len: usize| {
        let mut bytes = (len as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes
    };
    assert_eq!(frame::split(&header(MAX_FRAME_BODY), MAX_FRAME_BODY), Ok(None));
    assert!(matches!(
        frame::split(&header(MAX_FRAME_BODY + 1), MAX_FRAME_BODY),
        Err(DecodeError::TooLong { what: "frame body", .. })
    ));
    assert!(frame::split(&header(MAX_HELLO_BODY + 1), MAX_HELLO_BODY).is_err());
    let mut reserved = header(0);
    reserved[7] = 1;
    assert_eq!(frame::split(&reserved, MAX_FRAME_BODY), Err(DecodeError::Invalid("frame header")));
    let inline = |len: usize| {
        let bytes = vec![0; 1 + len];
        Payload::take(&mut Reader::new(&bytes)).map(|payload| payload.len())
    };
    assert_eq!(inline(MAX_INLINE_PAYLOAD), Ok(MAX_INLINE_PAYLOAD));
    assert!(matches!(inline(MAX_INLINE_PAYLOAD + 1), Err(DecodeError::TooLong { what: "payload", .. })));
    let arena = |len: usize| {
        let mut bytes = vec![1; 1];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        Payload::take(&mut Reader::new(&bytes)).map(|payload| payload.len())
    };
    assert_eq!(arena(MAX_ARENA_PAYLOAD), Ok(MAX_ARENA_PAYLOAD));
    assert!(arena(MAX_ARENA_PAYLOAD + 1).is_err());
}

#[test]
fn pieces_beyond_the_whole_are_refused() {
    for (total, at, len) in [(4, 4, 1), (4, 5, 0), (0, u64::MAX, 1), (u64::MAX, u64::MAX, 1), (3, 0, 4)] {
        let mut stream = Vec::new();
        let payload = Payload::Arena { at: 0, len };
        frame::WriteBuffer { buffer: Id::new(0, 1), offset: 0, total, at, payload }
            .put(&mut stream, code::WRITE_BUFFER);
        let (_, body, _) = frame::split(&stream, MAX_FRAME_BODY).unwrap().unwrap();
        assert!(frame::WriteBuffer::decode(body).is_err(), "{at}+{len} of {total}");
    }
}
