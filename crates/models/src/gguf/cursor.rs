//! Owns reading GGUF's primitives from a file that may lie: every length is held against what is
//! left of the file and against a limit before anything is allocated.

use std::io::{self, Read};

/// Why a file cannot be read on; the caller adds the file's name.
pub(super) type Fault = String;

/// Reads forward and knows how many bytes can still come.
pub(super) struct Cursor<R> {
    reader: R,
    position: u64,
    length: u64,
}

impl<R: Read> Cursor<R> {
    pub(super) fn new(reader: R, length: u64) -> Self {
        Self { reader, position: 0, length }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn left(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        if buffer.len() as u64 > self.left() {
            return Err(self.cut(buffer.len() as u64));
        }
        self.reader.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut(buffer.len() as u64),
            _ => format!("reading it failed: {error}"),
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn cut(&self, wanted: u64) -> Fault {
        format!(
            "it ends at byte {}, where {wanted} more bytes should follow byte {}: the file is cut short or damaged",
            self.length, self.position
        )
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `count` bytes; the caller has held `count` against its own limit.
    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Fault> {
        if count > self.left() {
            return Err(self.cut(count));
        }
        let mut bytes = vec![0; usize::try_from(count).map_err(|_| self.cut(count))?];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Appends a string's bytes to `into` and says how many they are.
    pub(super) fn append_string(
        &mut self,
        into: &mut Vec<u8>,
        limit: u64,
        what: &str,
    ) -> Result<usize, Fault> {
        let length = self.string_length(limit, what)?;
        let start = into.len();
        into.resize(start + length, 0);
        self.fill(&mut into[start..])?;
        Ok(length)
    }

    /// A string that must be UTF-8.
    pub(super) fn text(&mut self, limit: u64, what: &str) -> Result<String, Fault> {
        let length = self.string_length(limit, what)?;
        let bytes = self.bytes(length as u64)?;
        String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn string_length(&mut self, limit: u64, what: &str) -> Result<usize, Fault> {
        let length = self.u64()?;
        if length > limit {
            return Err(format!("{what} has {length} bytes, the limit is {limit}"));
        }
        if length > self.left() {
            return Err(self.cut(length));
        }
        Ok(length as usize)
    }
}
