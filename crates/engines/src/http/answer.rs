//! An answer as its bytes say it: the head, and how its body is delimited (RFC 9112, sections 6 and 7).

use super::Failure;

/// A head that is not complete after so many bytes is given up.
pub const MAX_HEAD: usize = 16 << 10;

/// The same for a line between pieces of a body.
const MAX_LINE: usize = 8 << 10;

/// A head.
#[derive(Debug)]
pub struct Head {
    /// Status.
    pub status: u16,
    /// The body behind it.
    pub left: Left,
    /// The connection stays open behind that.
    pub kept: bool,
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It has ended.
    Nothing,
    /// So many bytes.
    Bytes(u64),
    /// All until the connection is closed.
    UntilClosed,
    /// A piece's length, then the piece.
    Length,
    /// So many bytes of this piece, and what follows a piece.
    Piece(u64),
    /// The end of a piece's line.
    Break,
    /// Trailers, of so many bytes at most, then the end.
    Trailers(usize),
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes of the body.
    Data(usize),
    /// So many that are none of the body.
    Skip(usize),
    /// More are needed to say that.
    More,
    /// The body has ended.
    End,
}

impl Head {
    /// The head at the beginning of these bytes and its length; none where they are not all of it.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Failure> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed = answer.parse(bytes).map_err(|error| Failure::Malformed(error.to_string()))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let status = answer.code.unwrap_or_default();
        let mut head = Self { status, left: Left::UntilClosed, kept: answer.version == Some(1) };
        for header in answer.headers.iter() {
            head.take(header.name, header.value)?;
        }
        if status < 200 || matches!(status, 204 | 304) {
            head.left = Left::Nothing;
        }
        head.kept &= head.left != Left::UntilClosed;
        Ok(Some((head, length)))
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Failure> {
        let shown = || Failure::Malformed(format!("{name}: {:?}", excerpt(value)));
        // The names differ in length from each other and from nearly all that engines send.
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => {
                self.kept &= !value.eq_ignore_ascii_case(b"close");
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let digits = value.iter().all(u8::is_ascii_digit).then_some(value);
                let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let length = Left::Bytes(number.ok_or_else(shown)?);
                match self.left {
                    Left::UntilClosed => self.left = length,
                    Left::Bytes(_) if self.left != length => return Err(shown()),
                    // Pieces say their own lengths.
                    _ => {}
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(shown());
                }
                self.left = Left::Length;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Left {
    /// Bytes that the body is known to have yet.
    pub fn expected(&self) -> usize {
        match self {
            Self::Bytes(count) | Self::Piece(count) => usize::try_from(*count).unwrap_or(0).min(16 << 20),
            _ => 0,
        }
    }

    /// What the next of these bytes are. Takes them as read.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, Failure> {
        match self {
            Self::Nothing | Self::Bytes(0) => {
                *self = Self::Nothing;
                return Ok(Next::End);
            }
            Self::Piece(0) => *self = Self::Break,
            _ => {}
        }
        if bytes.is_empty() {
            return Ok(Next::More);
        }
        match self {
            Self::Nothing | Self::UntilClosed => Ok(Next::Data(bytes.len())),
            Self::Bytes(count) | Self::Piece(count) => {
                let length = usize::try_from(*count).map_or(bytes.len(), |count| count.min(bytes.len()));
                *count -= length as u64;
                Ok(Next::Data(length))
            }
            Self::Length => self.length(bytes),
            Self::Break => self.line(bytes, |line| line.is_empty().then_some(Self::Length)),
            Self::Trailers(most) => {
                let most = *most;
                self.line(bytes, |line| match line.len() {
                    0 => Some(Self::Nothing),
                    length => Some(Self::Trailers(most.checked_sub(length)?)),
                })
            }
        }
    }

    fn length(&mut self, bytes: &[u8]) -> Result<Next, Failure> {
        match httparse::parse_chunk_size(bytes) {
            // Without a digit, it takes the length for 0.
            Ok(httparse::Status::Complete((line, count))) if bytes[0].is_ascii_hexdigit() => {
                *self = if count == 0 { Self::Trailers(MAX_HEAD) } else { Self::Piece(count) };
                Ok(Next::Skip(line))
            }
            Ok(httparse::Status::Partial) if bytes.len() < MAX_LINE => Ok(Next::More),
            _ => Err(Failure::Malformed(format!("{:?} is no piece's length", excerpt(bytes)))),
        }
    }

    /// A line, which says what follows; none where it must not be there.
    fn line(&mut self, bytes: &[u8], follows: impl FnOnce(&[u8]) -> Option<Self>) -> Result<Next, Failure> {
        let malformed = || Failure::Malformed(format!("{:?} behind a piece", excerpt(bytes)));
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() < MAX_LINE { Ok(Next::More) } else { Err(malformed()) };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        *self = follows(line).ok_or_else(malformed)?;
        Ok(Next::Skip(end + 1))
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned()
}
