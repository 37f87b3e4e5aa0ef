//! Owns the benchmarks of bandwidth: bytes to the GPU, and bytes back to the program.

use std::sync::mpsc;

use wgpu::{Buffer, BufferUsages};

use super::fixture::buffer;
use super::{Probe, Setup, timed};
use crate::session::Session;

/// Writes `BYTES` bytes and submits them, over and over, with one wait at the end of the batch.
pub(crate) fn upload<'a, const BYTES: usize>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let data = pattern(BYTES);
    let target = buffer(&session.device, BYTES as u64, BufferUsages::COPY_DST);
    Ok(Box::new(move |count| {
        timed(|| {
            for _ in 0..count {
                session.queue.write_buffer(&target, 0, &data);
                session.queue.submit([]);
            }
            session.wait()
        })
    }))
}

/// Copies `BYTES` bytes to where they can be mapped, maps them, and copies them out, over and over.
pub(crate) fn readback<'a, const BYTES: usize>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let reader = Reader::new(session, BYTES as u64);
    let expected = pattern(BYTES);
    let mut bytes = vec![0; BYTES];
    session.queue.write_buffer(&reader.source, 0, &expected);
    reader.read(&mut bytes)?;
    if bytes != expected {
        return Err("what was read back is not what was written".into());
    }
    Ok(Box::new(move |count| timed(|| (0..count).try_for_each(|_| reader.read(&mut bytes)))))
}

struct Reader<'a> {
    session: &'a Session,
    source: Buffer,
    landing: Buffer,
}

impl<'a> Reader<'a> {
    fn new(session: &'a Session, bytes: u64) -> Self {
        Self {
            session,
            source: buffer(&session.device, bytes, BufferUsages::COPY_SRC | BufferUsages::COPY_DST),
            landing: buffer(&session.device, bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST),
        }
    }

    fn read(&self, bytes: &mut [u8]) -> Result<(), String> {
        let mut encoder = self.session.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.landing, 0, self.source.size());
        self.session.queue.submit([encoder.finish()]);
        let (sender, receiver) = mpsc::channel();
        self.landing.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver is gone only when the wait below failed, and then nobody asks.
            let _ = sender.send(result);
        });
        self.session.wait()?;
        receiver.try_recv().map_err(|_| "the buffer was not mapped")?.map_err(|e| e.to_string())?;
        let view = self.landing.get_mapped_range(..).map_err(|e| e.to_string())?;
        bytes.copy_from_slice(&view);
        drop(view);
        self.landing.unmap();
        Ok(())
    }
}

/// Bytes without a pattern, so that nothing on their way can make less of them.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut word).take(bytes / 8).flatten().collect()
}
