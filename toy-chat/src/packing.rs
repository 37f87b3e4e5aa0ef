//! Batches: conversations as tokens with weights, packed into rows of one length that they share unseen.

use candle_core::{Device, Tensor};

use crate::{
    Error,
    chat::{Message, Role, TURN_END},
    tokenizer::Tokenizer,
};

/// What the model's own words count in the loss, and everybody else's: a little, so that it learns the
/// language of questions as well.
const ANSWER_WEIGHT: f32 = 1.0;
const OTHER_WEIGHT: f32 = 0.05;

/// A conversation's tokens and how much it counts to predict each.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// One weight for each token.
    pub weights: Vec<f32>,
}

impl Example {
    /// Turns a conversation into tokens, exactly as the chat template will write it.
    pub fn new(messages: &[Message], tokenizer: &Tokenizer) -> Result<Self, Error> {
        let mut example = Self { tokens: Vec::new(), weights: Vec::new() };
        for message in messages {
            let weight = if message.role == Role::Assistant { ANSWER_WEIGHT } else { OTHER_WEIGHT };
            example.push(tokenizer.encode(&message.header())?, 0.0);
            example.push(tokenizer.encode(&format!("{}{TURN_END}", message.content))?, weight);
            example.push(tokenizer.encode("\n")?, 0.0);
        }
        Ok(example)
    }

    fn push(&mut self, tokens: Vec<u32>, weight: f32) {
        self.weights.extend(std::iter::repeat_n(weight, tokens.len()));
        self.tokens.extend(tokens);
    }
}

/// One row of a batch.
#[derive(Default)]
struct Row {
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// Which conversation of the row a token belongs to.
    owners: Vec<usize>,
}

impl Row {
    fn push(&mut self, example: &Example, length: usize) {
        let owner = self.owners.last().map_or(0, |last| last + 1);
        let taken = example.tokens.len().min(length - self.tokens.len());
        self.tokens.extend(&example.tokens[..taken]);
        self.weights.extend(&example.weights[..taken]);
        self.owners.extend(std::iter::repeat_n(owner, taken));
        // No conversation is to be predicted from the one before.
        self.weights[self.tokens.len() - taken] = 0.0;
    }

    fn fill(&mut self, length: usize, filler: u32) {
        let missing = length - self.tokens.len();
        if missing > 0 {
            self.push(&Example { tokens: vec![filler; missing], weights: vec![0.0; missing] }, length);
        }
    }
}

/// What one step of training takes.
pub struct Batch {
    /// Token ids, (rows, length).
    pub inputs: Tensor,
    /// Where a position may look: back, and within its own conversation, (rows, length, length).
    pub mask: Tensor,
    /// The token after each position, (rows × length, 1).
    pub targets: Tensor,
    /// What each prediction counts, (rows × length); they sum to 1.
    pub weights: Tensor,
}

/// Packs a stream of examples into batches. Conversations share a row, as most are much shorter; one that is
/// longer than a row is cut.
pub struct Packer<I> {
    examples: I,
    /// Rows of a batch.
    rows: usize,
    /// Predictions of a row.
    length: usize,
    /// The token after the last conversation of a row.
    filler: u32,
    open: Row,
}

impl<I: Iterator<Item = Result<Example, Error>>> Packer<I> {
    /// Batches of `rows` rows of `length` predictions from an endless stream of examples.
    pub fn new(examples: I, rows: usize, length: usize, filler: u32) -> Self {
        Self { examples, rows, length, filler, open: Row::default() }
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Result<Batch, Error> {
        let rows = (0..self.rows).map(|_| self.next_row()).collect::<Result<Vec<_>, _>>()?;
        tensors(&rows, self.length)
    }

    fn next_row(&mut self) -> Result<Row, Error> {
        // The last token of a row is only predicted, never seen.
        let width = self.length + 1;
        loop {
            let example = self.examples.next().expect("the stream has no end")?;
            let full = !self.open.tokens.is_empty() && self.open.tokens.len() + example.tokens.len() > width;
            let finished = full.then(|| std::mem::take(&mut self.open));
            self.open.push(&example, width);
            if let Some(mut row) = finished {
                row.fill(width, self.filler);
                return Ok(row);
            }
        }
    }
}

fn tensors(rows: &[Row], length: usize) -> Result<Batch, Error> {
    let flat = |part: fn(&Row) -> &[u32], from: usize| -> Vec<u32> {
        rows.iter().flat_map(|row| part(row)[from..from + length].iter().copied()).collect()
    };
    let mut weights: Vec<f32> = rows.iter().flat_map(|row| row.weights[1..].iter().copied()).collect();
    let total: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    let mask: Vec<f32> = rows.iter().flat_map(|row| sight(&row.owners[..length])).collect();
    let (count, device) = (rows.len(), &Device::Cpu);
    Ok(Batch {
        inputs: Tensor::from_vec(flat(|row| &row.tokens, 0), (count, length), device)?,
        mask: Tensor::from_vec(mask, (count, length, length), device)?,
        targets: Tensor::from_vec(flat(|row| &row.tokens, 1), (count * length, 1), device)?,
        weights: Tensor::from_vec(weights, count * length, device)?,
    })
}

/// 0 where position `from` may look at position `to`, -∞ elsewhere; row by row.
fn sight(owners: &[usize]) -> impl Iterator<Item = f32> {
    (0..owners.len()).flat_map(move |from| {
        (0..owners.len()).map(
            move |to| {
                if to <= from && owners[to] == owners[from] { 0.0 } else { f32::NEG_INFINITY }
            },
        )
    })
}

/// The mask of one plain sequence, (1, length, length).
pub fn causal_mask(length: usize) -> candle_core::Result<Tensor> {
    Tensor::from_iter(sight(&vec![0; length]), &Device::Cpu)?.reshape((1, length, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(tokens: &[u32]) -> Result<Example, Error> {
        Ok(Example { tokens: tokens.to_vec(), weights: vec![1.0; tokens.len()] })
    }

    fn packed(lengths: &[usize]) -> Batch {
        let examples = lengths.iter().map(|&length| example(&vec![length as u32; length]));
        Packer::new(examples, 1, 7, 99).next_batch().unwrap()
    }

    #[test]
    fn short_conversations_share_a_row_and_the_rest_is_filled() {
        let batch = packed(&[3, 3, 5]);
        assert_eq!(batch.inputs.to_vec2::<u32>().unwrap(), [[3, 3, 3, 3, 3, 3, 99]]);
        assert_eq!(batch.targets.flatten_all().unwrap().to_vec1::<u32>().unwrap(), [3, 3, 3, 3, 3, 99, 99]);
    }

    #[test]
    fn nothing_is_predicted_across_conversations_nor_in_the_filling() {
        let weights = packed(&[3, 3, 5]).weights.to_vec1::<f32>().unwrap();
        assert_eq!(weights, [0.25, 0.25, 0.0, 0.25, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn a_position_sees_only_what_came_before_in_its_own_conversation() {
        let mask = packed(&[3, 3, 5]).mask.to_vec3::<f32>().unwrap();
        let seen = |from: usize| -> Vec<usize> { (0..7).filter(|&to| mask[0][from][to] == 0.0).collect() };
        assert_eq!(seen(2), [0, 1, 2]);
        assert_eq!(seen(4), [3, 4]);
        assert_eq!(seen(6), [6]);
    }

    #[test]
    fn the_conversation_that_closed_a_row_opens_the_next() {
        let examples = [3, 3, 5, 6].into_iter().map(|length| example(&vec![length; length as usize]));
        let mut packer = Packer::new(examples, 1, 7, 99);
        packer.next_batch().unwrap();
        let second = packer.next_batch().unwrap();
        assert_eq!(second.inputs.to_vec2::<u32>().unwrap(), [[5, 5, 5, 5, 5, 99, 99]]);
    }

    #[test]
    fn a_conversation_longer_than_a_row_is_cut() {
        let batch = packed(&[20, 1]);
        assert_eq!(batch.inputs.to_vec2::<u32>().unwrap(), [[20; 7]]);
    }
}
