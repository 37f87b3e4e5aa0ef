//! Embeddings: the request's bounds, fewer dimensions than the model has, and base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, Mode, Reply};
use super::super::chunk::{Counts, Usage};
use super::super::error::DialectError;
use super::super::json::{self, Path, whole, wrong};
use super::super::limits;
use super::fields::{self, Rule, Table};
use super::reply as answers;
use super::{Answer, Request, put};

/// How vectors are to be handed out.
#[derive(Debug, Default)]
pub struct Format {
    base64: bool,
    /// Fewer dimensions than the model has; the vectors are cut and normalised again.
    dimensions: Option<usize>,
}

impl Format {
    /// Whether the engine's answer has to be taken apart.
    pub fn rebuilds(&self) -> bool {
        self.dimensions.is_some()
    }
}

/// Understands `POST …/v1/embeddings`.
pub fn prepare(body: &[u8]) -> Result<Call, DialectError> {
    let mut request = Request::new(body, Table::Embedding)?;
    let model = request.model()?;
    let keep_alive = request.keep_alive()?;
    let input = request.need("input")?;
    check_input(&fields::value(input))?;
    let format = format(&request)?;
    request.copy_plain();
    request.copy("input");
    // Cutting needs numbers, whatever the caller gets in the end.
    let encoding = if format.base64 && !format.rebuilds() { "\"base64\"" } else { "\"float\"" };
    put(&mut request.tail, "encoding_format", encoding);
    request.tail.push(b'}');
    let engine = EngineRequest::from_tail("/v1/embeddings", false, None, request.tail);
    Ok(Call {
        endpoint: Endpoint::Embeddings,
        model,
        mode: Mode::Embedding,
        stream: false,
        keep_alive,
        context_size: None,
        action: Action::Run(engine),
        ignored: request.ignored,
        answer: AnyAnswer::OpenAi(Answer { embedding: format, ..Answer::default() }),
    })
}

fn format(request: &Request<'_>) -> Result<Format, DialectError> {
    let base64 = match request.get("encoding_format") {
        None => false,
        Some(raw) => {
            fields::obey("encoding_format", Rule::OneOf(&["float", "base64"]), raw)?;
            raw.get() == "\"base64\""
        }
    };
    let dimensions = match request.get("dimensions") {
        None => None,
        Some(raw) => {
            fields::obey("dimensions", Rule::Int(1, 65_536), raw)?;
            whole(&fields::value(raw)).and_then(|number| usize::try_from(number).ok())
        }
    };
    Ok(Format { base64, dimensions })
}

/// A text, several texts, the tokens of a text, or those of several.
fn check_input(input: &Value) -> Result<(), DialectError> {
    let at = Path::Key(&Path::Root, "input");
    match input {
        Value::String(_) => Ok(()),
        Value::Array(items) if items.is_empty() => {
            Err(DialectError::invalid("input", "input is empty, send at least one text"))
        }
        Value::Array(items) if items.iter().all(Value::is_u64) => Ok(()),
        Value::Array(items) => {
            json::list(input, &at, limits::TEXTS)?;
            items.iter().enumerate().try_for_each(|(index, item)| match item {
                Value::String(_) => Ok(()),
                Value::Array(tokens) if !tokens.is_empty() && tokens.iter().all(Value::is_u64) => Ok(()),
                other => Err(wrong(&Path::Index(&at, index), "a string or an array of token numbers", other)),
            })
        }
        other => Err(wrong(&at, "a string or an array of strings", other)),
    }
}

/// The vectors and the usage of an engine's answer.
pub fn vectors(body: &[u8]) -> Result<(Vec<Vec<f32>>, Usage), DialectError> {
    #[derive(serde::Deserialize)]
    struct Wire {
        data: Vec<Item>,
        #[serde(default)]
        usage: Option<Counts>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        embedding: Vec<f32>,
        #[serde(default)]
        index: u64,
    }
    let mut wire: Wire = serde_json::from_slice(body).map_err(|_| answers::not_an_answer(body))?;
    wire.data.sort_by_key(|item| item.index);
    let mut usage = Usage::default();
    if let Some(counts) = &wire.usage {
        usage.take_counts(counts);
    }
    Ok((wire.data.into_iter().map(|item| item.embedding).collect(), usage))
}

/// Cuts a vector to `dimensions`, and makes its length 1.
pub fn cut(vector: &mut Vec<f32>, dimensions: Option<usize>) {
    if let Some(dimensions) = dimensions {
        vector.truncate(dimensions);
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= length);
}

/// Builds the answer anew with cut vectors.
pub fn reply(call: &Call, format: &Format, body: &[u8]) -> Result<Reply, DialectError> {
    let (mut vectors, usage) = vectors(body)?;
    let data: Vec<Value> = vectors
        .iter_mut()
        .enumerate()
        .map(|(index, vector)| {
            if format.dimensions.is_some_and(|dimensions| dimensions < vector.len()) {
                cut(vector, format.dimensions);
            }
            let embedding = if format.base64 { Value::from(encode(vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let counts = json!({"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens});
    let value = json!({"object": "list", "data": data, "model": call.model, "usage": counts});
    Ok(Reply::json(&value, usage))
}

fn encode(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
