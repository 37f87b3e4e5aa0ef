//! Connections: how many there may be, and the serving of one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::wire::{Phase, Wire};
use super::{Shared, handle, permits};
use crate::caller::Peer;
use crate::config::Limits;

/// Places for connections: in all, and of each caller.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    limits: Limits,
    of_caller: Mutex<HashMap<Arc<str>, usize>>,
    cut: watch::Sender<bool>,
}

/// A caller's place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    caller: Arc<str>,
}

impl Places {
    /// As many as the limits permit.
    pub fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(permits(limits.connections))),
            limits: *limits,
            of_caller: Mutex::default(),
            cut: watch::channel(false).0,
        }
    }

    /// A place for a connection that has just come in. `None`: all are taken.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().try_acquire_owned().ok()
    }

    /// A place among its caller's. `None`: the caller has all of its own.
    pub fn of(self: &Arc<Self>, caller: &Arc<str>) -> Option<Place> {
        let mut all = self.of_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(caller.clone()).or_default();
        if *taken >= self.limits.connections_per_caller {
            return None;
        }
        *taken += 1;
        Some(Place { places: self.clone(), caller: caller.clone() })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        permits(self.limits.connections) - self.all.available_permits()
    }

    /// Waits until none is taken.
    pub async fn empty(&self) {
        let all = u32::try_from(permits(self.limits.connections)).unwrap_or(u32::MAX);
        let _ = self.all.acquire_many(all).await;
    }

    /// Ends all connections now.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.of_caller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.caller) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// Serves one connection to its end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
    places: Arc<Places>,
    mut stopped: watch::Receiver<bool>,
) {
    let phase = Arc::new(Phase::default());
    let limits = shared.config.limits;
    let wire = TokioIo::new(Wire::new(stream, phase.clone(), limits));
    let mut cut = places.cut.subscribe();
    shared.metrics.connections().inc();
    let gauge = shared.clone();
    // One place among the caller's for as long as the connection lasts, taken with its first request.
    let place = Arc::new(tokio::sync::OnceCell::new());
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = phase.busy();
        let (shared, peer, places, place) = (shared.clone(), peer.clone(), places.clone(), place.clone());
        async move {
            // Who is kept out by a policy is told so by the gate, and has places like everybody.
            let find = || async {
                let facts = peer.facts(&shared.directory).await;
                places.of(&facts.map_or_else(|| "gone".into(), |facts| facts.tenant().into()))
            };
            let placed: &Option<Place> = place.get_or_init(find).await;
            let mut answer = match placed {
                Some(_) => handle::answer(shared, peer, request).await,
                None => handle::crowded(&shared, request.uri().path(), limits.connections_per_caller),
            };
            if placed.is_none() {
                answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer.map(|body| body.keeping(busy)))
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits.header_bytes).max_headers(100).header_read_timeout(None);
    let mut connection = std::pin::pin!(builder.serve_connection(wire, service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    log::debug!("a connection ended: {error}");
                }
                break;
            }
            _ = stopped.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = cut.wait_for(|cut| *cut) => break,
        }
    }
    gauge.metrics.connections().dec();
}
