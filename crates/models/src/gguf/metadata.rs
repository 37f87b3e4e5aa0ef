//! Owns the key-value part of a GGUF file: its types, its limits and how it is read.

use std::{collections::BTreeMap, io::Read};

use super::cursor::{Cursor, Fault};

/// The most keys; real files have some dozens.
const MAX_KEYS: u64 = 16_384;
const MAX_KEY_BYTES: u64 = 1024;
/// The longest single text, a chat template or licence, in bytes.
const MAX_TEXT: u64 = 4 << 20;
/// The longest text in a list of texts, a token or merge, in bytes.
const MAX_LIST_TEXT: u64 = 64 << 10;
/// The longest list. Vocabularies have up to 300,000 tokens and about as many merges.
const MAX_LIST: u64 = 4 << 20;
/// All metadata together, in bytes.
const MAX_METADATA: u64 = 512 << 20;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(List),
}

/// A list of the metadata: all elements have one type.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    Texts(Texts),
    /// With the width of an element in bytes: engines cast some lists to a fixed width.
    Integers {
        width: u8,
        values: Vec<i64>,
    },
    Floats {
        width: u8,
        values: Vec<f64>,
    },
    Bools(Vec<bool>),
}

impl List {
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Integers { values, .. } => values.len(),
            Self::Floats { values, .. } => values.len(),
            Self::Bools(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Many texts in one allocation. They need not be UTF-8: byte-level vocabularies are not always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// All keys of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The text of a key, if it is one.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer of a key, if it is one and not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The number of a key as a float.
    pub fn f64(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The texts of a key, if it is a list of texts.
    pub fn texts(&self, key: &str) -> Option<&Texts> {
        match self.get(key)? {
            Value::List(List::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    /// The metadata as texts, lists of more than 50 elements left out: what Docker's configs hold.
    pub fn to_texts(&self) -> BTreeMap<String, String> {
        self.iter().filter_map(|(key, value)| Some((key.to_owned(), show(value)?))).collect()
    }
}

fn show(value: &Value) -> Option<String> {
    const MAX_SHOWN: usize = 50;
    fn join<T: ToString>(values: &[T]) -> String {
        values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
    }
    Some(match value {
        Value::Unsigned(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Float(value) => format!("{value:.6}"),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(list) if list.len() > MAX_SHOWN => return None,
        Value::List(List::Texts(texts)) => {
            texts.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ")
        }
        Value::List(List::Integers { values, .. }) => join(values),
        Value::List(List::Floats { values, .. }) => join(values),
        Value::List(List::Bools(values)) => join(values),
    })
}

/// Reads `count` keys.
pub(super) fn read<R: Read>(cursor: &mut Cursor<R>, count: u64) -> Result<Metadata, Fault> {
    if count > MAX_KEYS {
        return Err(format!("it has {count} metadata keys, the limit is {MAX_KEYS}"));
    }
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.text(MAX_KEY_BYTES, "a metadata key")?;
        let kind = cursor.u32()?;
        let value = read_value(cursor, kind, &key)?;
        if cursor.position() > MAX_METADATA {
            return Err(format!("its metadata has more than {MAX_METADATA} bytes"));
        }
        if map.contains_key(&key) {
            return Err(format!("the key `{}` occurs twice", shorten(&key)));
        }
        map.insert(key, value);
    }
    Ok(Metadata(map))
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn read_value<R: Read>(cursor: &mut Cursor<R>, kind: u32, key: &str) -> Result<Value, Fault> {
    match kind {
        8 => Ok(Value::Text(cursor.text(MAX_TEXT, &format!("`{}`", shorten(key)))?)),
        9 => Ok(Value::List(read_list(cursor, key)?)),
        _ => read_scalar(cursor, kind, key),
    }
}

fn read_scalar<R: Read>(cursor: &mut Cursor<R>, kind: u32, key: &str) -> Result<Value, Fault> {
    let width = width_of(kind).ok_or_else(|| format!("`{}` has the unknown type {kind}", shorten(key)))?;
    let bytes = cursor.bytes(u64::from(width))?;
    scalar(kind, &bytes).ok_or_else(|| format!("`{}` is a truth value other than 0 and 1", shorten(key)))
}

/// Bytes of a scalar type.
fn width_of(kind: u32) -> Option<u8> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// A scalar from exactly as many bytes as its type has.
fn scalar(kind: u32, bytes: &[u8]) -> Option<Value> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let raw = u64::from_le_bytes(wide);
    Some(match kind {
        0 | 2 | 4 | 10 => Value::Unsigned(raw),
        1 => Value::Signed(i64::from(raw as u8 as i8)),
        3 => Value::Signed(i64::from(raw as u16 as i16)),
        5 => Value::Signed(i64::from(raw as u32 as i32)),
        11 => Value::Signed(raw as i64),
        6 => Value::Float(f64::from(f32::from_bits(raw as u32))),
        12 => Value::Float(f64::from_bits(raw)),
        7 if raw < 2 => Value::Bool(raw == 1),
        _ => return None,
    })
}

fn read_list<R: Read>(cursor: &mut Cursor<R>, key: &str) -> Result<List, Fault> {
    let kind = cursor.u32()?;
    let count = cursor.u64()?;
    if count > MAX_LIST {
        return Err(format!("`{}` has {count} elements, the limit is {MAX_LIST}", shorten(key)));
    }
    if kind == 8 {
        return read_texts(cursor, count, key).map(List::Texts);
    }
    let width = width_of(kind)
        .ok_or_else(|| format!("`{}` is a list of the unsupported type {kind}", shorten(key)))?;
    let bytes = cursor.bytes(count * u64::from(width))?;
    let each = bytes.chunks_exact(usize::from(width)).map(|raw| scalar(kind, raw));
    Ok(match kind {
        7 => List::Bools(
            each.map(|value| value.map(|value| value == Value::Bool(true)))
                .collect::<Option<_>>()
                .ok_or_else(|| format!("`{}` has truth values other than 0 and 1", shorten(key)))?,
        ),
        6 | 12 => List::Floats { width, values: each.map(float).collect() },
        _ => List::Integers { width, values: each.map(integer).collect() },
    })
}

fn float(value: Option<Value>) -> f64 {
    match value {
        Some(Value::Float(value)) => value,
        _ => 0.0,
    }
}

fn integer(value: Option<Value>) -> i64 {
    match value {
        Some(Value::Unsigned(value)) => i64::try_from(value).unwrap_or(i64::MAX),
        Some(Value::Signed(value)) => value,
        _ => 0,
    }
}

fn read_texts<R: Read>(cursor: &mut Cursor<R>, count: u64, key: &str) -> Result<Texts, Fault> {
    // Each text has at least the eight bytes of its length.
    if count * 8 > cursor.left() {
        return Err(format!("`{}` has {count} elements, more than the file has room for", shorten(key)));
    }
    let mut texts = Texts { bytes: Vec::new(), ends: Vec::with_capacity(count as usize) };
    let what = format!("an element of `{}`", shorten(key));
    for _ in 0..count {
        cursor.append_string(&mut texts.bytes, MAX_LIST_TEXT, &what)?;
        texts.ends.push(texts.bytes.len());
    }
    Ok(texts)
}
