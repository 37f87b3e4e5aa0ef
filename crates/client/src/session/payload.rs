//! The data of commands on its way to the host: within frames, or through shared memory.

use std::ops::RangeInclusive;
use std::time::Duration;

use pontoon_transport::shared::Upload;
use pontoon_uploads::Note;
use pontoon_wire::frame;
use pontoon_wire::limits::{MAX_ARENA_PAYLOAD, MAX_INLINE_PAYLOAD};

use super::{Outgoing, Session};
use crate::incoming::lost;

/// Payloads up to this size travel within their frame even where there is an arena.
const SMALL_PAYLOAD: usize = 4 * 1024;
/// Sizes of the pieces of large uploads: the host works on one while the next is copied. Small uploads have
/// small pieces, so that there are some; large ones large pieces, since each costs the host a little.
const PIECES: RangeInclusive<usize> = 256 * 1024..=1024 * 1024;

impl Session {
    /// Sends `data` as frames that `put` makes of `(position, payload)`, through the arena if there is
    /// one and the data is not small, else by name what the host has.
    pub fn send_payload(
        &self,
        out: &mut Outgoing,
        data: &[u8],
        put: impl Fn(&mut Vec<u8>, u64, frame::Payload<'_>),
    ) {
        if data.len() > SMALL_PAYLOAD && out.upload.is_some() {
            return self.send_through_arena(out, data, put);
        }
        let inline = MAX_INLINE_PAYLOAD.min(data.len().max(1));
        let mut at = 0;
        loop {
            let piece = &data[at..data.len().min(at + inline)];
            let len = piece.len() as u32;
            let known = match out.kept.as_mut().map(|kept| kept.note(piece)) {
                Some(Note::Known(digest)) => Some(frame::Payload::Named { digest, len }),
                _ => None,
            };
            let mut packing = out.packing.take();
            let packed = packing.as_mut().filter(|_| known.is_none()).and_then(|packing| packing.pack(piece));
            let packed = packed.map(|block| frame::Payload::Packed { len, block });
            let payload = known.or(packed).unwrap_or(frame::Payload::Inline(piece));
            self.send_locked(out, |frame| put(frame, at as u64, payload));
            out.packing = packing;
            at += piece.len();
            if at >= data.len() {
                return;
            }
        }
    }

    fn send_through_arena(
        &self,
        out: &mut Outgoing,
        data: &[u8],
        put: impl Fn(&mut Vec<u8>, u64, frame::Payload<'_>),
    ) {
        let Some(arena) = out.upload.as_ref().map(Upload::size) else { return };
        let piece = (data.len() / 4).clamp(*PIECES.start(), *PIECES.end());
        // Whole words: each piece must be a write that `wgpu` accepts.
        let piece = piece.min(MAX_ARENA_PAYLOAD).min(arena as usize / 4).next_multiple_of(64);
        for (index, piece_bytes) in data.chunks(piece).enumerate() {
            let Some(place) = self.place_in_arena(out, piece_bytes) else { return };
            let payload = frame::Payload::Arena { at: place, len: piece_bytes.len() as u32 };
            self.send_locked(out, |frame| put(frame, (index * piece) as u64, payload));
            if data.len() > piece {
                self.flush_locked(out);
            }
        }
    }

    fn place_in_arena(&self, out: &mut Outgoing, bytes: &[u8]) -> Option<u64> {
        loop {
            match out.upload.as_mut()?.push(bytes) {
                Ok(Some(place)) => return Some(place),
                Ok(None) => {}
                Err(error) => {
                    self.die(&lost(&error));
                    return None;
                }
            }
            self.flush_locked(out);
            if let Some(Err(error)) =
                out.sender.as_mut().map(|sender| sender.wait_for_room(Duration::from_millis(1)))
            {
                self.look();
                self.die(&lost(&error));
            }
            self.read_now();
            if self.is_dead() {
                return None;
            }
        }
    }
}
