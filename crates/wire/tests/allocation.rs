//! Decoding allocates no more than a small multiple of what a guest has really sent, and every maximum
//! is enforced.

#[path = "made_up/mod.rs"]
mod made_up;
#[path = "made_up/operations.rs"]
mod operations;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use made_up::{Random, some_value};
use pontoon_wire::command::{BindGroupEntry, Transitions};
use pontoon_wire::event::{CompilationMessage, Message};
use pontoon_wire::hello::Hello;
use pontoon_wire::limits::*;
use pontoon_wire::{Blob, Command, Event, List, Op, Reader, Text};
use serde::{Deserialize, Serialize};

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread holds.
struct Counting;

fn count(grown: usize, shrunk: usize) {
    let _ = NOW.try_with(|now| {
        now.set((now.get() + grown).saturating_sub(shrunk));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: everything is the system allocator's doing; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if it moved: old and new exist at once.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: passed on as it came.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that `work` held at once beyond what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    drop(work());
    PEAK.get() - before
}

/// The most that one byte from a guest may cost while it is decoded. The worst are lists of elements that
/// are three or four bytes on the wire and up to sixty in memory, in a vector that is just doubling.
const FACTOR: usize = 64;
/// What even an empty message may cost: boxed descriptors, the text of an error.
const CONSTANT: usize = 4096;

fn check<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> usize {
    let held = peak(|| pontoon_wire::decode::<T>(bytes));
    assert!(held <= FACTOR * bytes.len() + CONSTANT, "{held} bytes for {}", bytes.len());
    held
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    pontoon_wire::encode(value, &mut bytes);
    bytes
}

fn drain_ops(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 && Op::take(&mut reader).is_ok() {}
}

#[test]
fn random_and_damaged_messages_cost_no_more_than_they_bring() {
    let random = &mut Random::new(11);
    for _ in 0..3000 {
        let mut bytes = encoded(&some_value::<Command>(random));
        check::<Command>(&bytes);
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
        check::<Command>(&bytes);
        bytes.truncate(at);
        check::<Command>(&bytes);
        let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        check::<Command>(&noise);
        check::<Hello>(&noise);
        check::<Event>(&noise);
        let mut ops = Vec::new();
        for layout in operations::LAYOUTS {
            operations::put(random, layout, &mut ops);
        }
        let at = random.below(ops.len() as u64) as usize;
        ops[at] = random.next() as u8;
        let held = peak(|| drain_ops(&ops));
        assert!(held <= FACTOR * ops.len() + CONSTANT, "{held} bytes for {}", ops.len());
    }
}

#[test]
fn claimed_lengths_reserve_nothing() {
    // Postcard's length of a list, text or blob: as much as it can say, with nothing behind it.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert!(check::<List<u64, { usize::MAX }>>(&huge) < CONSTANT);
    assert!(check::<Text<{ usize::MAX }>>(&huge) < CONSTANT);
    assert!(check::<Blob<{ usize::MAX }>>(&huge) < CONSTANT);
    let mut op = vec![3, 0, 0, 0, 0, 0];
    op.extend_from_slice(&[0xff; 4]);
    assert!(peak(|| drain_ops(&op)) < CONSTANT);
    assert!(Op::take(&mut Reader::new(&op)).is_err());
}

/// The widest lists of the protocol, full of the smallest elements.
#[test]
fn dense_lists_stay_within_the_factor() {
    fn factor<T: for<'a> Deserialize<'a>>(prefix: &[u8], element: &[u8], len: usize, suffix: &[u8]) -> f64 {
        let mut bytes = prefix.to_vec();
        pontoon_wire::encode(&len, &mut bytes);
        (0..len).for_each(|_| bytes.extend_from_slice(element));
        bytes.extend_from_slice(suffix);
        assert!(
            pontoon_wire::decode::<T>(&bytes).is_ok(),
            "not the layout of {}",
            std::any::type_name::<T>()
        );
        check::<T>(&bytes) as f64 / bytes.len() as f64
    }
    // binding, kind of resource, index and generation
    let entries = factor::<List<BindGroupEntry, MAX_BINDINGS>>(&[], &[0, 1, 0, 1], MAX_BINDINGS, &[]);
    let entry = encoded(&wgpu_types::BindGroupLayoutEntry {
        binding: 0,
        visibility: wgpu_types::ShaderStages::NONE,
        ty: wgpu_types::BindingType::ExternalTexture,
        count: None,
    });
    let layout =
        factor::<List<wgpu_types::BindGroupLayoutEntry, MAX_BINDINGS>>(&[], &entry, MAX_BINDINGS, &[]);
    // index, generation, no selector, use
    let transitions = factor::<Transitions>(&[0], &[0, 1, 0, 0], MAX_TRANSITIONS, &[0]);
    let messages = factor::<List<CompilationMessage, MAX_COMPILATION_MESSAGES>>(
        &[],
        &[0, 0, 0],
        MAX_COMPILATION_MESSAGES,
        &[],
    );
    let buffers = factor::<List<Option<pontoon_wire::command::VertexBufferLayout>, MAX_VERTEX_BUFFERS>>(
        &[],
        &[0],
        MAX_VERTEX_BUFFERS,
        &[],
    );
    println!(
        "bytes per byte: entries {entries:.1}, layout {layout:.1}, transitions {transitions:.1}, messages {messages:.1}, buffers {buffers:.1}"
    );
}

#[test]
fn every_maximum_is_enforced() {
    fn list<const MAX: usize>() {
        let bytes = |len: usize| encoded(&vec![0u8; len]);
        assert_eq!(pontoon_wire::decode::<List<u8, MAX>>(&bytes(MAX)).unwrap().len(), MAX);
        assert!(pontoon_wire::decode::<List<u8, MAX>>(&bytes(MAX + 1)).is_err(), "a list of {MAX} and one");
        assert_eq!(List::<u8, MAX>::new(vec![0; MAX + 1]).unwrap_err(), MAX + 1);
        assert_eq!(List::<u8, MAX>::cut(vec![0; MAX + 9]).len(), MAX);
    }
    fn text<const MAX: usize>() {
        let bytes = |len: usize| encoded(&"x".repeat(len));
        assert_eq!(pontoon_wire::decode::<Text<MAX>>(&bytes(MAX)).unwrap().len(), MAX);
        assert!(pontoon_wire::decode::<Text<MAX>>(&bytes(MAX + 1)).is_err(), "a text of {MAX} and one");
        assert!(Text::<MAX>::cut("ä".repeat(MAX)).len() <= MAX);
        assert!(pontoon_wire::decode::<Text<MAX>>(&[2, 0xc3, 0x28]).is_err(), "text that is not UTF-8");
    }
    fn blob<const MAX: usize>() {
        let bytes = |len: usize| encoded(&"x".repeat(len));
        assert_eq!(pontoon_wire::decode::<Blob<MAX>>(&bytes(MAX)).unwrap().len(), MAX);
        assert!(pontoon_wire::decode::<Blob<MAX>>(&bytes(MAX + 1)).is_err(), "a blob of {MAX} and one");
        assert_eq!(Blob::<MAX>::new(vec![0; MAX + 1]).unwrap_err(), MAX + 1);
    }
    list::<MAX_BINDINGS>();
    list::<MAX_BIND_GROUPS>();
    list::<MAX_COLOR_ATTACHMENTS>();
    list::<MAX_VERTEX_BUFFERS>();
    list::<MAX_VERTEX_ATTRIBUTES>();
    list::<MAX_CONSTANTS>();
    list::<MAX_VIEW_FORMATS>();
    list::<MAX_TRANSITIONS>();
    list::<MAX_PLANES>();
    list::<MAX_ADAPTERS>();
    list::<MAX_COMPILATION_MESSAGES>();
    text::<MAX_LABEL_BYTES>();
    text::<MAX_NAME_BYTES>();
    text::<MAX_MESSAGE_BYTES>();
    text::<MAX_TOKEN_BYTES>();
    text::<MAX_PROGRAM_BYTES>();
    text::<MAX_SHADER_BYTES>();
    blob::<MAX_SHADER_BYTES>();
    blob::<{ 4 * 1024 * 1024 }>();
    assert_eq!(Message::cut("ä".repeat(MAX_MESSAGE_BYTES)).len(), MAX_MESSAGE_BYTES);
}

/// No event that a host builds within its own limits is too long for a frame.
#[test]
fn the_longest_events_fit_a_frame() {
    let message = Message::cut("x".repeat(MAX_MESSAGE_BYTES));
    let mut out = Vec::new();
    let event = Event::End { message };
    pontoon_wire::frame::put_encoded(&mut out, pontoon_wire::frame::code::EVENT, &event);
    assert!(out.len() < MAX_FRAME_BODY);
}
