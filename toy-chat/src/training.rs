//! Training: from nothing but a seed to a tokenizer and a network, the same every time.

use std::{collections::HashMap, f64::consts::PI};

use candle_core::{D, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops};

use crate::{
    Error, chat,
    corpus::Corpus,
    model::{self, Config, Model},
    packing::{Batch, Example, Packer},
    tokenizer::{Tokenizer, Vocabulary},
};

/// Conversations from which the tokenizer is learned.
const TOKENIZER_SAMPLE: usize = 6000;
/// Steps over which the learning rate rises.
const WARM_UP: f64 = 50.0;
/// Share of the learning rate that is left at the end.
const LAST_RATE: f64 = 0.02;

/// How to train.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Steps of the optimizer.
    pub steps: usize,
    /// Rows in a batch.
    pub rows: usize,
    /// Tokens in a row.
    pub row_length: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Seed of the corpus and of the first weights.
    pub seed: u64,
}

impl Plan {
    fn check(&self) -> Result<(), Error> {
        let at_least = |name, value, least, needed| {
            if value < least { Err(Error::Setting { name, value, needed }) } else { Ok(()) }
        };
        at_least("--rows", self.rows, 1, "at least 1")?;
        at_least("--row-length", self.row_length, 16, "at least 16, or no exchange fits in a row")?;
        at_least("--vocabulary", self.vocabulary, 270, "at least 270: the 256 bytes and the special tokens")
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The step just done, from 0.
    pub step: usize,
    /// Its loss, nats per weighted token.
    pub loss: f32,
}

/// A trained model.
pub struct Trained {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The network's sizes.
    pub config: Config,
    /// The parameters by llama.cpp's names, in the order of the file.
    pub parameters: Vec<(String, Var)>,
}

/// Trains by `plan` and calls `report` after every step.
pub fn train(plan: &Plan, mut report: impl FnMut(Progress)) -> Result<Trained, Error> {
    plan.check()?;
    let tokenizer = learn_tokenizer(plan)?;
    let config = Config::toy(tokenizer.vocabulary().tokens.len());
    let parameters = model::parameters(&config, plan.seed)?;
    let tensors: HashMap<String, Tensor> =
        parameters.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let model = Model::new(config, &tensors)?;
    let mut optimizer = optimizer(&parameters)?;

    let examples = Corpus::new(plan.seed).map(|messages| Example::new(&messages, &tokenizer));
    let mut packer = Packer::new(examples, plan.rows, plan.row_length, tokenizer.end_of_text());
    for step in 0..plan.steps {
        let loss = loss(&model, &packer.next_batch()?)?;
        optimizer.set_learning_rate(plan.rate * rate_share(step, plan.steps));
        optimizer.backward_step(&loss)?;
        let loss = loss.to_scalar::<f32>()?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        report(Progress { step, loss });
    }
    drop(packer);
    Ok(Trained { tokenizer, config, parameters })
}

fn learn_tokenizer(plan: &Plan) -> Result<Tokenizer, Error> {
    let corpus = Corpus::new(plan.seed).take(TOKENIZER_SAMPLE);
    let texts: Vec<String> = corpus.map(|messages| chat::plain_text(&messages)).collect();
    Tokenizer::new(Vocabulary::learn(texts.iter().map(String::as_str), plan.vocabulary)?)
}

fn optimizer(parameters: &[(String, Var)]) -> Result<AdamW, Error> {
    let variables = parameters.iter().map(|(_, var)| var.clone()).collect();
    let settings = ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.01 };
    Ok(AdamW::new(variables, settings)?)
}

/// Weighted mean of the negative log-likelihood of each next token.
fn loss(model: &Model, batch: &Batch) -> Result<Tensor, Error> {
    let scores = model.forward(&batch.inputs, &batch.mask)?.flatten_to(1)?;
    let likelihood = ops::log_softmax(&scores, D::Minus1)?.gather(&batch.targets, 1)?.squeeze(1)?;
    Ok((likelihood * &batch.weights)?.sum_all()?.neg()?)
}

/// A linear rise, then a cosine's fall to [`LAST_RATE`].
fn rate_share(step: usize, steps: usize) -> f64 {
    let rise = ((step + 1) as f64 / WARM_UP).min(1.0);
    let fall = 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos());
    rise * (LAST_RATE + (1.0 - LAST_RATE) * fall)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: usize) -> Plan {
        Plan { steps, rows: 2, row_length: 48, vocabulary: 384, rate: 3e-3, seed: 5 }
    }

    #[test]
    fn the_loss_falls() {
        let mut losses = Vec::new();
        train(&plan(30), |progress| losses.push(progress.loss)).unwrap();
        // A model that knows nothing spreads its bets: ln 384 = 5.95.
        assert!((5.5..7.0).contains(&losses[0]), "first loss {}", losses[0]);
        let last: f32 = losses[25..].iter().sum::<f32>() / 5.0;
        assert!(last < 0.85 * losses[0], "{losses:?}");
    }

    #[test]
    fn the_rate_rises_then_falls() {
        let shares: Vec<f64> = (0..600).map(|step| rate_share(step, 600)).collect();
        let top = shares.iter().cloned().fold(0.0, f64::max);
        assert!(shares[0] < 0.03 && (0.95..=1.0).contains(&top) && shares[599] < 0.03);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let refused = train(&Plan { vocabulary: 200, ..plan(1) }, |_| ()).err().unwrap();
        assert!(refused.to_string().contains("--vocabulary is 200"), "{refused}");
    }
}
