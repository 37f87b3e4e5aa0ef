//! A unix stream that an event loop wakes for what it waits for, and for nothing else.
//!
//! The kernel says of a unix socket that it may be written to each time the other end has read from it. A stream
//! that listens for that all along is woken once more for everything that it sends, just when the other end
//! begins to work on it. So this one listens for it only while a write does not go through.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::coop;

use super::register::register;

/// Bytes that are read at once for a reader with a buffer of its own.
const PIECE: usize = 64 << 10;

thread_local! {
    /// Where they come first: to be read into, a reader's own buffer would have to be cleared, all of it each time.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The stream.
#[derive(Debug)]
pub struct Stream {
    reading: AsyncFd<UnixStream>,
    /// Another descriptor of the same socket, while a write waits.
    writing: Option<AsyncFd<UnixStream>>,
}

impl Stream {
    /// Takes a connected socket over into this thread's event loop.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { reading: register(stream, Interest::READABLE)?, writing: None })
    }

    /// Appends what there is to read, as far as the vector has room; the number of bytes, 0 at the end.
    pub fn poll_append(&mut self, context: &mut Context<'_>, to: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        to.reserve(1);
        let room = to.capacity() - to.len();
        self.poll_with(context, room, |stream| Ok(rustix::io::read(stream, spare_capacity(to))?))
    }

    /// Whether there is nothing to read, not even the end, as far as the event loop has heard. Takes what there is:
    /// a stream that was not silent is of no use any more.
    pub fn is_silent(&self) -> bool {
        let mut byte = [0];
        let read = self.reading.try_io(Interest::READABLE, |mut stream| stream.read(&mut byte));
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads at most `room` bytes once there are some.
    fn poll_with(
        &self,
        context: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(context))?;
            match ready.try_io(|stream| read(stream.get_ref())) {
                Ok(Ok(count)) => {
                    // There was less than there was room for: there is no more, and another event will say when.
                    if count > 0 && count < room {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(PIECE);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.reserve_exact(PIECE);
            let read = |stream: &UnixStream| {
                let (got, _) = rustix::io::read(stream, &mut scratch.spare_capacity_mut()[..room])?;
                buffer.put_slice(got);
                Ok(got.len())
            };
            self.poll_with(context, room, read).map_ok(drop)
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Whoever writes to a quick reader lets others have their turn.
        let turn = ready!(coop::poll_proceed(context));
        loop {
            match this.reading.get_ref().write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    this.writing = None;
                    turn.made_progress();
                    return Poll::Ready(written);
                }
            }
            let writing = match &mut this.writing {
                Some(writing) => writing,
                none => {
                    let again = this.reading.get_ref().try_clone()?;
                    none.insert(register(again, Interest::WRITABLE)?)
                }
            };
            ready!(writing.poll_write_ready(context))?.clear_ready();
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.reading.get_ref().shutdown(Shutdown::Write) {
            // The other end was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn more_than_the_socket_holds_goes_both_ways_and_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Stream::new(ours).unwrap(), Stream::new(theirs).unwrap());
        let sent: Vec<u8> = (0..4_000_000u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let other = tokio::spawn(async move {
            let mut got = vec![0; expected.len()];
            // Slowly at first, so that the writer has to wait.
            tokio::time::sleep(Duration::from_millis(50)).await;
            theirs.read_exact(&mut got).await.unwrap();
            assert!(got == expected);
            theirs.write_all(&got).await.unwrap();
            theirs.shutdown().await.unwrap();
            theirs
        });
        assert!(ours.is_silent());
        ours.write_all(&sent).await.unwrap();
        assert!(ours.writing.is_none(), "nothing listens for room any more");
        let mut back = Vec::with_capacity(1000);
        while poll_fn(|context| ours.poll_append(context, &mut back)).await.unwrap() > 0 {}
        assert!(back == sent);
        drop(other.await.unwrap());
        assert!(!ours.is_silent(), "the other end is gone");
        assert!(ours.write_all(b"x").await.is_err());
    }

    #[test]
    fn no_event_loop_is_woken_when_the_other_end_reads() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let parked = runtime.metrics();
        let waiting = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut ours = Stream::new(ours).unwrap();
                ours.write_all(b"question").await.unwrap();
                let mut answer = Vec::with_capacity(8);
                poll_fn(|context| ours.poll_append(context, &mut answer)).await.unwrap();
                assert!(ours.is_silent());
                answer
            })
        });
        // The loop waits; then the other end reads.
        std::thread::sleep(Duration::from_millis(100));
        let before = parked.worker_park_count(0);
        let mut question = [0; 8];
        theirs.read_exact(&mut question).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(parked.worker_park_count(0), before, "woken although there was nothing to read");
        theirs.write_all(b"answer").unwrap();
        assert_eq!(waiting.join().unwrap(), b"answer");
    }
}
