//! Rings and arenas between two sides of which one may lie.
#![cfg(target_os = "linux")]

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use pontoon_transport::Error;
use pontoon_transport::shared::{Consumer, Mapping, Producer, Shared, Side, Sizes};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};

const PAGE: u64 = 4096;
const SIZES: Sizes = Sizes { to_host: PAGE, to_guest: PAGE, upload: 2 * PAGE, download: 2 * PAGE };
const LEN: u64 = PAGE + 6 * PAGE;

// Where the words of the first ring and the host's position in the arena are: the protocol's layout.
const HEAD: u64 = 0x00;
const TAIL: u64 = 0x40;
const SLEEPING: u64 = 0x80;
const RELEASED: u64 = 0x200;

/// Both sides, and a third view of the memory for a liar.
fn sides(sizes: Sizes, len: u64) -> (Shared, Shared, Mapping) {
    let (host, fd) = Shared::create(sizes).unwrap();
    let liar = Mapping::new(fd.as_fd(), len as usize).unwrap();
    (host, Shared::open(fd, sizes).unwrap(), liar)
}

fn ring() -> (Producer, Consumer, Mapping) {
    let (host, guest, liar) = sides(SIZES, LEN);
    (guest.rings(Side::Guest).unwrap().0, host.rings(Side::Host).unwrap().1, liar)
}

fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| (at as u8) ^ (at >> 8) as u8 ^ (at >> 16) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bytes_cross_threads_unchanged(pieces in prop::collection::vec(0usize..9000, 1..40)) {
        let (mut producer, mut consumer, _) = ring();
        let total: usize = pieces.iter().sum();
        let writer = std::thread::spawn(move || {
            let mut at = 0;
            for len in pieces {
                let bytes = pattern(at, len);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let pushed = producer.push(rest).unwrap();
                    rest = &rest[pushed..];
                    if pushed == 0 { std::thread::yield_now() }
                }
                at += len;
            }
        });
        let mut read = Vec::new();
        while read.len() < total {
            if consumer.pop(&mut read).unwrap() == 0 { std::thread::yield_now() }
        }
        writer.join().unwrap();
        prop_assert_eq!(consumer.available().unwrap(), 0);
        prop_assert!(read == pattern(0, total));
    }

    #[test]
    fn one_thread_interleaved_with_wrap_around(steps in prop::collection::vec((any::<bool>(), 0usize..6000), 1..120)) {
        let (mut producer, mut consumer, _) = ring();
        let (mut written, mut read) = (0, Vec::new());
        for (push, len) in steps {
            if push {
                let free = PAGE as usize - (written - read.len());
                let pushed = producer.push(&pattern(written, len)).unwrap();
                prop_assert_eq!(pushed, len.min(free));
                written += pushed;
            } else {
                prop_assert_eq!(consumer.available().unwrap() as usize, written - read.len());
                consumer.pop(&mut read).unwrap();
                prop_assert_eq!(read.len(), written);
            }
        }
        consumer.pop(&mut read).unwrap();
        prop_assert!(read == pattern(0, written));
    }

    /// A host that reads whatever position a guest writes: it finds the lie or takes bytes from within
    /// the ring, as many as the ring holds at most.
    #[test]
    fn lying_writers_are_found_out(steps in prop::collection::vec((any::<bool>(), any::<u64>(), 0u64..10_000), 1..60)) {
        let (_, mut consumer, liar) = ring();
        let mut head = 0u64;
        for (wild, tail, near) in steps {
            let tail = if wild { tail } else { head.wrapping_add(near) };
            liar.word64(TAIL).store(tail, std::sync::atomic::Ordering::Release);
            let mut out = Vec::new();
            let possible = tail.checked_sub(head).is_some_and(|len| len <= PAGE);
            match consumer.pop(&mut out) {
                Ok(len) => {
                    prop_assert!(possible && len == out.len() && len as u64 == tail - head);
                    head = tail;
                }
                Err(Error::Corrupt(_)) => prop_assert!(!possible && out.is_empty()),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    #[test]
    fn lying_readers_are_found_out(steps in prop::collection::vec((any::<bool>(), any::<u64>(), 0usize..6000), 1..60)) {
        let (mut producer, _, liar) = ring();
        let (mut head, mut tail) = (0u64, 0u64);
        for (wild, lie, len) in steps {
            let lie = if wild { lie } else { head + lie % (tail - head + 2) };
            liar.word64(HEAD).store(lie, std::sync::atomic::Ordering::Release);
            let possible = (head..=tail).contains(&lie);
            match producer.push(&vec![0; len]) {
                Ok(pushed) => {
                    prop_assert!(pushed <= len);
                    if pushed < len || PAGE - (tail - head) < len as u64 {
                        prop_assert!(possible);
                        head = lie;
                    }
                    tail += pushed as u64;
                    prop_assert!(tail - head <= PAGE);
                }
                Err(Error::Corrupt(_)) => prop_assert!(!possible),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    /// Against a model: live payloads never overlap, never wrap, come out as they went in, and a payload
    /// that does not fit does so only while earlier ones are in its way.
    #[test]
    fn uploads_are_first_in_first_out(steps in prop::collection::vec((0u8..3, 1usize..5000), 1..200)) {
        let (host, guest, _) = sides(SIZES, LEN);
        let (mut upload, reader) = (guest.upload().unwrap(), host.upload().unwrap());
        let mut live: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let mut made = 0;
        for (kind, len) in steps {
            if kind == 0 {
                let Some((at, bytes)) = live.pop_front() else { continue };
                let mut out = vec![0; bytes.len()];
                reader.read(at, &mut out).unwrap();
                prop_assert!(out == bytes);
                let mut more = vec![9];
                reader.read_to(at, bytes.len(), &mut more).unwrap();
                prop_assert!(more[1..] == bytes);
                reader.release(at + bytes.len() as u64);
                continue;
            }
            let bytes = pattern(made, len);
            match upload.push(&bytes).unwrap() {
                Some(at) => {
                    made += len;
                    let size = upload.size();
                    prop_assert!(at % size + len as u64 <= size, "a payload wraps");
                    for (other, taken) in &live {
                        let (start, end) = (at % size, at % size + len as u64);
                        let (from, to) = (other % size, other % size + taken.len() as u64);
                        prop_assert!(end <= from || to <= start, "{start}..{end} meets {from}..{to}");
                        prop_assert!(*other < at);
                    }
                    live.push_back((at, bytes));
                }
                // What does not fit an empty part can only be one that would have to skip its end.
                None => prop_assert!(!live.is_empty() || len as u64 > SIZES.upload / 2),
            }
        }
    }

    #[test]
    fn mapped_ranges_never_overlap_and_are_reused(steps in prop::collection::vec((any::<bool>(), 0usize..3000, any::<prop::sample::Index>()), 1..200)) {
        let (host, guest, _) = sides(SIZES, LEN);
        let (mut placer, viewer) = (host.download().unwrap(), guest.download().unwrap());
        let mut live: Vec<(u64, Vec<u8>)> = Vec::new();
        for (place, len, index) in steps {
            if !place && !live.is_empty() {
                placer.free(live.swap_remove(index.index(live.len())).0);
                continue;
            }
            let bytes = pattern(len, len);
            match placer.place(&bytes).unwrap() {
                Some(at) => live.push((at, bytes)),
                None => prop_assert!(!live.is_empty()),
            }
            for (at, bytes) in &live {
                let view = viewer.bytes(*at, bytes.len()).unwrap();
                // SAFETY: the host leaves placed bytes alone, and both mappings live.
                let view = unsafe { view.as_ref() };
                prop_assert!(view == &bytes[..]);
            }
        }
        live.iter().for_each(|(at, _)| placer.free(*at));
        prop_assert_eq!(placer.place(&vec![1; SIZES.download as usize]).unwrap(), Some(0));
    }
}

#[test]
fn a_writer_that_lies_while_it_is_read_gains_nothing() {
    let (_, mut consumer, liar) = ring();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut popped = 0u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 1u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let tail = if seed & 1 == 0 { seed } else { seed >> 48 };
                liar.word64(TAIL).store(tail, std::sync::atomic::Ordering::Relaxed);
                liar.word64(HEAD).store(seed, std::sync::atomic::Ordering::Relaxed);
                liar.word32(SLEEPING).store(seed as u32, std::sync::atomic::Ordering::Relaxed);
            }
        });
        for _ in 0..100_000 {
            let mut out = Vec::new();
            match consumer.pop(&mut out) {
                Ok(len) => {
                    assert!(len as u64 <= PAGE && len == out.len());
                    popped += len as u64;
                }
                Err(error) => assert!(matches!(error, Error::Corrupt(_)), "{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(popped < 1 << 17, "positions that a guest wrote were believed: {popped}");
}

#[test]
fn arena_positions_out_of_range_are_refused() {
    let (host, guest, liar) = sides(SIZES, LEN);
    let upload = host.upload().unwrap();
    for (at, len) in [(0, 8193), (8191, 2), (u64::MAX, 2), (u64::MAX - 4095, 8192), (4096, 4097)] {
        let mut out = vec![0; len];
        assert!(matches!(upload.read(at, &mut out), Err(Error::OutOfBounds { .. })), "{at}+{len}");
        assert!(
            matches!(upload.read_to(at, len, &mut Vec::new()), Err(Error::OutOfBounds { .. })),
            "{at}+{len}"
        );
    }
    assert!(upload.read(u64::MAX, &mut [0]).is_ok(), "the last place of a part is one");
    let download = guest.download().unwrap();
    for (at, len) in [(0, 8193), (u64::MAX, 1), (u64::MAX, usize::MAX), (8192, 1)] {
        assert!(matches!(download.bytes(at, len), Err(Error::OutOfBounds { .. })), "{at}+{len}");
    }
    let mut upload = guest.upload().unwrap();
    liar.word64(RELEASED).store(1, std::sync::atomic::Ordering::Release);
    assert!(matches!(upload.push(&[1]), Err(Error::Corrupt(_))));
}

#[test]
fn an_emptied_upload_part_takes_half_its_size_at_once() {
    let (host, guest, _) = sides(SIZES, LEN);
    let (mut upload, reader) = (guest.upload().unwrap(), host.upload().unwrap());
    for len in [100, 4096, 3000, 4096, 64, 4096, 1, 4000] {
        let at = upload.push(&vec![1; len]).unwrap().unwrap_or_else(|| panic!("{len} bytes do not fit"));
        reader.release(at + len as u64);
    }
}

fn memfd(len: u64, flags: MemfdFlags, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create(c"test", MemfdFlags::CLOEXEC | flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    if !seals.is_empty() {
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    }
    fd
}

#[test]
fn only_sealed_memory_of_the_agreed_size_is_mapped() {
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let sealing = MemfdFlags::ALLOW_SEALING;
    assert!(Shared::open(memfd(LEN, sealing, sealed), SIZES).is_ok());
    for (len, flags, seals) in [
        (LEN, MemfdFlags::empty(), SealFlags::empty()),
        (LEN, sealing, SealFlags::empty()),
        (LEN, sealing, SealFlags::GROW),
        (LEN - PAGE, sealing, sealed),
        (LEN + PAGE, sealing, sealed),
        (0, sealing, sealed),
    ] {
        let error = Shared::open(memfd(len, flags, seals), SIZES).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{len} bytes, {seals:?}: {error}");
    }
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(Shared::open(file.into(), SIZES).is_err(), "a plain file");
    let (memory, fd) = Shared::create(SIZES).unwrap();
    assert!(rustix::fs::ftruncate(&fd, 0).is_err(), "the guest may not shrink it");
    assert!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE).is_err(), "the guest may add no seals");
    drop(memory);
}

#[test]
fn impossible_layouts_are_refused() {
    for sizes in [
        Sizes { to_host: 0, ..SIZES },
        Sizes { to_host: PAGE + 1, ..SIZES },
        Sizes { to_guest: 3 * PAGE, ..SIZES },
        Sizes { to_host: 1 << 63, ..SIZES },
        Sizes { upload: 100, ..SIZES },
        Sizes { upload: u64::MAX - 4095, ..SIZES },
        Sizes { download: 1 << 63, ..SIZES },
    ] {
        assert!(matches!(Shared::create(sizes), Err(Error::Corrupt(_))), "{sizes:?}");
        assert!(matches!(
            Shared::open(memfd(PAGE, MemfdFlags::ALLOW_SEALING, SealFlags::SHRINK), sizes),
            Err(Error::Corrupt(_))
        ));
    }
}

/// A session may have no arena at all: its parts are empty, and nothing in them can be named.
#[test]
fn empty_parts_hold_nothing() {
    let sizes = Sizes { upload: 0, download: 0, ..SIZES };
    let (host, guest, _) = sides(sizes, PAGE + 2 * PAGE);
    assert_eq!(host.download().unwrap().place(&[1]).unwrap(), None);
    assert!(guest.download().unwrap().bytes(0, 1).is_err());
}
