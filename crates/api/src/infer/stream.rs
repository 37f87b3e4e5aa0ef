//! An answer on its way from an engine to its caller: polled by the caller's own connection, so that there
//! is no task and no channel between the two, and dropped with it.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::account::{Account, Outcome};
use super::engine::{Carrier, Trouble};
use crate::dialect::{DialectError, End, ErrorKind, StreamTranslator};

/// A streamed answer.
pub struct Stream {
    /// `None` once it is over.
    source: Option<Carrier>,
    translator: StreamTranslator,
    account: Account,
    out: Vec<u8>,
}

impl Stream {
    /// Puts one together.
    pub fn new(carrier: Carrier, translator: StreamTranslator, account: Account) -> Self {
        Self { source: Some(carrier), translator, account, out: Vec::new() }
    }

    /// The next bytes for the caller.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let Some(carrier) = &mut self.source else { return Poll::Ready(None) };
            match carrier.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    self.translator.push(self.account.elapsed(), data, &mut self.out);
                    self.pushed();
                }
                Poll::Ready(Some(Err(Trouble::Broken(error)))) => {
                    log::info!("an engine broke off in the middle of an answer: {error}");
                    let gone = "the engine broke off in the middle of this answer; try again";
                    self.end(Some(DialectError::new(ErrorKind::EngineFailed, gone)), false);
                }
                Poll::Ready(Some(Err(silent))) => {
                    self.end(Some(DialectError::new(ErrorKind::Timeout, silent.to_string())), false);
                }
                Poll::Ready(None) => self.end(None, true),
                Poll::Pending => return Poll::Pending,
            }
            if !self.out.is_empty() {
                self.account.answered(&self.out);
                return Poll::Ready(Some(Bytes::from(std::mem::take(&mut self.out))));
            }
        }
    }

    fn pushed(&mut self) {
        self.account.tokens(self.translator.tokens());
        if self.translator.ended() && self.translator.failed().is_some() {
            self.end(None, false);
        }
    }

    /// Writes the last events and closes the account. `whole`: the engine's answer was read to its end.
    fn end(&mut self, failure: Option<DialectError>, whole: bool) {
        let source = self.source.take();
        let end = failure.as_ref().map_or(End::Complete, End::Failed);
        self.translator.finish(self.account.elapsed(), end, &mut self.out);
        self.account.tokens(self.translator.tokens());
        if let Some(carrier) = source.filter(|_| whole) {
            carrier.finish();
        }
        if let Some(stored) = self.translator.take_stored() {
            self.account.keep(stored);
        }
        let (usage, failed) = (self.translator.usage(), self.translator.failed());
        let outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Ok };
        self.account.close(outcome, 200, usage, failed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.account.close(Outcome::Cancelled, 499, self.translator.usage(), None);
    }
}
