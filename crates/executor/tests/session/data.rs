//! Data on its way to the host and back: writes in pieces, staged bytes, mappings.

use super::*;

#[test]
fn pieces_of_a_write_come_in_order() {
    let orders: [&[(u64, u64, u64, usize)]; 6] = [
        &[(0, 16, 8, 8)],
        &[(0, 16, 0, 8), (0, 16, 0, 8)],
        &[(0, 16, 0, 8), (4, 16, 8, 8)],
        &[(0, 16, 0, 8), (0, 20, 8, 8)],
        &[(0, 16, 0, 4), (0, 16, 8, 4)],
        &[(0, 16, 0, 8), (0, 16, 8, 8), (0, 16, 16, 0)],
    ];
    for pieces in orders {
        let mut guest = Guest::furnished();
        let mut result = Ok(());
        for (offset, total, at, len) in pieces {
            assert_eq!(result, Ok(()));
            result = guest.write(*offset, *total, *at, &vec![0; *len]);
        }
        assert_eq!(violation(result), "pieces of buffer writes are out of order", "{pieces:?}");
    }
    let mut guest = Guest::furnished();
    guest.write(0, 16, 0, &[0; 8]).unwrap();
    assert_eq!(violation(guest.write(0, 16, 8, &[])), "an empty piece of a buffer write");
    let mut guest = Guest::furnished();
    for at in 0..4 {
        guest.write(0, 16, at * 4, &[1; 4]).unwrap();
    }
    guest.write(8, 4, 0, &[2; 4]).unwrap();
    assert_eq!(guest.errors(), []);
}

#[test]
fn a_write_that_does_not_fit_is_rejected_once_whatever_its_pieces() {
    let mut guest = Guest::furnished();
    for at in 0..4 {
        guest.write(SIZE - 8, 16, at * 4, &[1; 4]).unwrap();
        if at == 0 {
            let message = guest.expect_error(ErrorKind::Validation);
            assert!(
                message.contains("264") || message.contains("bounds") || message.contains("size"),
                "{message}"
            );
        }
    }
    assert_eq!(guest.errors(), []);
    for (offset, total) in [(0, SIZE + 4), (u64::MAX - 3, 4), (0, !3), (2, 4), (0, 6), (!3, !3)] {
        guest.write(offset, total, 0, &[]).unwrap();
        guest.expect_error(ErrorKind::Validation);
    }
    // What fits is not to be rejected by hand, what does not fit is.
    let write =
        |offset, total| WriteBuffer { buffer: BUFFER, offset, total, at: 0, payload: Payload::Inline(&[]) };
    guest.frame(&|out| write(SIZE, 4).put(out, code::REJECT_WRITE_WITH)).unwrap();
    guest.expect_error(ErrorKind::Validation);
    assert_eq!(
        violation(Guest::furnished().frame(&|out| write(0, 4).put(out, code::REJECT_WRITE_WITH))),
        "a write that fits, to be rejected"
    );
    // A write in pieces whose first word is unaligned.
    guest.write(0, 8, 0, &[0; 3]).unwrap();
    guest.expect_error(ErrorKind::Validation);
    guest.write(0, 8, 3, &[0; 5]).unwrap();
    assert_eq!(guest.errors(), []);
}

#[test]
fn staged_bytes_must_be_those_that_the_command_says() {
    let stage = |guest: &mut Guest, len: usize| {
        guest.frame(&|out| frame::put(out, code::STAGE, |out| Payload::Inline(&vec![0; len]).put(out)))
    };
    let write = |staged| Command::WriteTexture {
        device: DEVICE,
        destination: place(TEXTURE),
        layout: wgt::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(64), rows_per_image: None },
        size: wgt::Extent3d { width: 16, height: 16, depth_or_array_layers: 1 },
        staged,
    };
    let mut guest = Guest::furnished();
    stage(&mut guest, 512).unwrap();
    stage(&mut guest, 512).unwrap();
    guest.command(write(1024)).unwrap();
    assert_eq!(guest.errors(), []);
    assert_eq!(violation(guest.command(write(1024))), "0 bytes are staged, not 1024");
    let mut guest = Guest::furnished();
    stage(&mut guest, 100).unwrap();
    assert_eq!(violation(guest.command(write(u64::MAX))), format!("100 bytes are staged, not {}", u64::MAX));
    let mut guest = Guest::furnished();
    stage(&mut guest, 100).unwrap();
    guest.command(write(100)).unwrap();
    guest.expect_error(ErrorKind::Validation);
    let mut guest = Guest::new(Limits { bytes_in_flight: 0, ..Limits::default() });
    guest.device(DEVICE);
    let end = (0..100).find_map(|_| stage(&mut guest, 256 * 1024).err());
    assert!(
        matches!(&end, Some(End::Limit(message)) if message.contains("limits.bytes_in_flight")),
        "{end:?}"
    );
}

#[test]
fn mappings() {
    let map = |number, offset, size| Command::MapBuffer {
        buffer: MAPPABLE,
        map: number,
        write: false,
        offset,
        size,
    };
    let mut guest = Guest::furnished();
    guest.command(map(5, 0, SIZE)).unwrap();
    guest.session.progress(std::time::Duration::ZERO).unwrap();
    assert_eq!(guest.events(), [Event::Mapped { map: 5, bytes: Some(MappedAt::Sent) }]);
    assert!(violation(guest.command(map(6, 0, SIZE))).contains("buffer 1.1 which is mapped"));
    for (offset, size) in [(0, SIZE + 1), (SIZE + 8, 0), (u64::MAX, u64::MAX), (8, u64::MAX)] {
        assert!(violation(Guest::furnished().command(map(1, offset, size))).contains("buffer 1.1"));
    }
    // Unmapped before it came through, by hand or by being destroyed or dropped: it fails, once.
    let enders: [&dyn Fn(&mut Guest); 3] = [
        &|guest| guest.command(Command::UnmapBuffer { buffer: MAPPABLE }).unwrap(),
        &|guest| guest.command(Command::DestroyBuffer { buffer: MAPPABLE }).unwrap(),
        &|guest| guest.forget(1, MAPPABLE.to_bits()).unwrap(),
    ];
    for (number, end) in enders.into_iter().enumerate() {
        let mut guest = Guest::furnished();
        guest.command(map(5, 0, SIZE)).unwrap();
        end(&mut guest);
        guest.session.progress(std::time::Duration::ZERO).unwrap();
        assert_eq!(guest.events(), [Event::Mapped { map: 5, bytes: None }], "ender {number}");
    }
    // A buffer that may not be mapped: an error, a failed mapping, and it can be tried again.
    let mut guest = Guest::furnished();
    for round in 0..2 {
        guest
            .command(Command::MapBuffer { buffer: BUFFER, map: round, write: true, offset: 0, size: 8 })
            .unwrap();
        guest.session.progress(std::time::Duration::ZERO).unwrap();
        let events = guest.events();
        assert!(events.contains(&Event::Mapped { map: round, bytes: None }), "{events:?}");
        // `wgpu` itself says nothing of the second try: the buffer still counts as being mapped.
        let errors = events.iter().filter(|event| matches!(event, Event::Error { .. })).count();
        assert_eq!(errors, if round == 0 { 1 } else { 0 }, "round {round}: {events:?}");
    }
}

#[test]
fn the_same_number_for_two_mappings_confuses_only_the_guest() {
    let mut guest = Guest::furnished();
    guest.command(create_buffer(2, SIZE, B::MAP_READ | B::COPY_DST, false)).unwrap();
    for index in [1, 2] {
        let buffer = Id::new(index, 1);
        guest.command(Command::MapBuffer { buffer, map: 7, write: false, offset: 0, size: 8 }).unwrap();
    }
    guest.session.progress(std::time::Duration::ZERO).unwrap();
    assert_eq!(guest.events().len(), 2);
    for index in [1, 2] {
        guest.command(Command::UnmapBuffer { buffer: Id::new(index, 1) }).unwrap();
    }
}

#[test]
fn buffers_mapped_at_creation_take_their_bytes_and_no_others() {
    let write = |guest: &mut Guest, offset, at, len: usize| {
        let payload = vec![3; len];
        let buffer = Id::new(2, 1);
        let write =
            WriteBuffer { buffer, offset, total: at + len as u64, at, payload: Payload::Inline(&payload) };
        guest.frame(&|out| write.put(out, code::WRITE_MAPPED))
    };
    let mut guest = Guest::furnished();
    guest.command(create_buffer(2, 64, B::COPY_DST, true)).unwrap();
    write(&mut guest, 0, 0, 32).unwrap();
    write(&mut guest, 32, 8, 16).unwrap();
    assert!(violation(write(&mut guest, 60, 0, 8)).contains("bytes 60..68 of buffer 2.1"));
    assert!(violation(write(&mut guest, u64::MAX, 0, 8)).contains("of buffer 2.1"));
    guest
        .command(Command::MapBuffer { buffer: Id::new(2, 1), map: 1, write: false, offset: 0, size: 8 })
        .unwrap();
    guest.session.progress(std::time::Duration::ZERO).unwrap();
    assert!(guest.events().contains(&Event::Mapped { map: 1, bytes: None }), "it is mapped already");
    guest.command(Command::UnmapBuffer { buffer: Id::new(2, 1) }).unwrap();
    // No longer mapped: the bytes go nowhere.
    write(&mut guest, 0, 0, 8).unwrap();
    assert_eq!(guest.errors(), []);
}
