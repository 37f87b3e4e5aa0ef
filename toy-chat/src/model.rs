//! The network: a llama decoder with grouped-query attention, tied embeddings and llama.cpp's tensor names.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{RmsNorm, ops, rotary_emb::rope_i_slow};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// The sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Numbers that describe one position; a multiple of 32, the block of Q8_0.
    pub width: usize,
    /// Blocks of attention and feed-forward.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, each shared by `heads / kv_heads` queries.
    pub kv_heads: usize,
    /// Inner width of the feed-forward layers; a multiple of 32.
    pub feed_forward: usize,
    /// Base of the rotary position encoding.
    pub rope_base: f32,
    /// Added under the root of the norms.
    pub norm_epsilon: f32,
}

impl Config {
    /// The shipped model's sizes, about 0.75 million parameters.
    pub fn toy(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            width: 128,
            blocks: 4,
            heads: 4,
            kv_heads: 2,
            feed_forward: 320,
            rope_base: 10_000.0,
            norm_epsilon: 1e-5,
        }
    }

    /// Numbers in one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// The matrices: name, rows (outputs), columns (inputs), and the spread of their first values.
    fn matrices(&self) -> Vec<(String, usize, usize, f32)> {
        let (queries, keys) = (self.heads * self.head_width(), self.kv_heads * self.head_width());
        // What a block adds to its input starts small, so that the blocks do not drown the embedding.
        let (inner, last) = (0.08, 0.03);
        let mut all = vec![("token_embd.weight".to_owned(), self.vocabulary, self.width, 0.05)];
        for block in 0..self.blocks {
            all.extend(
                [
                    ("attn_q", queries, self.width, inner),
                    ("attn_k", keys, self.width, inner),
                    ("attn_v", keys, self.width, inner),
                    ("attn_output", self.width, queries, last),
                    ("ffn_gate", self.feed_forward, self.width, inner),
                    ("ffn_up", self.feed_forward, self.width, inner),
                    ("ffn_down", self.width, self.feed_forward, last),
                ]
                .map(|(part, rows, columns, spread)| (in_block(block, part), rows, columns, spread)),
            );
        }
        all
    }

    fn norms(&self) -> Vec<String> {
        let blocks = (0..self.blocks).flat_map(|at| [in_block(at, "attn_norm"), in_block(at, "ffn_norm")]);
        blocks.chain(["output_norm.weight".to_owned()]).collect()
    }
}

fn in_block(block: usize, part: &str) -> String {
    format!("blk.{block}.{part}.weight")
}

/// Fresh parameters by name: matrices of normal deviates, norms of ones.
pub fn parameters(config: &Config, seed: u64) -> candle_core::Result<Vec<(String, Var)>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all = Vec::new();
    for (name, rows, columns, spread) in config.matrices() {
        let normal = Normal::new(0.0, spread).expect("a spread is finite");
        let values: Vec<f32> = (0..rows * columns).map(|_| normal.sample(&mut rng)).collect();
        all.push((name, Var::from_vec(values, (rows, columns), &Device::Cpu)?));
    }
    for name in config.norms() {
        all.push((name, Var::ones(config.width, DType::F32, &Device::Cpu)?));
    }
    Ok(all)
}

struct Block {
    attention_norm: RmsNorm,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_output: Tensor,
    feed_forward_norm: RmsNorm,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// The network over a set of parameters; training changes them in place.
pub struct Model {
    config: Config,
    embedding: Tensor,
    blocks: Vec<Block>,
    output_norm: RmsNorm,
}

impl Model {
    /// Builds the network over `tensors`, which go by llama.cpp's names.
    pub fn new(config: Config, tensors: &HashMap<String, Tensor>) -> candle_core::Result<Self> {
        let tensor = |name: &str| match tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("there is no tensor {name}"),
        };
        let norm = |name: &str| tensor(name).map(|scale| RmsNorm::new(scale, config.norm_epsilon.into()));
        let block = |at: usize| -> candle_core::Result<Block> {
            Ok(Block {
                attention_norm: norm(&in_block(at, "attn_norm"))?,
                queries: tensor(&in_block(at, "attn_q"))?,
                keys: tensor(&in_block(at, "attn_k"))?,
                values: tensor(&in_block(at, "attn_v"))?,
                attention_output: tensor(&in_block(at, "attn_output"))?,
                feed_forward_norm: norm(&in_block(at, "ffn_norm"))?,
                gate: tensor(&in_block(at, "ffn_gate"))?,
                up: tensor(&in_block(at, "ffn_up"))?,
                down: tensor(&in_block(at, "ffn_down"))?,
            })
        };
        Ok(Self {
            config,
            embedding: tensor("token_embd.weight")?,
            blocks: (0..config.blocks).map(block).collect::<candle_core::Result<_>>()?,
            output_norm: norm("output_norm.weight")?,
        })
    }

    /// Scores of every token after each position: `tokens` is (rows, length), `mask` (rows, length, length)
    /// is 0 where a position may look and -∞ elsewhere, the result (rows, length, vocabulary).
    pub fn forward(&self, tokens: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let (rows, length) = tokens.dims2()?;
        let rotation = self.rotation(length)?;
        let mask = mask.unsqueeze(1)?;
        let embedded = self.embedding.embedding(&tokens.flatten_all()?)?;
        let mut state = embedded.reshape((rows, length, self.config.width))?;
        for block in &self.blocks {
            let seen =
                self.attention(block, &block.attention_norm.forward_diff(&state)?, &mask, &rotation)?;
            state = (state + seen)?;
            state = (&state + feed_forward(block, &block.feed_forward_norm.forward_diff(&state)?)?)?;
        }
        linear(&self.output_norm.forward_diff(&state)?, &self.embedding)
    }

    /// Cosines and sines of the rotary encoding, (length, head width / 2) each.
    fn rotation(&self, length: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let width = self.config.head_width();
        let frequency = |pair: usize| self.config.rope_base.powf(-2.0 * pair as f32 / width as f32);
        let angles: Vec<f32> = (0..length)
            .flat_map(|position| (0..width / 2).map(move |pair| position as f32 * frequency(pair)))
            .collect();
        let angles = Tensor::from_vec(angles, (length, width / 2), &Device::Cpu)?;
        Ok((angles.cos()?, angles.sin()?))
    }

    fn attention(
        &self,
        block: &Block,
        input: &Tensor,
        mask: &Tensor,
        (cosines, sines): &(Tensor, Tensor),
    ) -> candle_core::Result<Tensor> {
        let Config { width, heads, kv_heads, .. } = self.config;
        let head_width = self.config.head_width();
        let (rows, length, _) = input.dims3()?;
        let split = |tensor: Tensor, heads: usize| {
            tensor.reshape((rows, length, heads, head_width))?.transpose(1, 2)?.contiguous()
        };
        let share = |tensor: Tensor| {
            let sharers = heads / kv_heads;
            let shape = (rows, kv_heads, sharers, length, head_width);
            tensor.unsqueeze(2)?.broadcast_as(shape)?.reshape((rows, heads, length, head_width))
        };
        let queries = rope_i_slow(&split(linear(input, &block.queries)?, heads)?, cosines, sines)?;
        let keys = rope_i_slow(&split(linear(input, &block.keys)?, kv_heads)?, cosines, sines)?;
        let values = share(split(linear(input, &block.values)?, kv_heads)?)?.contiguous()?;
        let scores = queries.matmul(&share(keys)?.transpose(2, 3)?.contiguous()?)?;
        let scores = (scores * (1.0 / (head_width as f64).sqrt()))?.broadcast_add(mask)?;
        let seen = ops::softmax(&scores, D::Minus1)?.matmul(&values)?;
        let joined = seen.transpose(1, 2)?.contiguous()?.reshape((rows, length, width))?;
        linear(&joined, &block.attention_output)
    }
}

fn feed_forward(block: &Block, input: &Tensor) -> candle_core::Result<Tensor> {
    let gated = (linear(input, &block.gate)?.silu()? * linear(input, &block.up)?)?;
    linear(&gated, &block.down)
}

/// `input` (rows, length, columns) times the transpose of `weight`. One flat product: candle would otherwise
/// broadcast the weight over the rows.
fn linear(input: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let (rows, length, columns) = input.dims3()?;
    input.reshape((rows * length, columns))?.matmul(&weight.t()?)?.reshape((rows, length, weight.dim(0)?))
}
