//! Owns the look at the weights themselves: values that are no numbers make a model that answers
//! nonsense, or an engine that gives up in the middle of a request.
//!
//! It reads the whole file, so it is done once, when a model is packaged or has been pulled, not
//! at each load.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use super::{
    CheckError, Header, Tensor,
    tensor_type::{BF16, F16, F32},
};

/// Reads all weights of a checked file and refuses infinities and NaNs, as far as the tensor's type
/// lets them be seen: in plain floats and in the half-precision scales of quantised blocks.
pub fn check_values(path: &Path, header: &Header) -> Result<(), CheckError> {
    let refuse = |reason: String| CheckError::new(path, reason);
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    for tensor in &header.tensors {
        let blocks = blocks_of(tensor);
        reader
            .seek(SeekFrom::Start(header.data_start + tensor.offset))
            .map_err(|error| refuse(error.to_string()))?;
        match first_fault(&mut reader, tensor, blocks) {
            Ok(None) => {}
            Ok(Some(block)) => {
                return Err(refuse(format!(
                    "the tensor `{}` holds a value that is no finite number (block {block})",
                    tensor.name
                )));
            }
            Err(error) => {
                return Err(refuse(format!("reading the tensor `{}` failed: {error}", tensor.name)));
            }
        }
    }
    Ok(())
}

fn blocks_of(tensor: &Tensor) -> u64 {
    tensor.bytes / tensor.kind.bytes
}

/// The number of the first block with a fault.
fn first_fault(reader: &mut impl Read, tensor: &Tensor, blocks: u64) -> std::io::Result<Option<u64>> {
    let size = tensor.kind.bytes as usize;
    let at_once = ((1 << 18) / size).max(1) as u64;
    let mut buffer = vec![0; size * at_once.min(blocks) as usize];
    let mut done = 0;
    while done < blocks {
        let now = at_once.min(blocks - done);
        let bytes = &mut buffer[..size * now as usize];
        reader.read_exact(bytes)?;
        if let Some(at) = bytes.chunks_exact(size).position(|block| !is_finite(tensor, block)) {
            return Ok(Some(done + at as u64));
        }
        done += now;
    }
    Ok(None)
}

fn is_finite(tensor: &Tensor, block: &[u8]) -> bool {
    let half =
        |at: usize, exponent: u16| u16::from_le_bytes([block[at], block[at + 1]]) & exponent != exponent;
    match tensor.kind.id {
        // Masks hold infinities on purpose, but no model stores one; NaN and infinity are all-ones exponents.
        F32 => half(2, 0x7f80),
        BF16 => half(0, 0x7f80),
        F16 => half(0, 0x7c00),
        _ => tensor.kind.scales.iter().all(|at| half(*at, 0x7c00)),
    }
}
