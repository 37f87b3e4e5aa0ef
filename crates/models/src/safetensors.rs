//! Owns the header of safetensors files: reading it within limits and making sure that it tells the
//! truth about the file.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use serde::Deserialize;

use crate::gguf::CheckError;

/// The longest header, in bytes; the format itself allows no more.
const MAX_HEADER: u64 = 100_000_000;
const MAX_TENSORS: usize = 1 << 18;

/// What stands before the weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Texts of the packager's own: `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Tensor>,
    /// Bytes of all tensors.
    pub data_bytes: u64,
}

/// One tensor, as the header describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Tensor {
    pub dtype: String,
    pub shape: Vec<u64>,
    /// Begin and end, from the start of the weights, in bytes.
    pub data_offsets: (u64, u64),
}

impl Tensor {
    /// Number of values. The check has made sure that it fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Header {
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// The type that holds most bytes: `BF16`.
    pub fn main_dtype(&self) -> Option<&str> {
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(&tensor.dtype).or_default() += tensor.data_offsets.1 - tensor.data_offsets.0;
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(dtype, _)| dtype)
    }
}

/// Bits of a value.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// Reads and checks a file's header. The weights themselves are any bytes and are not looked at.
pub fn check(path: &Path) -> Result<Header, CheckError> {
    read(path).map_err(|reason| CheckError::new(path, reason))
}

fn read(path: &Path) -> Result<Header, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut prefix = [0; 8];
    (&file).read_exact(&mut prefix).map_err(|_| "it is too short for a safetensors file".to_owned())?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > MAX_HEADER || header_length > length - 8 {
        return Err(format!(
            "its header should have {header_length} bytes; the file has {length}, the limit is {MAX_HEADER}: it is cut short or damaged"
        ));
    }
    let mut json = Vec::new();
    (&file).take(header_length).read_to_end(&mut json).map_err(|error| error.to_string())?;
    if json.len() as u64 != header_length || json.first() != Some(&b'{') {
        return Err("its header is not a JSON object".to_owned());
    }
    parse(&json, length - 8 - header_length)
}

fn parse(json: &[u8], room: u64) -> Result<Header, String> {
    let values: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|error| format!("its header is no valid JSON: {error}"))?;
    if values.len() > MAX_TENSORS {
        return Err(format!("it has {} tensors, the limit is {MAX_TENSORS}", values.len()));
    }
    let mut header = Header::default();
    for (name, value) in values {
        if name == "__metadata__" {
            header.metadata =
                serde_json::from_value(value).map_err(|_| "its metadata are not texts".to_owned())?;
            continue;
        }
        let tensor: Tensor =
            serde_json::from_value(value).map_err(|error| format!("the tensor `{name}`: {error}"))?;
        check_tensor(&name, &tensor)?;
        header.tensors.insert(name, tensor);
    }
    header.data_bytes = check_places(&header.tensors, room)?;
    Ok(header)
}

fn check_tensor(name: &str, tensor: &Tensor) -> Result<(), String> {
    let bits = bits(&tensor.dtype)
        .ok_or_else(|| format!("the tensor `{name}` has the unknown type `{}`", tensor.dtype))?;
    let elements = tensor.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let bytes = elements.and_then(|elements| elements.checked_mul(bits)).map(|bits| bits / 8);
    let (begin, end) = tensor.data_offsets;
    match end.checked_sub(begin) == bytes && bytes.is_some() {
        true => Ok(()),
        false => {
            Err(format!("the tensor `{name}` of the shape {:?} cannot lie at {begin} to {end}", tensor.shape))
        }
    }
}

/// Tensors fill the rest of the file without gap or overlap, as the format demands.
fn check_places(tensors: &BTreeMap<String, Tensor>, room: u64) -> Result<u64, String> {
    let mut places: Vec<(u64, u64, &str)> = tensors
        .iter()
        .map(|(name, tensor)| (tensor.data_offsets.0, tensor.data_offsets.1, name.as_str()))
        .collect();
    places.sort_unstable();
    let mut expected = 0;
    for (begin, end, name) in places {
        if begin != expected {
            return Err(format!("the tensor `{name}` begins at byte {begin}, not at {expected}"));
        }
        expected = end;
    }
    match expected == room {
        true => Ok(expected),
        false => Err(format!(
            "its tensors have {expected} bytes, but {room} follow the header: it is cut short or damaged"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn sample() -> Vec<u8> {
        let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.extend([7; 22]);
        bytes
    }

    fn check_bytes(bytes: &[u8]) -> Result<Header, CheckError> {
        let folder = pontoon_testbed::Scratch::new("safetensors").unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        check(&path)
    }

    #[test]
    fn reads_a_good_file() {
        let header = check_bytes(&sample()).unwrap();
        assert_eq!((header.parameters(), header.data_bytes, header.main_dtype()), (7, 22, Some("F32")));
    }

    #[test]
    fn refuses_lies_about_offsets() {
        let good = String::from_utf8_lossy(&sample()[8..]).into_owned();
        for (from, to) in [
            ("[0,16]", "[0,99]"),
            ("[16,22]", "[17,23]"),
            ("[16,22]", "[10,16]"),
            ("\"F32\"", "\"F33\""),
            ("[2,2]", "[4294967296,4294967296]"),
        ] {
            let json = good.split_once("}}").unwrap().0.to_owned() + "}}";
            let json = json.replacen(from, to, 1);
            let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
            bytes.extend(json.as_bytes());
            bytes.extend([7; 22]);
            assert!(check_bytes(&bytes).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn no_truncation_passes() {
        let good = sample();
        for length in 0..good.len() {
            assert!(check_bytes(&good[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_flipped_bit_panics(at in 0usize..160, bit in 0u8..8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = check_bytes(&bytes);
        }
    }
}
