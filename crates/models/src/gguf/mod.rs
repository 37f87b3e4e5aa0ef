//! Owns GGUF files: reading their header and deciding whether an engine may see them.
//!
//! Engines abort or worse on damaged files, and a model file comes from anywhere. [`read`] holds
//! every length to a limit and to the file's own size. [`check`] adds what the engine takes on
//! trust: that counts are sane, lists are as long as they must be, tensors lie inside the file.

mod adapter;
mod arch;
mod check;
mod cursor;
mod facts;
mod metadata;
mod projector;
mod shards;
pub(crate) mod template;
mod tensor_type;
mod tokenizer;
mod values;

#[cfg(test)]
pub(crate) mod forge;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use cursor::{Cursor, Fault};

pub use adapter::check_adapter;
pub use check::{Checked, check, check_shards};
pub use facts::{Facts, Mode, Pooling};
pub use metadata::{List, Metadata, Texts, Value};
pub use projector::check_projector;
pub use shards::{ShardName, complete_shards};
pub use tensor_type::{TensorType, file_type_name, tensor_type};
pub use values::check_values;

const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
/// The most tensors; the largest models have some thousands.
const MAX_TENSORS: u64 = 65_536;
/// The longest tensor name that ggml holds, in bytes.
const MAX_TENSOR_NAME: u64 = 63;
/// The largest alignment, in bytes.
const MAX_ALIGNMENT: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Why a model file is refused: one sentence with the value and the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model file {} is refused: {reason}", .file.display())]
pub struct CheckError {
    pub file: PathBuf,
    pub reason: String,
}

impl CheckError {
    pub(crate) fn new(file: &Path, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), reason: reason.into() }
    }
}

/// What stands before the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    pub metadata: Metadata,
    pub tensors: Vec<Tensor>,
    /// Where the weights begin, in bytes from the file's start.
    pub data_start: u64,
    /// Bytes of the file.
    pub file_length: u64,
    /// In bytes.
    pub alignment: u64,
}

/// Where and how a tensor is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    /// Innermost first, as ggml counts; one to four.
    pub shape: Vec<u64>,
    pub kind: &'static TensorType,
    /// From the start of the weights, in bytes.
    pub offset: u64,
    /// Bytes of the values, without padding.
    pub bytes: u64,
}

impl Tensor {
    /// Number of values. The reader has made sure that it fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Header {
    /// `general.architecture`.
    pub fn architecture(&self) -> &str {
        self.metadata.str("general.architecture").unwrap_or_default()
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Reads the header of a file and makes sure that the tensors lie inside it.
pub fn read(path: &Path) -> Result<Header, CheckError> {
    let open = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    let (file, length) = open().map_err(|error| CheckError::new(path, error.to_string()))?;
    read_from(BufReader::with_capacity(1 << 18, file), length).map_err(|reason| CheckError::new(path, reason))
}

/// The same for bytes from anywhere.
fn read_from(reader: impl Read, length: u64) -> Result<Header, Fault> {
    let mut cursor = Cursor::new(reader, length);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64()?;
    let key_count = cursor.u64()?;
    if tensor_count > MAX_TENSORS {
        return Err(format!("it has {tensor_count} tensors, the limit is {MAX_TENSORS}"));
    }
    let metadata = metadata::read(&mut cursor, key_count)?;
    let alignment = alignment_of(&metadata)?;
    let mut tensors = Vec::with_capacity(tensor_count.min(1024) as usize);
    for _ in 0..tensor_count {
        tensors.push(read_tensor(&mut cursor)?);
    }
    let data_start = cursor.position().next_multiple_of(alignment);
    let header = Header { version, metadata, tensors, data_start, file_length: cursor.length(), alignment };
    check_places(&header)?;
    Ok(header)
}

fn read_version<R: Read>(cursor: &mut Cursor<R>) -> Result<u32, Fault> {
    if cursor.u32()? != MAGIC {
        return Err("it is not a GGUF file (the first four bytes are not `GGUF`)".to_owned());
    }
    match cursor.u32()? {
        version @ (2 | 3) => Ok(version),
        version if version.swap_bytes() <= 3 => {
            Err("it is a big-endian GGUF file; only little-endian ones run here".to_owned())
        }
        version => Err(format!("it has GGUF version {version}; 2 and 3 are known")),
    }
}

fn alignment_of(metadata: &Metadata) -> Result<u64, Fault> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value {
        Value::Unsigned(value) if value.is_power_of_two() && *value <= MAX_ALIGNMENT => Ok(*value),
        _ => Err(format!("its alignment is not a power of two up to {MAX_ALIGNMENT}")),
    }
}

fn read_tensor<R: Read>(cursor: &mut Cursor<R>) -> Result<Tensor, Fault> {
    let name = cursor.text(MAX_TENSOR_NAME, "a tensor's name")?;
    let dimensions = cursor.u32()?;
    if !(1..=4).contains(&dimensions) {
        return Err(format!("the tensor `{name}` has {dimensions} dimensions; 1 to 4 are possible"));
    }
    let shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
    let id = cursor.u32()?;
    let kind = tensor_type(id).ok_or_else(|| format!("the tensor `{name}` has the unknown type {id}"))?;
    let offset = cursor.u64()?;
    let bytes = tensor_bytes(&shape, kind).ok_or_else(|| {
        format!("the tensor `{name}` has the shape {shape:?}, which {} cannot hold", kind.name)
    })?;
    Ok(Tensor { name, shape, kind, offset, bytes })
}

/// Bytes of a tensor, unless a size is zero, too large or does not fill whole blocks.
fn tensor_bytes(shape: &[u64], kind: &TensorType) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size))?;
    if elements == 0 || elements > i64::MAX as u64 || !shape[0].is_multiple_of(kind.block) {
        return None;
    }
    (elements / kind.block).checked_mul(kind.bytes)
}

/// Tensors follow each other without gap or overlap, as engines insist, and end inside the file.
fn check_places(header: &Header) -> Result<(), Fault> {
    let room = header.file_length.saturating_sub(header.data_start);
    let mut names = HashSet::with_capacity(header.tensors.len());
    let mut expected = 0u64;
    for tensor in &header.tensors {
        let name = &tensor.name;
        if !names.insert(name.as_str()) {
            return Err(format!("the tensor `{name}` occurs twice"));
        }
        if tensor.offset != expected {
            return Err(format!("the tensor `{name}` begins at byte {}, not at {expected}", tensor.offset));
        }
        let end = expected.checked_add(tensor.bytes).filter(|end| *end <= room).ok_or_else(|| {
            format!(
                "the tensor `{name}` of {} bytes at {expected} does not fit into the file's {room} bytes of weights: the file is cut short or damaged",
                tensor.bytes
            )
        })?;
        expected = end.checked_next_multiple_of(header.alignment).ok_or("its tensors are too large")?;
    }
    Ok(())
}
