//! Reading hostile JSON: nesting depth, splitting a body into its fields, and typed access that names
//! the path, the value and the limit in every complaint.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{DialectError, ErrorKind};
use super::limits;

/// Refuses bodies that are too long or nested too deeply, before anything is parsed.
pub fn check(body: &[u8]) -> Result<(), DialectError> {
    if body.len() > limits::BODY {
        let text =
            format!("the request body is {} bytes long, the limit is {} bytes", body.len(), limits::BODY);
        return Err(DialectError::new(ErrorKind::TooLarge, text));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(DialectError::new(
            ErrorKind::InvalidRequest,
            "the request body is empty, send a JSON object",
        ));
    }
    if deeper_than(body, limits::DEPTH) {
        let text = format!("the request body is nested deeper than {} levels", limits::DEPTH);
        return Err(DialectError::new(ErrorKind::InvalidRequest, text));
    }
    if let Some(at) = half_a_character(body) {
        let shown = excerpt(&body[at..], 6);
        let text = format!(
            "the request body has {shown} at byte {at}, half of a pair of surrogates; send characters whole"
        );
        return Err(DialectError::new(ErrorKind::InvalidRequest, text));
    }
    Ok(())
}

/// Where an escape stands for half of a character beyond the first 65,536 (RFC 8259, section 7) without the other
/// half. A field that is passed on as it was sent is not read here, and engines refuse all of it.
fn half_a_character(body: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut past = 0;
    for at in memchr::memmem::find_iter(body, b"\\u") {
        let before = body[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if at < past || before % 2 == 1 {
            continue;
        }
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => past = at + 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether JSON text nests deeper than `max`. Text that is not JSON gets some answer; the parser refuses it later.
fn deeper_than(body: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'"' => at = string_end(body, at + 1),
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// Index of the quote that ends the string whose first byte is at `at`.
fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if body[at] == b'"' {
            return at;
        }
        at += 2;
    }
    body.len()
}

/// One field of a body: its name and the bytes of its value as they were sent.
pub type Field<'a> = (Cow<'a, str>, &'a RawValue);

/// Splits a JSON object into its fields without building their values.
pub fn fields(body: &[u8]) -> Result<Vec<Field<'_>>, DialectError> {
    struct Split;
    impl<'de> Visitor<'de> for Split {
        type Value = Vec<Field<'de>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out: Vec<Field<'de>> = Vec::with_capacity(16);
            while let Some(key) = map.next_key::<Key<'de>>()? {
                if out.iter().any(|(name, _)| *name == key.0) {
                    return Err(serde::de::Error::custom(format_args!(
                        "the field {:?} is there twice",
                        key.0
                    )));
                }
                if out.len() >= 256 {
                    return Err(serde::de::Error::custom("there are more than 256 fields"));
                }
                out.push((key.0, map.next_value()?));
            }
            Ok(out)
        }
    }
    check(body)?;
    let mut parser = serde_json::Deserializer::from_slice(body);
    let split = parser.deserialize_map(Split).and_then(|fields| parser.end().map(|()| fields));
    split.map_err(|error| not_json(&error))
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses a whole body as a JSON object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, DialectError> {
    check(body)?;
    match serde_json::from_slice(body).map_err(|error| not_json(&error))? {
        Value::Object(map) => Ok(map),
        other => Err(DialectError::new(
            ErrorKind::InvalidRequest,
            format!("the request body must be a JSON object, got {}", short(&other)),
        )),
    }
}

fn not_json(error: &serde_json::Error) -> DialectError {
    DialectError::new(
        ErrorKind::InvalidRequest,
        format!("the request body is not a valid JSON object: {error}"),
    )
}

/// Number of elements of a JSON array, or `None` where the text is something else.
pub fn count(raw: &RawValue) -> Option<usize> {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = usize;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    if !raw.get().starts_with('[') {
        return None;
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Count).ok()
}

/// Where a value is in a request; written as `messages[2].content`.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// The body itself.
    Root,
    /// A field of the parent.
    Key(&'a Path<'a>, &'a str),
    /// An element of the parent.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("the request body"),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A JSON object with the path that led to it. A `null` field counts as absent everywhere.
#[derive(Clone, Copy)]
pub struct Object<'v, 'p> {
    map: &'v Map<String, Value>,
    /// Where this object is.
    pub at: &'p Path<'p>,
}

impl<'v, 'p> Object<'v, 'p> {
    /// The body.
    pub fn root(map: &'v Map<String, Value>) -> Self {
        Self { map, at: &Path::Root }
    }

    /// `value` as an object.
    pub fn new(value: &'v Value, at: &'p Path<'p>) -> Result<Self, DialectError> {
        match value {
            Value::Object(map) => Ok(Self { map, at }),
            other => Err(wrong(at, "an object", other)),
        }
    }

    /// The fields.
    pub fn map(&self) -> &'v Map<String, Value> {
        self.map
    }

    /// The value of `key` unless it is absent or `null`.
    pub fn get(&self, key: &str) -> Option<&'v Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&'v str>, DialectError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&Path::Key(self.at, key), "a string", other)),
        }
    }

    /// A string that must be there.
    pub fn need_text(&self, key: &str) -> Result<&'v str, DialectError> {
        self.text(key)?.ok_or_else(|| missing(&Path::Key(self.at, key)))
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, DialectError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(&Path::Key(self.at, key), "true or false", other)),
        }
    }

    /// A whole number between `min` and `max`; `4.0` counts as 4.
    pub fn integer(&self, key: &str, min: i64, max: i64) -> Result<Option<i64>, DialectError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match whole(value).filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(wrong(&Path::Key(self.at, key), &format!("a whole number from {min} to {max}"), value))
            }
        }
    }

    /// A number between `min` and `max`.
    pub fn number(&self, key: &str, min: f64, max: f64) -> Result<Option<f64>, DialectError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(&Path::Key(self.at, key), &format!("a number from {min} to {max}"), value)),
        }
    }

    /// An array of at most `max` elements.
    pub fn list(&self, key: &str, max: usize) -> Result<Option<&'v [Value]>, DialectError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => list(value, &Path::Key(self.at, key), max).map(Some),
        }
    }

    /// A string, or an array of at most `max` strings.
    pub fn texts(&self, key: &str, max: usize) -> Result<Option<Vec<&'v str>>, DialectError> {
        let at = Path::Key(self.at, key);
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text])),
            Some(value @ Value::Array(_)) => {
                let items = list(value, &at, max)?;
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        item.as_str().ok_or_else(|| wrong(&Path::Index(&at, index), "a string", item))
                    })
                    .collect::<Result<_, _>>()
                    .map(Some)
            }
            Some(other) => Err(wrong(&at, "a string or an array of strings", other)),
        }
    }
}

/// `value` as an array of at most `max` elements.
pub fn list<'v>(value: &'v Value, at: &Path<'_>, max: usize) -> Result<&'v [Value], DialectError> {
    let Value::Array(items) = value else { return Err(wrong(at, "an array", value)) };
    if items.len() > max {
        let text = format!("{at} has {} elements, the limit is {max}", items.len());
        return Err(DialectError::invalid(at.to_string(), text));
    }
    Ok(items)
}

/// `value` as a whole number; JSON has only one kind of number, so `4.0` is 4.
pub fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        // 2^53: beyond it, floats no longer name single integers.
        (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
    })
}

/// A field that must be there and is not.
pub fn missing(at: &Path<'_>) -> DialectError {
    DialectError::invalid(at.to_string(), format!("{at} is required and missing"))
}

/// A field that has a value it cannot have.
pub fn wrong(at: &Path<'_>, expected: &str, got: &Value) -> DialectError {
    DialectError::invalid(at.to_string(), format!("{at} must be {expected}, got {}", short(got)))
}

/// A few characters of a value, for an error message.
pub fn short(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {} elements", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().nth(60).is_some() => {
            format!("{:?}… ({} bytes)", text.chars().take(60).collect::<String>(), text.len())
        }
        other => other.to_string(),
    }
}

/// The first `max` bytes of some output as printable text.
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
