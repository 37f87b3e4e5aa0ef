//! HTTP to engines: keep-alive connections over their unix sockets.
//!
//! A connection has no task of its own: whoever has a request on it drives it. So nothing is handed from
//! task to task for each token, and dropping the request closes the socket at once.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use pontoon_engines::Notice;
use tokio::net::UnixStream;
use tokio::sync::broadcast::{self, error::RecvError};

/// Idle connections kept to one engine. An engine serves each with a thread, so they are few.
const MAX_IDLE: usize = 8;

/// Requests that one connection carries, and how long it may be idle: llama-server closes it unasked after
/// 100, and after five seconds.
const MAX_USES: u32 = 80;
const MAX_AGE: Duration = Duration::from_secs(4);

/// Idle connections to all engines.
#[derive(Debug, Clone, Default)]
pub struct Engines(Arc<Mutex<HashMap<PathBuf, Vec<Connection>>>>);

type Driver = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; `None` once it has ended.
    driver: Option<Pin<Box<Driver>>>,
    uses: u32,
    used: Instant,
    /// The thread whose event loop it belongs to; another's would wake that one for every byte.
    home: ThreadId,
}

/// A connection while it carries a request. Dropped before [`Carrier::finish`], it is closed at once, so
/// that the engine stops working.
#[derive(Debug)]
pub struct Carrier {
    connection: Connection,
    engines: Engines,
    socket: PathBuf,
}

impl Connection {
    /// Moves what can be moved.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(context)
        {
            if let Err(error) = ended {
                log::debug!("a connection to an engine ended: {error}");
            }
            self.driver = None;
        }
    }

    /// Whether it may carry another request. Looks whether the engine has closed it meanwhile.
    fn usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.uses < MAX_USES && self.used.elapsed() < MAX_AGE
    }
}

impl Carrier {
    /// The next piece of the answer.
    pub fn poll_data(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            self.connection.drive(context);
            return match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    // Trailers.
                    Err(_) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            };
        }
    }

    /// The answer has been read to its end: the connection may carry another request.
    pub fn finish(self) {
        let Self { mut connection, engines, socket } = self;
        connection.uses += 1;
        connection.used = Instant::now();
        if !connection.usable() {
            return;
        }
        let mut all = engines.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of event loops that have nothing to do are in the way.
        all.values_mut().for_each(|idle| idle.retain(|kept| kept.used.elapsed() < MAX_AGE));
        let idle = all.entry(socket).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

impl Engines {
    /// Posts a body to an engine. A kept connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// The connection's, where no answer began.
    pub async fn post(
        &self,
        socket: &Path,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Carrier), Failure> {
        if let Some(kept) = self.take(socket)
            && let Ok(answer) = self.exchange(kept, socket, path, body.clone()).await
        {
            return Ok(answer);
        }
        let fresh = connect(socket).await?;
        self.exchange(fresh, socket, path, body).await
    }

    /// Forgets the connections to an engine that is gone.
    pub fn forget(&self, socket: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(socket);
    }

    /// Drops the connections that engines have closed, as soon as any of them has ended.
    pub async fn follow(self, mut notices: broadcast::Receiver<Notice>) {
        while !matches!(notices.recv().await, Err(RecvError::Closed)) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, idle| {
                idle.retain_mut(Connection::usable);
                !idle.is_empty()
            });
        }
    }

    fn take(&self, socket: &Path) -> Option<Connection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.get_mut(socket)?;
        let here = thread::current().id();
        loop {
            let mut connection = idle.remove(idle.iter().rposition(|kept| kept.home == here)?);
            if connection.usable() {
                return Some(connection);
            }
        }
    }

    async fn exchange(
        &self,
        connection: Connection,
        socket: &Path,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Carrier), Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, "engine")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::Http(error.to_string()))?;
        let mut carrier = Carrier { connection, engines: self.clone(), socket: socket.to_owned() };
        let broken = |error: hyper::Error| Failure::Http(error.to_string());
        poll_fn(|context| {
            carrier.connection.drive(context);
            carrier.connection.sender.poll_ready(context)
        })
        .await
        .map_err(broken)?;
        let mut sending = std::pin::pin!(carrier.connection.sender.send_request(request));
        let answer = poll_fn(|context| {
            carrier.connection.drive(context);
            sending.as_mut().poll(context)
        });
        let answer = answer.await.map_err(broken)?;
        Ok((answer, carrier))
    }
}

async fn connect(socket: &Path) -> Result<Connection, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(Failure::Connect)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, driver) = handshake.map_err(|error| Failure::Http(error.to_string()))?;
    let home = thread::current().id();
    Ok(Connection { sender, driver: Some(Box::pin(driver)), uses: 0, used: Instant::now(), home })
}

/// Why an engine did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its socket cannot be reached.
    #[error("the engine cannot be reached: {0}")]
    Connect(std::io::Error),
    /// It broke off.
    #[error("the engine broke off: {0}")]
    Http(String),
}
