//! What both fuzz targets do with their bytes; `crates/executor/tests/corpus.rs` does the same with the
//! committed corpus, without a fuzzer.
#![allow(dead_code, reason = "each target uses its part")]

use std::rc::Rc;
use std::time::Duration;

use pontoon_executor::{Backend, End, Host, Limits, NoArena, Session};
use pontoon_wire::frame::{self, FrameBuffer, Payload};
use pontoon_wire::hello::{Hello, Welcome};
use pontoon_wire::limits::MAX_FRAME_BODY;
use pontoon_wire::{Command, Event, Op, Reader};

/// Everything that decodes what the other side sends.
pub fn decode(bytes: &[u8]) {
    let mut frames = FrameBuffer::default();
    frames.space().extend_from_slice(bytes);
    while let Ok(Some((code, body))) = frames.next_frame() {
        decode_body(code, body);
    }
    let _ = frame::split(bytes, MAX_FRAME_BODY);
    // The first byte chooses, so that bodies need no header to be found.
    if let Some((code, body)) = bytes.split_first() {
        decode_body(*code, body);
    }
}

fn decode_body(code: u8, body: &[u8]) {
    match code {
        frame::code::HELLO => drop(pontoon_wire::decode::<Hello>(body)),
        frame::code::COMMAND => {
            if let Ok(command) = pontoon_wire::decode::<Command>(body) {
                let mut again = Vec::new();
                pontoon_wire::encode(&command, &mut again);
                assert!(pontoon_wire::decode::<Command>(&again).is_ok());
            }
        }
        frame::code::ENCODE => {
            if let Ok(piece) = frame::Encode::decode(body) {
                let mut reader = Reader::new(piece.ops);
                while reader.remaining() > 0 && Op::take(&mut reader).is_ok() {}
            }
        }
        frame::code::WRITE_BUFFER | frame::code::WRITE_MAPPED => drop(frame::WriteBuffer::decode(body)),
        frame::code::STAGE => drop(Payload::take(&mut Reader::new(body))),
        frame::code::SUBMIT => drop(frame::Submit::decode(body).map(|submit| submit.buffers().count())),
        frame::code::FORGET => drop(frame::Forget::decode(body)),
        frame::code::EVENT => drop(pontoon_wire::decode::<Event>(body)),
        frame::code::WELCOME => drop(pontoon_wire::decode::<Welcome>(body)),
        _ => drop(frame::MappedBytes::decode(body)),
    }
}

thread_local! {
    static HOST: Rc<Host> = Rc::new(Host::open(Backend::Noop));
}

/// A session from its first frame to its end.
///
/// # Panics
/// Where `wgpu` did while it executed a frame: a guest can make it do so, which is worth knowing. What is
/// known and harmless is left out.
pub fn session(bytes: &[u8]) {
    let mut frames = FrameBuffer::default();
    frames.space().extend_from_slice(bytes);
    let limits =
        Limits { memory_bytes: 16 << 20, objects: 1000, bytes_in_flight: 1 << 20, submission_seconds: 60 };
    let mut session = Session::new(HOST.with(Rc::clone), limits, Box::new(NoArena));
    while let Ok(Some((code, body))) = frames.next_frame() {
        let result = session.execute(code, body).and_then(|()| session.progress(Duration::ZERO));
        session.outbox().clear();
        match result {
            Ok(()) => {}
            Err(End::Panic(message)) if is_known(&message) => return,
            Err(End::Panic(message)) => panic!("{message}"),
            Err(_) => return,
        }
    }
}

/// Panics that only the noop back end brings about, whose limits no GPU has.
fn is_known(message: &str) -> bool {
    ["min_storage_buffer_offset_alignment", "max_color_attachments"]
        .iter()
        .any(|limit| message.contains(limit))
}
