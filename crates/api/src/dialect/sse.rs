//! Cutting an engine's byte stream into server-sent events, whatever the chunking, and writing events.

use std::borrow::Cow;

use serde::Serialize;

use super::limits;

/// One complete event.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event as it was sent, blank line included.
    pub raw: &'a [u8],
    /// Its `data:` lines joined by newlines; empty for comments.
    pub data: Cow<'a, [u8]>,
}

/// The engine sent an event longer than [`limits::EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Keeps the bytes of an event that is not complete yet.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: Vec<u8>,
    /// Bytes of `rest` that are known to hold no complete event.
    seen: usize,
}

impl Splitter {
    /// Calls `each` for every event that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), Overflow> {
        if self.rest.is_empty() {
            let used = split(bytes, 0, &mut each);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let from = self.seen;
            self.rest.extend_from_slice(bytes);
            let used = split(&self.rest, from, &mut each);
            self.rest.drain(..used);
        }
        self.seen = self.rest.len();
        if self.rest.len() > limits::EVENT { Err(Overflow) } else { Ok(()) }
    }

    /// What is left when the stream has ended: an event whose blank line never came.
    pub fn rest(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.rest)
    }
}

/// Calls `each` for each event of `bytes`; the search for the first end starts at `from`. Returns the bytes used.
fn split(bytes: &[u8], from: usize, each: &mut impl FnMut(Event<'_>)) -> usize {
    let mut start = 0;
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\n', &bytes[at..]) {
        let newline = at + found;
        at = newline + 1;
        // The line that ends here is empty where another line end is right before it.
        let before = &bytes[start..newline];
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        if before.is_empty() || before.ends_with(b"\n") {
            let raw = &bytes[start..at];
            each(Event { raw, data: data(raw) });
            start = at;
        }
    }
    start
}

/// The joined `data:` lines of one event, each of which ends.
fn data(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut first = true;
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', raw) {
        let line = &raw[start..end];
        start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if first {
            joined = Cow::Borrowed(value);
            first = false;
        } else {
            let all = joined.to_mut();
            all.push(b'\n');
            all.extend_from_slice(value);
        }
    }
    joined
}

/// Appends an event with a name, as Anthropic and the Responses API send them.
pub fn write_named(out: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    write(out, data);
}

/// Appends an event without a name.
pub fn write(out: &mut Vec<u8>, data: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    append(out, data);
    out.extend_from_slice(b"\n\n");
}

/// Appends one line of newline-delimited JSON.
pub fn write_line(out: &mut Vec<u8>, data: &impl Serialize) {
    append(out, data);
    out.push(b'\n');
}

fn append(out: &mut Vec<u8>, data: &impl Serialize) {
    // Writing our own types into memory fails only for maps with keys that are not strings; there are none.
    if let Err(error) = serde_json::to_writer(&mut *out, data) {
        log::error!("an event could not be written: {error}");
    }
}
