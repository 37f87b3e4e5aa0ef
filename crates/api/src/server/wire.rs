//! A connection's bytes with their deadlines: for a request's head, between requests, and for a caller
//! that takes no bytes of its answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::Limits;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// What is over once an answer is on its way, and does the rest of its work when it is dropped.
pub type Rest = Box<dyn Send>;

/// What a connection does, shared by its bytes and its requests.
#[derive(Default)]
pub struct Phase {
    now: AtomicU8,
    rest: Mutex<Option<Rest>>,
}

/// A request is being answered until this is dropped.
pub struct Busy(Arc<Phase>);

impl Phase {
    /// A request's head is complete.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.now.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn rest(&self) -> Option<Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Busy {
    /// Leaves work for the moment when the answer's first bytes have been handed to the system, or could not be: the
    /// caller need not wait for it.
    pub fn leave(&self, rest: Rest) {
        *self.0.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.now.store(IDLE, Ordering::Relaxed);
    }
}

/// A stream with deadlines.
pub struct Wire<S> {
    stream: S,
    phase: Arc<Phase>,
    limits: Limits,
    /// What the read deadline was set for; [`BUSY`] = none is set.
    timing: u8,
    reading: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    /// Wraps a stream whose other end has just connected.
    pub fn new(stream: S, phase: Arc<Phase>, limits: Limits) -> Self {
        // The first head is due at once: who connects has something to say, or takes up a place.
        phase.now.store(IDLE, Ordering::Relaxed);
        let reading = Box::pin(tokio::time::sleep(Duration::from_secs(limits.idle_seconds)));
        Self { stream, phase, limits, timing: IDLE, reading, writing: None }
    }

    /// Ends reads that are late.
    fn late(&mut self, context: &mut Context<'_>) -> bool {
        let phase = self.phase.now.load(Ordering::Relaxed);
        if phase != self.timing {
            self.timing = phase;
            let seconds = if phase == HEAD { self.limits.header_seconds } else { self.limits.idle_seconds };
            if phase != BUSY {
                self.reading.as_mut().reset(Instant::now() + Duration::from_secs(seconds));
            }
        }
        phase != BUSY && self.reading.as_mut().poll(context).is_ready()
    }

    /// What is left to do once something was written, or was to be; ends writes that the other end does not take.
    fn written<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        drop(self.phase.rest());
        self.stalled(context, poll)
    }

    /// Ends writes that the other end does not take.
    fn stalled<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.writing = None;
            return poll;
        }
        let limit = Duration::from_secs(self.limits.write_seconds);
        let timer = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller takes no bytes of its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if buffer.filled().len() > before {
                    let _ = self.phase.now.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed);
                }
                Poll::Ready(result)
            }
            // An end of the stream, not an error: nobody is waiting for an answer.
            Poll::Pending if self.late(context) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.stalled(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.stalled(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn limits() -> Limits {
        Limits { header_seconds: 1, idle_seconds: 3, write_seconds: 1, ..Limits::default() }
    }

    #[tokio::test]
    async fn a_head_that_trickles_ends_and_a_request_that_runs_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let phase = Arc::new(Phase::default());
        let mut wire = Wire::new(ours, phase.clone(), limits());
        let started = std::time::Instant::now();
        let trickle = tokio::spawn(async move {
            while theirs.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let mut bytes = Vec::new();
        wire.read_to_end(&mut bytes).await.unwrap();
        let took = started.elapsed().as_secs_f64();
        assert!((0.8..2.5).contains(&took) && bytes.len() < 8, "{took} s, {} bytes", bytes.len());
        drop(wire);
        trickle.await.unwrap();
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours, phase.clone(), limits());
        let _busy = phase.busy();
        let reading = tokio::time::timeout(Duration::from_millis(3500), wire.read_u8()).await;
        assert!(reading.is_err(), "a busy connection is not idle");
    }

    /// Says when it is dropped.
    struct Told(Arc<AtomicU8>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_is_left_is_done_behind_the_first_bytes_or_with_the_connection() {
        let (phase, done) = (Arc::new(Phase::default()), Arc::new(AtomicU8::new(0)));
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut wire = Wire::new(ours, phase.clone(), limits());
        phase.busy().leave(Box::new(Told(done.clone())));
        assert_eq!(done.load(Ordering::SeqCst), 0);
        wire.write_all(b"answer").await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
        let mut answer = [0; 6];
        theirs.read_exact(&mut answer).await.unwrap();
        // Nobody takes the next one.
        wire.write_all(&[0; 16]).await.unwrap();
        phase.busy().leave(Box::new(Told(done.clone())));
        assert!(tokio::time::timeout(Duration::from_millis(50), wire.write_all(b"x")).await.is_err());
        assert_eq!(done.load(Ordering::SeqCst), 2);
        phase.busy().leave(Box::new(Told(done.clone())));
        drop((wire, phase));
        assert_eq!(done.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut wire = Wire::new(ours, Arc::default(), limits());
        let error = wire.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
