//! Connections to engines that are kept between requests.
//!
//! A connection has no task of its own: whoever has a request on it drives it. So nothing is handed from
//! task to task for each token, and dropping the request closes the socket at once.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pontoon_engines::http::{self, Failure};
use pontoon_engines::{Notice, Serving};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Sleep;

/// Idle connections kept to one engine. An engine serves each with a thread, so they are few.
const MAX_IDLE: usize = 8;

/// Requests that one connection carries, and how long it may be idle: llama-server closes it unasked after
/// 100, and after five seconds.
const MAX_USES: u32 = 80;
const MAX_AGE: Duration = Duration::from_secs(4);

/// Idle connections to all engines, of which there are few.
#[derive(Debug, Clone, Default)]
pub struct Engines(Arc<Mutex<Vec<Connection>>>);

#[derive(Debug)]
struct Connection {
    http: http::Connection,
    patience: Patience,
    /// The engine at its other end.
    at: Arc<Serving>,
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
}

/// How long an engine may be silent. Its timer is set once and put off when it goes off too early, since setting
/// one costs more than all that is asked of it.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, heard: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Whether it is over; if not, whoever asks is woken when it is.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(context).is_ready() {
            let until = self.heard + self.limit;
            if until <= Instant::now() {
                return true;
            }
            self.timer.as_mut().reset(until.into());
        }
        false
    }
}

/// Why an engine's answer did not come, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The connection.
    #[error(transparent)]
    Broken(#[from] Failure),
    /// Nothing was heard for so long.
    #[error("the engine has been silent for {} s, which is the limit", .0.as_secs())]
    Silent(Duration),
}

impl Connection {
    async fn open(at: &Arc<Serving>, patience: Duration) -> Result<Self, Failure> {
        let http = http::Connection::open(&at.socket).await?;
        let (patience, home) = (Patience::new(patience), thread::current().id());
        Ok(Self { http, patience, at: at.clone(), uses: 0, used: Instant::now(), home })
    }

    async fn post(&mut self, path: &str, body: &[u8]) -> Result<u16, Trouble> {
        let Self { http, patience, .. } = self;
        patience.heard = Instant::now();
        let mut answered = pin!(http.post(path, body));
        let answered = poll_fn(|context| match answered.as_mut().poll(context) {
            Poll::Ready(answered) => Poll::Ready(answered.map_err(Trouble::from)),
            Poll::Pending if patience.is_over(context) => Poll::Ready(Err(Trouble::Silent(patience.limit))),
            Poll::Pending => Poll::Pending,
        });
        let status = answered.await?;
        self.patience.heard = Instant::now();
        Ok(status)
    }

    fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < MAX_AGE
    }

    /// Whether it may carry another request. Looks whether the engine has closed it meanwhile.
    fn usable(&self, now: Instant) -> bool {
        self.uses < MAX_USES && self.is_young(now) && self.http.usable()
    }
}

impl Carrier {
    /// The next piece of the answer; none at its end.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<&[u8], Trouble>>> {
        let Connection { http, patience, .. } = &mut self.connection;
        match http.poll_data(context) {
            Poll::Ready(data) => {
                patience.heard = Instant::now();
                Poll::Ready(data.map(|data| data.map_err(Trouble::from)))
            }
            Poll::Pending if patience.is_over(context) => {
                Poll::Ready(Some(Err(Trouble::Silent(patience.limit))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Appends the next piece of the answer, and says how long that is; none at its end.
    pub fn poll_into(
        &mut self,
        all: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, Trouble>> {
        let Connection { http, patience, .. } = &mut self.connection;
        match http.poll_into(all, context) {
            Poll::Ready(piece) => {
                patience.heard = Instant::now();
                Poll::Ready(piece.map_err(Trouble::from))
            }
            Poll::Pending if patience.is_over(context) => Poll::Ready(Err(Trouble::Silent(patience.limit))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The answer has been read to its end: the connection may carry another request.
    pub fn finish(self) {
        let Self { mut connection, engines } = self;
        let now = Instant::now();
        (connection.uses, connection.used) = (connection.uses + 1, now);
        if !connection.usable(now) {
            return;
        }
        let mut all = engines.lock();
        // Those of event loops that have nothing to do are in the way.
        all.retain(|kept| kept.is_young(now));
        if all.iter().filter(|kept| Arc::ptr_eq(&kept.at, &connection.at)).count() < MAX_IDLE {
            all.push(connection);
        }
    }
}

impl Engines {
    /// Posts a body to an engine that may be silent for so long; the status of its answer, and what carries the
    /// rest. A kept connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// [`Trouble`], where no answer began.
    pub async fn post(
        &self,
        at: &Arc<Serving>,
        path: &str,
        body: &[u8],
        patience: Duration,
    ) -> Result<(u16, Carrier), Trouble> {
        let mut kept = self.take(at);
        loop {
            let again = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(at, patience).await?,
            };
            match connection.post(path, body).await {
                Ok(status) => return Ok((status, Carrier { connection, engines: self.clone() })),
                Err(Trouble::Broken(_)) if again => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Forgets the connections to an engine that is gone.
    pub fn forget(&self, at: &Arc<Serving>) {
        self.lock().retain(|kept| !Arc::ptr_eq(&kept.at, at));
    }

    /// Drops the connections that engines have closed, as soon as any of them has ended.
    pub async fn follow(self, mut notices: broadcast::Receiver<Notice>) {
        while !matches!(notices.recv().await, Err(RecvError::Closed)) {
            let now = Instant::now();
            self.lock().retain(|kept| kept.usable(now));
        }
    }

    fn take(&self, at: &Arc<Serving>) -> Option<Connection> {
        let (here, now) = (thread::current().id(), Instant::now());
        let mut all = self.lock();
        loop {
            let mine = |kept: &Connection| Arc::ptr_eq(&kept.at, at) && kept.home == here;
            let at = all.iter().rposition(mine)?;
            let connection = all.swap_remove(at);
            if connection.usable(now) {
                return Some(connection);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(1200);

    /// An engine that answers each request so late, all on one connection; the last one never.
    fn engine(pauses: Vec<Duration>) -> (Arc<Serving>, std::path::PathBuf) {
        let folder = std::env::temp_dir().join(format!("pe-silent-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("engine.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for pause in pauses {
                while {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    line.len() > 2
                } {}
                reader.read_exact(&mut [0; 2]).unwrap();
                thread::sleep(pause);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            }
            thread::sleep(Duration::from_secs(30));
        });
        let at = Serving {
            socket,
            engine_model: String::new(),
            adapters: Vec::new(),
            digest: String::new(),
            model: "m".into(),
            engine: String::new(),
            context_size: 1,
        };
        (Arc::new(at), folder)
    }

    #[tokio::test]
    async fn an_engine_may_be_silent_for_its_time_in_each_request_and_not_longer() {
        let short = Duration::from_millis(500);
        let (at, folder) = engine(vec![Duration::ZERO, short, short]);
        let engines = Engines::default();
        for _ in 0..3 {
            let (status, mut carrier) = engines.post(&at, "/x", b"{}", LIMIT).await.unwrap();
            let mut all = Vec::new();
            while poll_fn(|context| carrier.poll_into(&mut all, context)).await.unwrap().is_some() {}
            assert_eq!((status, all.as_slice()), (200, &b"{}"[..]));
            carrier.finish();
            // While the connection is kept, its timer goes off.
            tokio::time::sleep(LIMIT).await;
            assert_eq!(engines.lock().len(), 1);
        }
        let begun = Instant::now();
        let trouble = engines.post(&at, "/x", b"{}", LIMIT).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Silent(LIMIT)), "{trouble}");
        let took = begun.elapsed();
        assert!(took >= LIMIT && took < 5 * LIMIT, "{took:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
