//! Side by side in one run: the same questions through Pontoon and directly to another server, in turns, so
//! that whatever else the machine does falls on both.

mod client;
mod load;
mod report;

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use client::{Client, Sample};

pub use client::Target;
pub use load::{Mixed, Stretch};
use report::Apart;
pub use report::{Compared, Idle, Prefix, Report};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pontoon; its admin socket or loopback listener, so that callers can be told apart.
    pub ours: Target,
    /// The other server.
    pub against: Option<Target>,
    /// The model as Pontoon knows it.
    pub model: String,
    /// The model as the other server knows it, where it matters there.
    pub against_model: Option<String>,
    /// How often each measurement is made.
    pub rounds: usize,
    /// Tokens of an answer whose speed is measured.
    pub tokens: u32,
    /// Words of a prompt whose speed is measured.
    pub prompt_words: usize,
    /// Words of the prefix that two callers share; 0 leaves that out.
    pub prefix_words: usize,
    /// Idle connections that are opened; 0 leaves that out.
    pub idle: usize,
}

impl Options {
    /// The usual amounts: a minute or two on a small model.
    pub fn new(ours: Target, against: Option<Target>, model: impl Into<String>) -> Self {
        Self {
            ours,
            against,
            model: model.into(),
            against_model: None,
            rounds: 7,
            tokens: 128,
            prompt_words: 256,
            prefix_words: 1500,
            idle: 1000,
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a target.
    #[error("'{0}' is no server: write http://host:port or unix:/path")]
    Target(String),
    /// Nobody there.
    #[error("cannot reach {target}: {source}")]
    Connect {
        /// Where.
        target: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An error status.
    #[error("{target} answered {status}: {text}")]
    Refused {
        /// Who.
        target: String,
        /// Status.
        status: u16,
        /// Body.
        text: String,
    },
    /// Something else about HTTP.
    #[error("an answer broke off or made no sense: {0}")]
    Http(String),
}

impl Error {
    fn http(error: impl std::fmt::Display) -> Self {
        Self::Http(error.to_string())
    }
}

/// One side of the comparison.
#[derive(Clone, Copy)]
struct Side<'a> {
    target: &'a Target,
    model: &'a str,
    /// Whether it is Pontoon, which tells callers apart.
    ours: bool,
}

impl Side<'_> {
    /// One of several callers, whom Pontoon tells apart.
    fn caller(&self, name: &str) -> Client {
        Client::new(self.target, self.model, self.ours.then_some(name))
    }

    /// A caller like any other.
    fn client(&self) -> Client {
        Client::new(self.target, self.model, None)
    }
}

/// Measures everything.
///
/// # Errors
/// The first thing that did not work.
pub async fn run(options: Options) -> Result<Report, Error> {
    let ours = Side { target: &options.ours, model: &options.model, ours: true };
    let other = options.against_model.as_deref().unwrap_or(&options.model);
    let mut sides = vec![ours];
    if let Some(target) = &options.against {
        sides.push(Side { target, model: other, ours: false });
    }
    // Loads the model, and warms what there is to warm.
    for side in &sides {
        for _ in 0..3 {
            side.client().ask("Hello", 8, true).await?;
        }
    }
    let streams = streams(&options, &sides).await?;
    let gap = |samples: &Vec<Sample>| samples.iter().map(|sample| sample.gap.as_secs_f64()).collect();
    let gaps: Vec<Vec<f64>> = streams.iter().map(gap).collect();
    let wholes = requests(&options, &sides, Short::Text).await?;
    let chats = requests(&options, &sides, Short::Chat).await?;
    let firsts = requests(&options, &sides, Short::Streamed).await?;
    let speed = |sample: &Sample| rate(sample.tokens, sample.last - sample.first);
    let ones: Vec<Vec<f64>> =
        streams.iter().map(|samples: &Vec<Sample>| samples.iter().map(speed).collect()).collect();
    let eights = eight(&options, &sides).await?;
    let prompts = prompts(&options, &sides).await?;
    let by = |index: usize| -> report::Side {
        report::Side {
            one: median(ones[index].iter().copied()),
            eight: median(eights[index].iter().copied()),
            prompt: median(prompts[index].iter().copied()),
            first: median(firsts[index].iter().copied()),
            gap: median(gaps[index].iter().copied()),
            request: median(wholes[index].iter().copied()),
            chat: median(chats[index].iter().copied()),
        }
    };
    let results: Vec<report::Side> = (0..sides.len()).map(by).collect();
    let mut mixed = Vec::new();
    for side in &sides {
        mixed.push(load::mixed(side).await?);
    }
    let prefix = if options.prefix_words > 0 { Some(prefix(&options, ours).await) } else { None };
    let idle = if options.idle > 0 { load::idle(&options.ours, options.idle).await? } else { None };
    let longer = |samples: &[Vec<f64>]| samples.get(1).map_or(f64::NAN, |other| shift(&samples[0], other));
    let (request, chat) = (longer(&wholes), longer(&chats));
    let faster = |rates: &[Vec<f64>]| rates.get(1).map_or(f64::NAN, |other| factor(&rates[0], other));
    let apart = Apart {
        one: faster(&ones),
        eight: faster(&eights),
        prompt: faster(&prompts),
        request,
        chat,
        token: longer(&gaps),
        first: longer(&firsts),
    };
    Ok(Report::new(&options, results, apart, mixed, prefix, idle))
}

/// One stream at a time, the sides in turns.
async fn streams(options: &Options, sides: &[Side<'_>]) -> Result<Vec<Vec<Sample>>, Error> {
    let mut clients: Vec<Client> = sides.iter().map(Side::client).collect();
    let mut samples = vec![Vec::new(); sides.len()];
    for round in 0..options.rounds {
        for index in turn(round, sides.len()) {
            samples[index].push(clients[index].ask("Tell me a long story", options.tokens, true).await?);
        }
    }
    Ok(samples)
}

/// Requests that take an engine as little as may be, and their prompt is cached: what is left is mostly the way
/// there and back.
#[derive(Clone, Copy)]
enum Short {
    /// The next token of a text: nothing but the model runs.
    Text,
    /// An answer of one token in a chat, whose template the engine fills in first.
    Chat,
    /// The same as a stream, to its first token.
    Streamed,
}

/// Seconds that short requests take.
async fn requests(options: &Options, sides: &[Side<'_>], short: Short) -> Result<Vec<Vec<f64>>, Error> {
    let mut clients: Vec<Client> = sides.iter().map(Side::client).collect();
    let mut samples = vec![Vec::new(); sides.len()];
    for round in 0..options.rounds * 30 {
        for index in turn(round, sides.len()) {
            let client = &mut clients[index];
            let sample = match short {
                Short::Text => client.complete("Hello", 1).await?,
                Short::Chat => client.ask("Hello", 1, false).await?,
                Short::Streamed => client.ask("Hello", 2, true).await?,
            };
            samples[index].push(sample.first.as_secs_f64());
        }
    }
    Ok(samples)
}

/// Tokens a second of eight streams together.
async fn eight(options: &Options, sides: &[Side<'_>]) -> Result<Vec<Vec<f64>>, Error> {
    let mut rates = vec![Vec::new(); sides.len()];
    for round in 0..options.rounds.div_ceil(2) {
        for index in turn(round, sides.len()) {
            rates[index].push(load::together(&sides[index], 8, options.tokens).await?);
        }
    }
    Ok(rates)
}

/// Prompt tokens a second, of prompts that nobody has sent before.
async fn prompts(options: &Options, sides: &[Side<'_>]) -> Result<Vec<Vec<f64>>, Error> {
    let mut clients: Vec<Client> = sides.iter().map(Side::client).collect();
    let mut rates = vec![Vec::new(); sides.len()];
    for round in 0..options.rounds {
        for index in turn(round, sides.len()) {
            // One for each side, as both may end at the same engine, which caches; of the same words, so that they
            // are as long.
            let mut prompt = words(options.prompt_words, round as u64);
            if index > 0 {
                prompt.reverse();
            }
            let prompt = prompt.join(" ");
            let sample = clients[index].ask(&prompt, 1, true).await?;
            rates[index].push(rate(sample.prompt_tokens, sample.first));
        }
    }
    Ok(rates)
}

/// Time to the first token of a prompt with a long prefix, for who sends it first and who sends it next.
async fn prefix(options: &Options, ours: Side<'_>) -> Result<Prefix, String> {
    let (mut colds, mut warms, mut tokens) = (Vec::new(), Vec::new(), 0);
    for round in 0..options.rounds.clamp(1, 3) {
        let shared = words(options.prefix_words, 5000 + round as u64).join(" ");
        let told = |error: Error| error.to_string();
        let cold =
            ours.caller("first").ask(&format!("{shared} What was that?"), 2, true).await.map_err(told)?;
        let warm =
            ours.caller("second").ask(&format!("{shared} Who said so?"), 2, true).await.map_err(told)?;
        tokens = cold.prompt_tokens;
        colds.push(cold.first.as_secs_f64());
        warms.push(warm.first.as_secs_f64());
    }
    Ok(Prefix { prompt_tokens: tokens, first_seconds: median(colds), second_seconds: median(warms) })
}

/// Who goes first changes with each round.
fn turn(round: usize, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |at| if round.is_multiple_of(2) { at } else { sides - 1 - at })
}

/// Words that no cache knows in this order: by a generator with this seed, others in each process.
fn words(count: usize, seed: u64) -> Vec<&'static str> {
    static SALT: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    const WORDS: [&str; 12] =
        ["the", "old", "cat", "sees", "red", "sun", "and", "two", "men", "run", "far", "is"];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ *SALT;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % WORDS.len()]
    };
    (0..count).map(|_| word()).collect()
}

fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count.saturating_sub(1).max(1) as f64 / seconds } else { 0.0 }
}

/// By how much values of one kind exceed those of another: the middle of all differences between one of these
/// and one of those (Hodges and Lehmann, 1963). Unlike the difference of two medians, it does not jump where a
/// machine is sometimes quick and sometimes slow.
fn shift(these: &[f64], those: &[f64]) -> f64 {
    let (these, those) = (thinned(these), thinned(those));
    median(these.flat_map(|this| those.clone().map(move |that| this - that)))
}

/// The same as a factor.
fn factor(these: &[f64], those: &[f64]) -> f64 {
    let logarithms = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.ln()).collect() };
    shift(&logarithms(these), &logarithms(those)).exp()
}

/// At most a thousand of these values, evenly.
fn thinned(values: &[f64]) -> impl Iterator<Item = f64> + Clone {
    values.iter().copied().step_by(values.len().div_ceil(1000).max(1))
}

/// The value in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: impl IntoIterator<Item = f64>, at: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return f64::NAN;
    }
    values[((values.len() - 1) as f64 * at).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_found_where_medians_jump() {
        // Two speeds of a machine, of which each side met the quicker one about half the time.
        let theirs = [1.0, 1.1, 1.2, 5.0, 5.1];
        let ours: Vec<f64> = [1.0, 1.1, 5.0, 5.1, 5.2].iter().map(|value| value + 0.25).collect();
        assert!((median(ours.iter().copied()) - median(theirs)).abs() > 4.0);
        assert!((shift(&ours, &theirs) - 0.25).abs() < 0.11, "{}", shift(&ours, &theirs));
        assert!(shift(&[], &theirs).is_nan());
        assert!((factor(&[2.0, 4.2, 8.0], &[1.0, 2.0, 4.0]) - 2.0).abs() < 0.05);
    }
}
