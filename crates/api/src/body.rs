//! The bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::infer::stream::Stream;
use crate::server::wire::Busy;

/// A body, and that its connection is busy until it is sent.
pub struct AnswerBody {
    kind: Kind,
    busy: Option<Busy>,
}

enum Kind {
    Whole(Option<Bytes>),
    Channel(mpsc::Receiver<io::Result<Bytes>>),
    Engine(Box<Stream>),
}

impl AnswerBody {
    /// All of it at once.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes: Bytes = bytes.into();
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), busy: None }
    }

    /// As somebody sends it; an error breaks the answer off.
    pub fn channel(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { kind: Kind::Channel(receiver), busy: None }
    }

    /// As an engine produces it.
    pub fn engine(stream: Stream) -> Self {
        Self { kind: Kind::Engine(Box::new(stream)), busy: None }
    }

    /// Keeps the connection busy until this body is sent or dropped.
    pub fn keeping(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Channel(receiver) => {
                receiver.poll_recv(context).map(|item| item.map(|item| item.map(Frame::data)))
            }
            Kind::Engine(stream) => stream.poll(context).map(|item| item.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}
