//! Owns the benchmarks of single calls: round trips, asynchronous commands, dispatches, submissions.

use std::time::{Duration, Instant};

use wgpu::CommandBuffer;

use super::fixture::Fixture;
use super::{Probe, Setup, timed};
use crate::session::Session;

/// Commands in a burst: few enough that no queue between the caller and the GPU fills up.
pub(crate) const BURST: f64 = 64.0;
/// Dispatches in a pass.
pub(crate) const PASS: f64 = 1000.0;

/// The smallest call that has to wait for the GPU: an empty submission, and a poll for it.
pub(crate) fn sync_round_trip<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    Ok(Box::new(move |count| timed(|| (0..count).try_for_each(|_| session.drain()))))
}

/// A call that has to wait for whoever executes it, but not for the GPU: an error scope around a
/// write of four bytes.
pub(crate) fn round_trip_only<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let buffer = Fixture::new(&session.device).buffer;
    let trip = move || {
        let scope = session.device.push_error_scope(wgpu::ErrorFilter::Validation);
        session.queue.write_buffer(&buffer, 0, &[1; 4]);
        pollster::block_on(scope.pop()).map_or(Ok(()), |error| Err(error.to_string()))
    };
    Ok(Box::new(move |count| {
        let time = timed(|| (0..count).try_for_each(|_| trip()))?;
        session.drain()?;
        Ok(time)
    }))
}

/// What a command that nobody waits for costs the caller's thread: a write of four bytes.
pub(crate) fn async_command<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let buffer = Fixture::new(&session.device).buffer;
    Ok(bursts(session, move || {
        (0..BURST as u32).for_each(|_| session.queue.write_buffer(&buffer, 0, &[1; 4]))
    }))
}

/// What a recorded dispatch costs the caller's thread, up to the finished command buffer.
pub(crate) fn record_dispatch<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let pass = Pass::new(session);
    Ok(bursts(session, move || drop(pass.record())))
}

/// Dispatches executed per second, from recording to completion.
pub(crate) fn dispatch<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let pass = Pass::new(session);
    Ok(batch(session, move || {
        session.queue.submit([pass.record()]);
    }))
}

/// Submissions executed per second, each of a command buffer that clears 16 bytes.
pub(crate) fn submit<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let buffer = Fixture::new(&session.device).buffer;
    Ok(batch(session, move || {
        let mut encoder = session.device.create_command_encoder(&Default::default());
        encoder.clear_buffer(&buffer, 0, Some(16));
        session.queue.submit([encoder.finish()]);
    }))
}

/// Times bursts of work that nobody waits for, and waits between them without counting it.
fn bursts<'a>(session: &'a Session, mut burst: impl FnMut() + 'a) -> Probe<'a> {
    Box::new(move |count| {
        let mut total = Duration::ZERO;
        for _ in 0..count {
            let start = Instant::now();
            burst();
            total += start.elapsed();
            session.drain()?;
        }
        Ok(total)
    })
}

/// Times repetitions with one wait at their end.
fn batch<'a>(session: &'a Session, mut once: impl FnMut() + 'a) -> Probe<'a> {
    Box::new(move |count| {
        timed(|| {
            (0..count).for_each(|_| once());
            session.wait()
        })
    })
}

/// A compute pass of [`PASS`] dispatches, each of which depends on the one before.
struct Pass<'a> {
    session: &'a Session,
    fixture: Fixture,
    pipeline: wgpu::ComputePipeline,
}

impl<'a> Pass<'a> {
    fn new(session: &'a Session) -> Self {
        let fixture = Fixture::new(&session.device);
        let pipeline = fixture.pipeline(&session.device, 1);
        Self { session, fixture, pipeline }
    }

    fn record(&self) -> CommandBuffer {
        let mut encoder = self.session.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.fixture.group, &[]);
        for _ in 0..PASS as u32 {
            pass.dispatch_workgroups(1, 1, 1);
        }
        drop(pass);
        encoder.finish()
    }
}
