//! Shared memory that a hostile guest writes what it likes into.

use super::*;

// The protocol's places of the words of both rings.
const TO_HOST_TAIL: u64 = 0x40;
const TO_GUEST_HEAD: u64 = 0x100;

#[test]
fn impossible_ring_positions_end_the_session() {
    for tail in [u64::MAX, 1 << 40, (1 << 20) + 1] {
        let mut guest = Raw::connect(shared(), Via::Arena);
        guest.memory.as_ref().unwrap().word64(TO_HOST_TAIL).store(tail, std::sync::atomic::Ordering::Release);
        guest.bell.as_ref().unwrap().ring();
        let end = guest.end();
        assert!(end.contains("corrupt") && end.contains("writer's position"), "{end}");
    }
    // The host believes no position of its reader either, once it has to look: when its ring is full.
    let mut guest = Raw::connect(shared(), Via::Arena);
    guest.command(&request_device());
    guest
        .memory
        .as_ref()
        .unwrap()
        .word64(TO_GUEST_HEAD)
        .store(u64::MAX, std::sync::atomic::Ordering::Release);
    let label = "x".repeat(1000);
    let mut over = false;
    for index in 0..2000 {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
        over = over
            || guest.sender.push(&encoded(&create_buffer(index, usage, &label))).is_err()
            || guest.sender.wait_for_room(Duration::from_micros(50)).is_err();
    }
    assert!(over, "the host goes on with a reader whose position is impossible");
}

#[test]
fn positions_rewritten_while_they_are_read_gain_nothing() {
    let daemon = shared();
    for seed in 1..6u64 {
        let mut guest = Raw::named(daemon, Via::Arena, "liar");
        guest.command(&request_device());
        let mut random = seed;
        let begin = Instant::now();
        let memory = guest.memory.as_ref().unwrap();
        // Noise where frames should be, and positions that jump within and beyond it.
        for place in 0..4096u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            memory.write(4096 + place * 64, &random.to_le_bytes()).unwrap();
        }
        while begin.elapsed() < Duration::from_millis(50) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let tail = if random & 1 == 0 { random } else { random >> 45 };
            memory.word64(TO_HOST_TAIL).store(tail, std::sync::atomic::Ordering::Release);
            guest.bell.as_ref().unwrap().ring();
        }
        // However it ended, it ended with a reason of the host's and not with a crash.
        let end = guest.end();
        assert!(end.contains("corrupt") || end.contains("the guest broke the protocol"), "{end}");
    }
    assert!(!daemon.log().contains("crashed in the session's worker"), "a worker crashed");
    assert!(Gpu::new(daemon).works());
}

#[test]
fn arena_positions_out_of_range_end_the_session() {
    let size = Raw::connect(shared(), Via::Arena).upload.unwrap().size();
    for (at, len) in [(size - 4, 256), (u64::MAX, 8), (size / 2 + size * 7, size as u32), (0, u32::MAX)] {
        let mut guest = Raw::connect(shared(), Via::Arena);
        guest.command(&request_device());
        guest.command(&create_buffer(0, wgpu::BufferUsages::COPY_DST, "x"));
        let payload = Payload::Arena { at, len };
        let write = WriteBuffer { buffer: Id::new(0, 1), offset: 0, total: u64::from(len), at: 0, payload };
        let mut bytes = Vec::new();
        write.put(&mut bytes, code::WRITE_BUFFER);
        frame::put(&mut bytes, code::STAGE, |out| payload.put(out));
        guest.send(&bytes);
        let end = guest.end();
        assert!(end.contains("outside the shared memory") || end.contains("payload is"), "{at}+{len}: {end}");
    }
}

/// Payloads of four bytes at places that cannot be joined, and nothing submitted: a copy each, which the worker
/// may not hoard.
#[test]
fn payloads_as_small_as_they_come_cost_bounded_memory() {
    let Some(setup) = Setup::gpu() else { return };
    let daemon = setup.start();
    let mut guest = Raw::named(&daemon, Via::Arena, "crumbs");
    guest.command(&request_device());
    guest.command(&create_buffer(0, wgpu::BufferUsages::COPY_DST, "x"));
    let worker = daemon.worker_of("crumbs").expect("a worker");
    wait_until("it has its device", PATIENCE, || resident_megabytes(worker) > 20);
    let mut most = 0;
    for round in 0..100u64 {
        let mut bytes = Vec::new();
        for number in 0..2000u64 {
            let payload = Payload::Arena { at: number % 64 * 64, len: 4 };
            let offset = (round + number) % 2 * 8;
            WriteBuffer { buffer: Id::new(0, 1), offset, total: 4, at: 0, payload }
                .put(&mut bytes, code::WRITE_BUFFER);
        }
        assert!(guest.send(&bytes), "{}", guest.end());
        most = most.max(resident_megabytes(worker));
    }
    println!("200,000 crumbs: at most {most} MB");
    assert!(most < 250, "the worker holds {most} MB");
    assert!(Gpu::new(&daemon).works(), "others notice");
}
