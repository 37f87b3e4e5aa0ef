//! Owns downloading one blob: from where it stopped, as often as the connection breaks, to the
//! store's disk and through its digest at once.

use std::{sync::Arc, time::Duration};

use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::sync::mpsc;

use super::{
    blocking,
    endpoint::network,
    http::{Http, explain},
};
use crate::{
    Error, Result,
    manifest::Descriptor,
    progress::Meter,
    store::{Partial, Staging},
};

/// Pieces that wait for the disk; the network is slowed down by it, not the memory filled.
const WAITING_PIECES: usize = 32;

/// Asks for a blob; the closure adds the range. It returns an answer of whatever status.
pub(super) trait Source: Sync {
    fn ask(&self, range: Option<String>) -> impl Future<Output = Result<Response>> + Send;
    /// Who is asked, for messages.
    fn name(&self) -> &str;
}

/// Adds a range to a request.
pub(super) fn with_range(request: RequestBuilder, range: Option<&String>) -> RequestBuilder {
    match range {
        Some(range) => request.header(RANGE, range),
        None => request,
    }
}

/// Brings a blob into the store, or waits until another process that is at it has.
pub(super) async fn fetch(
    http: &Http,
    staging: &Arc<Staging>,
    blob: &Descriptor,
    source: &impl Source,
    mut meter: Meter,
) -> Result<()> {
    let mut again = true;
    loop {
        let (staged, wanted) = (staging.clone(), blob.clone());
        let opened = blocking(move || match staged.keep(&wanted)? {
            true => Ok(None),
            false => Ok(Some(staged.partial(&wanted)?)),
        });
        let partial = match opened.await? {
            None => {
                meter.set(blob.size);
                return Ok(());
            }
            // Somebody else is at it.
            Some(None) => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            }
            Some(Some(partial)) => partial,
        };
        let resumed = partial.length() > 0;
        let whole = continue_download(http, partial, source, &mut meter).await?;
        let staged = staging.clone();
        match blocking(move || staged.finish(whole)).await {
            // What lay here may have been damaged by a power cut: the next round begins anew.
            Err(Error::Digest { .. }) if resumed && again => again = false,
            other => return other,
        }
    }
}

/// Repeats until the blob has all its bytes. Only rounds that got no further count as failures.
async fn continue_download(
    http: &Http,
    mut partial: Partial,
    source: &impl Source,
    meter: &mut Meter,
) -> Result<Partial> {
    let mut failures = 0;
    loop {
        meter.set(partial.length());
        if partial.length() == partial.size() {
            return Ok(partial);
        }
        let before = partial.length();
        let detail;
        (partial, detail) = round(partial, source, meter).await?;
        let Some(detail) = detail else { continue };
        failures = if partial.length() > before { 0 } else { failures + 1 };
        if failures > http.options.retries {
            return Err(network(
                source.name(),
                format!("{detail} (after {} of {} bytes)", partial.length(), partial.size()),
            ));
        }
        log::debug!("{}: {detail}; continuing at byte {}", source.name(), partial.length());
        tokio::time::sleep(http.pause(failures, None).unwrap_or_default()).await;
    }
}

/// One request. A broken connection is told as a text; what came before it is kept.
async fn round(
    mut partial: Partial,
    source: &impl Source,
    meter: &mut Meter,
) -> Result<(Partial, Option<String>)> {
    let at = partial.length();
    let response = source.ask((at > 0).then(|| format!("bytes={at}-"))).await?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(at) => {}
        // The server does not know ranges, or what lies here does not fit what it has.
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            partial = blocking(move || partial.restart().map(|()| partial)).await?;
            if response.status() != StatusCode::OK {
                return Ok((partial, Some("it answered with another range than asked for".to_owned())));
            }
        }
        status => {
            let detail = format!("an unexpected answer to the request for {}", partial.digest());
            return Err(Error::Remote {
                registry: source.name().to_owned(),
                status: status.as_u16(),
                detail,
            });
        }
    }
    stream(partial, response, meter).await
}

fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Moves the body to the disk. Writing and hashing have a thread of their own.
async fn stream(
    partial: Partial,
    mut response: Response,
    meter: &mut Meter,
) -> Result<(Partial, Option<String>)> {
    let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(WAITING_PIECES);
    let mut received = partial.length();
    let writer = tokio::task::spawn_blocking(move || {
        let mut partial = partial;
        while let Some(piece) = receiver.blocking_recv() {
            partial.append(&piece)?;
        }
        Ok::<Partial, Error>(partial)
    });
    let mut broken = None;
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                received += piece.len() as u64;
                // The writer only goes away with an error, which is told below.
                if sender.send(piece).await.is_err() {
                    break;
                }
                meter.set(received);
            }
            Ok(None) => break,
            Err(error) => {
                broken = Some(explain(&error));
                break;
            }
        }
    }
    drop(sender);
    let partial = match writer.await {
        Ok(result) => result?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let short = partial.length() < partial.size();
    Ok((partial, broken.or_else(|| short.then(|| "the connection ended too early".to_owned()))))
}
