//! Compression of data on its way to the host, where it makes it smaller.

/// Fewest bytes that are compressed.
const SMALL: usize = 512;
/// Pieces that go as they are after one that did not get smaller: what follows is likely of the same kind.
const PAUSE: u32 = 16;

/// Room for compressed data, and whether it is worth trying.
#[derive(Debug, Default)]
pub(super) struct Packing {
    block: Vec<u8>,
    pause: u32,
}

impl Packing {
    /// The bytes as an LZ4 block, if that is smaller by at least an eighth.
    pub fn pack(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        if bytes.len() < SMALL {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        self.block.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
        let len = lz4_flex::block::compress_into(bytes, &mut self.block).ok()?;
        if len > bytes.len() / 8 * 7 {
            self.pause = PAUSE;
            return None;
        }
        Some(&self.block[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_smaller_is_left_alone_for_a_while() {
        let mut packing = Packing::default();
        let even = vec![7; 4096];
        let mut state = 1u32;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let block = packing.pack(&even).unwrap().to_vec();
        assert_eq!(lz4_flex::block::decompress(&block, 4096).unwrap(), even);
        assert!(packing.pack(&even[..100]).is_none(), "too small");
        assert!(packing.pack(&noise).is_none());
        assert_eq!((0..20).filter(|_| packing.pack(&even).is_some()).count(), 20 - PAUSE as usize);
    }
}
