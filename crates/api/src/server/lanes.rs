//! Event loops for connections. Each is a thread with a runtime of its own, and a connection stays on its
//! thread: the request that comes in on it and what the engine answers wake no other one, which would cost
//! more than all of our work on them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// More of them have nothing to do: engines do the work.
const MAX_LANES: usize = 4;

/// The event loops; they end, with what is left of their connections, when this is dropped.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    /// Dropped, it ends the thread.
    _going: oneshot::Sender<()>,
}

impl Lanes {
    /// Starts one for each processor, two at least: a caller with a large request must not stop all others.
    ///
    /// # Errors
    /// The system's, if it starts no threads.
    pub fn start() -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let lanes: io::Result<Vec<Lane>> = (0..processors.clamp(2, MAX_LANES)).map(|_| lane()).collect();
        Ok(Self { lanes: lanes?, next: AtomicUsize::new(0) })
    }

    /// Serves a connection on one of them, in turn.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        self.lanes[at].handle.spawn(connection);
    }
}

fn lane() -> io::Result<Lane> {
    let (going, ended) = oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("http".into()).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(Ok(runtime.handle().clone()));
        let _ = runtime.block_on(ended);
        // Work that cannot be stopped does not keep the program.
        runtime.shutdown_background();
    })?;
    let handle = told.recv().map_err(io::Error::other)??;
    Ok(Lane { handle, _going: going })
}
