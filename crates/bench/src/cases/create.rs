//! Owns the benchmarks of creation: buffers, bind groups, pipelines and whole sessions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use wgpu::BufferUsages;

use super::fixture::{self, Fixture};
use super::{Probe, Setup, timed};
use crate::session::Session;

pub(crate) fn buffer<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    Ok(batch(session, move || fixture::buffer(&session.device, 4096, usage)))
}

pub(crate) fn bind_group<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let Fixture { group_layout, buffer, .. } = Fixture::new(&session.device);
    Ok(batch(session, move || fixture::bind(&session.device, &group_layout, &buffer)))
}

pub(crate) fn pipeline<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let fixture = Fixture::new(&session.device);
    Ok(batch(session, move || fixture.pipeline(&session.device, fresh_salt())))
}

/// From connecting to a device in hand. Closing is not counted.
pub(crate) fn session<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let target = setup.target;
    Ok(Box::new(move |count| {
        let mut sessions = Vec::new();
        timed(|| {
            for _ in 0..count {
                sessions.push(Session::open(target)?);
            }
            Ok(())
        })
    }))
}

/// Times creations up to where all of them are known to have been made; dropping is not counted.
fn batch<'a, T: 'a>(session: &'a Session, mut create: impl FnMut() -> T + 'a) -> Probe<'a> {
    Box::new(move |count| {
        let mut made = Vec::with_capacity(count as usize);
        let time = timed(|| {
            made.extend((0..count).map(|_| create()));
            session.drain()
        })?;
        drop(made);
        session.drain()?;
        Ok(time)
    })
}

/// A number that neither this process nor, in all likelihood, any before it has used.
fn fresh_salt() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if NEXT.load(Ordering::Relaxed) == 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        NEXT.store(now.as_micros() as u32 | 1, Ordering::Relaxed);
    }
    NEXT.fetch_add(1, Ordering::Relaxed)
}
