//! The bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::infer::stream::Stream;
use crate::server::wire::{Busy, Rest};

/// A body, and that its connection is busy until it is sent.
pub struct AnswerBody {
    kind: Kind,
    busy: Option<Busy>,
    rest: Option<Rest>,
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
        Self::new(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// As somebody sends it; an error breaks the answer off.
    pub fn channel(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self::new(Kind::Channel(receiver))
    }

    /// As an engine produces it.
    pub fn engine(stream: Stream) -> Self {
        Self::new(Kind::Engine(Box::new(stream)))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, busy: None, rest: None }
    }

    /// Leaves work until the answer is on its way.
    pub fn leaving(mut self, rest: Rest) -> Self {
        self.rest = Some(rest);
        self
    }

    /// Keeps the connection busy until this body is sent or dropped.
    pub fn keeping(mut self, busy: Busy) -> Self {
        if let Some(rest) = self.rest.take() {
            busy.leave(rest);
        }
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
