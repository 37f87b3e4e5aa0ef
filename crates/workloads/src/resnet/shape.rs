//! Owns the shape of the network: which convolutions follow one another, and how large they are.

use super::Config;
use crate::nn::Conv;

/// Blocks in each of the four stages, and the channels inside them.
const STAGES: [(u32, u32); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
/// A block gives out so many times the channels it has inside.
const EXPANSION: u32 = 4;

/// A bottleneck: down to few channels, over space, and up again, with a way around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub reduce: Conv,
    pub spatial: Conv,
    pub expand: Conv,
    /// What the way around does where the size changes.
    pub shortcut: Option<Conv>,
}

/// The first convolution, 7x7.
pub(super) fn stem(config: &Config) -> Conv {
    Conv {
        batch: config.batch,
        side: config.image,
        channels: 3,
        outputs: 64 / config.width_divisor,
        kernel: 7,
        stride: 2,
    }
}

/// The pooling after it, 3x3.
pub(super) fn pool(config: &Config) -> Conv {
    let stem = stem(config);
    Conv { side: stem.out_side(), channels: stem.outputs, kernel: 3, ..stem }
}

/// Channels that reach the last, fully connected layer.
pub(super) fn features(config: &Config) -> u32 {
    STAGES[3].1 * EXPANSION / config.width_divisor
}

/// All 16 blocks.
pub(super) fn blocks(config: &Config) -> Vec<Block> {
    let pool = pool(config);
    let mut side = pool.out_side();
    let mut channels = pool.outputs;
    let mut blocks = Vec::new();
    for (stage, (count, inside)) in STAGES.into_iter().enumerate() {
        for index in 0..count {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let from = Conv { side, channels, ..pool };
            let block = block(from, inside / config.width_divisor, stride);
            side = block.expand.side;
            channels = block.expand.outputs;
            blocks.push(block);
        }
    }
    blocks
}

fn block(from: Conv, inside: u32, stride: u32) -> Block {
    let reduce = Conv { outputs: inside, kernel: 1, stride: 1, ..from };
    let spatial = Conv { channels: inside, kernel: 3, stride, ..reduce };
    let expand = Conv { side: spatial.out_side(), channels: inside, outputs: inside * EXPANSION, ..reduce };
    let shortcut = Conv { outputs: expand.outputs, kernel: 1, stride, ..from };
    let changes = stride != 1 || from.channels != expand.outputs;
    Block { reduce, spatial, expand, shortcut: changes.then_some(shortcut) }
}

/// Every convolution, in the order in which weights are made for them.
pub(super) fn convs(config: &Config) -> Vec<Conv> {
    let of_block = |b: Block| [Some(b.reduce), Some(b.spatial), Some(b.expand), b.shortcut];
    let blocks = blocks(config).into_iter().flat_map(of_block).flatten();
    std::iter::once(stem(config)).chain(blocks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_network_is_resnet_50() {
        let config = Config::full();
        let convs = convs(&config);
        // 53 convolutions and one fully connected layer; 50 counts no shortcuts.
        assert_eq!(convs.len(), 53);
        let weights: u32 = convs.iter().map(|c| c.depth() * c.outputs).sum();
        assert_eq!(weights + features(&config) * 1000, 25_502_912);
        assert_eq!(blocks(&config)[15].expand.out_side(), 7);
        // 4.1 billion multiply-adds, as published.
        assert_eq!(config.flops() / 2 / 100_000_000, 40);
    }
}
