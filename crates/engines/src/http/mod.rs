//! HTTP/1.1 (RFC 9112) to engines over their unix sockets: a request at a time on a connection, and its answer
//! read in place.
//!
//! Only what engines speak. A general client's queues between a request and its connection, its maps of headers
//! and its task for each body cost more here than all that is done with a request, so there are none: whoever
//! has a request drives its connection, and dropping it closes the socket, by which an engine knows to stop.

mod answer;
mod register;
mod stream;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::UnixStream;

use answer::{Head, Left, MAX_HEAD};

pub use stream::Stream;

/// Bytes that are read at once, if there are as many.
const PIECE: usize = 32 << 10;

/// Heads below 200 that may come before an answer's.
const MAX_ANNOUNCED: u32 = 8;

/// How long is waited for what an engine has said before it closed.
const PARTING: Duration = Duration::from_secs(1);

/// A connection to an engine.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// What was read; handed on up to `at`.
    input: Vec<u8>,
    at: usize,
    left: Left,
    /// The engine keeps the connection open behind this answer.
    kept: bool,
    /// Heads below 200 that have come before this answer's.
    announced: u32,
}

/// What is still to be sent.
struct Request<'a> {
    head: &'a [u8],
    body: &'a [u8],
}

impl Request<'_> {
    fn poll_send(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.head.is_empty() && self.body.is_empty()) {
            let slices = [IoSlice::new(self.head), IoSlice::new(self.body)];
            let count = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(self.head.len());
            (self.head, self.body) = (&self.head[of_head..], &self.body[count - of_head..]);
        }
        Poll::Ready(Ok(()))
    }
}

/// Why an engine did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its socket cannot be reached.
    #[error("the engine cannot be reached: {0}")]
    Connect(io::Error),
    /// It broke off.
    #[error("the engine broke off: {0}")]
    Broken(io::Error),
    /// It sent what is no HTTP.
    #[error("the engine's answer is no HTTP: {0}")]
    Malformed(String),
    /// It sent more than so many bytes.
    #[error("the engine's answer is longer than {0} bytes")]
    Long(usize),
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    pub async fn open(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket).await.and_then(UnixStream::into_std);
        let stream = stream.and_then(Stream::new).map_err(Failure::Connect)?;
        Ok(Self {
            stream,
            input: Vec::with_capacity(PIECE),
            at: 0,
            left: Left::Nothing,
            kept: true,
            announced: 0,
        })
    }

    /// Posts a body of JSON. The status of what is answered; [`Connection::poll_data`] gives its body.
    ///
    /// # Errors
    /// [`Failure`]; the connection is of no use then.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Result<u16, Failure> {
        self.ask("POST", path, body).await
    }

    /// The same with GET and no body.
    ///
    /// # Errors
    /// As [`Connection::post`].
    pub async fn get(&mut self, path: &str) -> Result<u16, Failure> {
        self.ask("GET", path, b"").await
    }

    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<u16, Failure> {
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Malformed(format!("{path:?} is no path")));
        }
        let mut digits = [0; 20];
        let length = decimal(body.len(), &mut digits);
        let parts = [
            method.as_bytes(),
            b" ",
            path.as_bytes(),
            b" HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\ncontent-length: ",
            length,
            b"\r\n\r\n",
        ];
        let head = parts.concat();
        // Of no use again until an answer says so.
        (self.kept, self.announced) = (false, 0);
        let mut request = Request { head: &head, body };
        let answered = poll_fn(|context| match request.poll_send(&mut self.stream, context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Whoever refuses a request may answer before it has all of it.
            sent => self.poll_head(context).map(|head| Ok((head, sent.is_ready()))),
        });
        let (head, whole) = match answered.await {
            Ok((head, whole)) => (head?, whole),
            Err(error) => (self.parting(error).await?, false),
        };
        (self.left, self.kept) = (head.left, head.kept && whole);
        Ok(head.status)
    }

    /// What an engine said before it stopped reading.
    async fn parting(&mut self, error: io::Error) -> Result<Head, Failure> {
        if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            let head = poll_fn(|context| self.poll_head(context));
            if let Ok(Ok(head)) = tokio::time::timeout(PARTING, head).await {
                return Ok(head);
            }
        }
        Err(Failure::Broken(error))
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        loop {
            if let Some((head, length)) = Head::parse(&self.input[self.at..])? {
                self.at += length;
                // Anything below 200 announces the real one.
                if head.status >= 200 {
                    return Poll::Ready(Ok(head));
                }
                self.announced += 1;
                if self.announced > MAX_ANNOUNCED {
                    let text = format!("more than {MAX_ANNOUNCED} heads before the answer's");
                    return Poll::Ready(Err(Failure::Malformed(text)));
                }
            } else if self.input.len() - self.at > MAX_HEAD {
                let text = format!("its head is longer than {MAX_HEAD} bytes");
                return Poll::Ready(Err(Failure::Malformed(text)));
            } else if ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// The next piece of the answer's body; none at its end.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<&[u8], Failure>>> {
        loop {
            match self.left.next(&self.input[self.at..]) {
                Ok(answer::Next::End) => return Poll::Ready(None),
                Ok(answer::Next::Data(length)) => {
                    let from = self.at;
                    self.at += length;
                    return Poll::Ready(Some(Ok(&self.input[from..self.at])));
                }
                Ok(answer::Next::Skip(length)) => self.at += length,
                Ok(answer::Next::More) => match ready!(self.poll_fill(context)) {
                    Ok(0) if self.left == Left::UntilClosed => self.left = Left::Nothing,
                    Ok(0) => {
                        return Poll::Ready(Some(Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into()))));
                    }
                    Ok(_) => {}
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                },
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
        }
    }

    /// Reads the whole body, of at most `most` bytes.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while poll_fn(|context| self.poll_into(&mut all, context)).await?.is_some() {
            if all.len() > most {
                return Err(Failure::Long(most));
            }
        }
        Ok(all)
    }

    /// Appends the next piece of the body, and says how long that is; none at its end.
    pub fn poll_into(
        &mut self,
        all: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, Failure>> {
        let expected = self.left.expected();
        Poll::Ready(match ready!(self.poll_data(context)) {
            Some(Ok(data)) => {
                if all.is_empty() {
                    all.reserve_exact(expected.max(data.len()));
                }
                all.extend_from_slice(data);
                Ok(Some(data.len()))
            }
            Some(Err(failure)) => Err(failure),
            None => Ok(None),
        })
    }

    /// Whether it may carry another request: the last answer was read to its end, and as far as is known, the
    /// engine has neither closed it nor said anything that nobody asked for.
    pub fn usable(&self) -> bool {
        self.kept && self.left == Left::Nothing && self.at == self.input.len() && self.stream.is_silent()
    }

    /// Reads more; the number of bytes, 0 at the end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        // What is kept here is the beginning of a head, or of a line between pieces of a body.
        self.input.drain(..std::mem::take(&mut self.at));
        self.stream.poll_append(context, &mut self.input).map_err(Failure::Broken)
    }
}

/// A number in decimal digits.
fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests;
