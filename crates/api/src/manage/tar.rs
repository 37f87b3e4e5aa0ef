//! Models as tars: out of the store and into it, in a stream.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use pontoon_models::Event;
use tokio::sync::mpsc;

use super::{blocking, resolve};
use crate::body::AnswerBody;
use crate::dialect::{DialectError, ErrorKind};
use crate::reply::{self, Answer};
use crate::server::Ask;

/// Bytes of one piece of a tar on its way out.
const PIECE: usize = 256 << 10;

/// `GET /models/{name}/export`.
pub async fn export(ask: &Ask, name: String) -> Answer {
    resolve(&ask.shared, &name).await?;
    let (pieces, body) = mpsc::channel(4);
    let mut answer = reply::bytes(StatusCode::OK, "application/x-tar", Bytes::new());
    let file: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{file}.tar\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    let store = ask.shared.store.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = Outgoing { pieces: pieces.clone(), piece: Vec::with_capacity(PIECE) };
        let exported = store.export(&name, &mut out).map_err(|error| error.to_string());
        if let Err(error) = exported.and_then(|()| out.flush().map_err(|error| error.to_string())) {
            log::warn!("the export of {name} broke off: {error}");
            let _ = pieces.blocking_send(Err(io::Error::other(error)));
        }
    });
    *answer.body_mut() = AnswerBody::channel(body);
    Ok(answer)
}

struct Outgoing {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads it any more");
        self.pieces.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

/// `POST /models/load`.
pub async fn load(ask: &Ask, mut body: Incoming) -> Answer {
    let (pieces, incoming) = mpsc::channel(4);
    let silence = Duration::from_secs(ask.shared.config.limits.body_seconds);
    let store = ask.shared.store.clone();
    let loading = tokio::spawn(async move {
        blocking(&store, move |store| store.load(Pieces { pieces: incoming, piece: Bytes::new() })).await
    });
    loop {
        let piece = match tokio::time::timeout(silence, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame.into_data().map(Ok).unwrap_or_else(|_| Ok(Bytes::new())),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no bytes for {silence:?}"))),
        };
        let broken = piece.is_err();
        // A closed channel: the store has read enough to know, which its result tells.
        if pieces.send(piece).await.is_err() || broken {
            break;
        }
    }
    drop(pieces);
    let loaded =
        loading.await.map_err(|error| DialectError::new(ErrorKind::Internal, error.to_string()))??;
    ask.shared.runner.refresh();
    let mut text = String::new();
    for model in &loaded {
        let names = if model.names.is_empty() { model.digest.to_string() } else { model.names.join(", ") };
        text += &Event::Success(format!("{names} is here")).to_line(pontoon_models::Transfer::Pull);
        text.push('\n');
    }
    Ok(reply::bytes(StatusCode::OK, "application/json", text))
}

struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        into[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}
