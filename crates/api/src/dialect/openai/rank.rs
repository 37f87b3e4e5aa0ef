//! Reranking in the shapes of Jina, Cohere and text-embeddings-inference, and vLLM's `score`, on one engine path.

use serde_json::{Map, Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, Mode, Reply};
use super::super::chunk::{Counts, Usage};
use super::super::duration;
use super::super::error::{DialectError, ErrorKind};
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::{Answer, model_name, note, reply as answers};

/// What to make of the engine's ranking.
#[derive(Debug)]
pub enum Shape {
    /// `{results:[{index,relevance_score}]}`; with the documents where the caller wants them back.
    Results(Option<Vec<String>>),
    /// `[{index,score}]` of text-embeddings-inference; with the texts where the caller wants them back.
    Plain(Option<Vec<String>>),
    /// `{data:[{index,score}]}` in the order of the request.
    Scores,
}

const KNOWN: &[&str] = &[
    "model",
    "query",
    "documents",
    "texts",
    "top_n",
    "return_documents",
    "return_text",
    "text_1",
    "text_2",
    "queries",
    "items",
    "data_1",
    "data_2",
    "keep_alive",
    "user",
    "encoding_format",
    "raw_scores",
    "truncate",
];

/// Understands `rerank` and `score`.
pub fn prepare(endpoint: Endpoint, body: &[u8]) -> Result<Call, DialectError> {
    let map = json::object(body)?;
    let object = Object::root(&map);
    let model = model_name(object.get("model").ok_or_else(|| missing(&Path::Key(&Path::Root, "model")))?)?;
    let keep_alive = object.get("keep_alive").map(duration::parse_keep_alive).transpose()?;
    let (query, documents, shape) = match endpoint {
        Endpoint::Score => score(object)?,
        _ => rerank(object)?,
    };
    let mut fields = Map::new();
    fields.insert("query".into(), query.into());
    if let Some(top) = object.integer("top_n", 1, i64::from(i32::MAX))? {
        fields.insert("top_n".into(), top.min(documents.len() as i64).into());
    }
    fields.insert("documents".into(), documents.into());
    let mut ignored = Vec::new();
    map.keys().filter(|key| !KNOWN.contains(&key.as_str())).for_each(|key| note(&mut ignored, key));
    Ok(Call {
        endpoint,
        model,
        mode: Mode::Rerank,
        stream: false,
        keep_alive,
        context_size: None,
        action: Action::Run(EngineRequest::from_fields("/v1/rerank", false, None, &fields)),
        ignored,
        answer: AnyAnswer::OpenAi(Answer { ranking: Some(shape), ..Answer::default() }),
    })
}

type Question = (String, Vec<String>, Shape);

fn rerank(object: Object<'_, '_>) -> Result<Question, DialectError> {
    let query = object.need_text("query")?.to_owned();
    if object.get("documents").is_none() && object.get("texts").is_some() {
        let texts = documents(object, "texts")?;
        let back = object.flag("return_text")?.unwrap_or(false).then(|| texts.clone());
        return Ok((query, texts, Shape::Plain(back)));
    }
    let documents = documents(object, "documents")?;
    let back = object.flag("return_documents")?.unwrap_or(false).then(|| documents.clone());
    Ok((query, documents, Shape::Results(back)))
}

/// One text against many, or against one.
fn score(object: Object<'_, '_>) -> Result<Question, DialectError> {
    let left =
        ["text_1", "queries", "data_1"].into_iter().find(|key| object.get(key).is_some()).unwrap_or("text_1");
    let right = ["text_2", "documents", "items", "data_2"]
        .into_iter()
        .find(|key| object.get(key).is_some())
        .unwrap_or("text_2");
    let mut queries =
        object.texts(left, limits::TEXTS)?.ok_or_else(|| missing(&Path::Key(object.at, left)))?;
    let (Some(query), true) = (queries.pop(), queries.is_empty()) else {
        let text = format!("{left} must hold exactly one text: send one request for each text");
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param(left));
    };
    Ok((query.to_owned(), documents(object, right)?, Shape::Scores))
}

/// Texts, or objects with a `text`.
fn documents(object: Object<'_, '_>, key: &str) -> Result<Vec<String>, DialectError> {
    let at = Path::Key(object.at, key);
    if let Some(Value::String(text)) = object.get(key) {
        return Ok(vec![text.clone()]);
    }
    let items = object.list(key, limits::TEXTS)?.ok_or_else(|| missing(&at))?;
    if items.is_empty() {
        return Err(DialectError::invalid(at.to_string(), format!("{at} is empty, send at least one text")));
    }
    items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let text = item.as_str().or_else(|| item.get("text")?.as_str());
            text.map(str::to_owned)
                .ok_or_else(|| wrong(&Path::Index(&at, index), "a string or an object with a text", item))
        })
        .collect()
}

#[derive(serde::Deserialize)]
struct Wire {
    results: Vec<Rank>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(serde::Deserialize)]
struct Rank {
    index: usize,
    #[serde(alias = "score")]
    relevance_score: f64,
}

/// Builds the answer in the shape that the caller's path has.
pub fn reply(call: &Call, shape: &Shape, body: &[u8]) -> Result<Reply, DialectError> {
    let mut wire: Wire = serde_json::from_slice(body).map_err(|_| answers::not_an_answer(body))?;
    let mut usage = Usage::default();
    if let Some(counts) = &wire.usage {
        usage.take_counts(counts);
    }
    let counts = json!({"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens});
    let value = match shape {
        Shape::Results(back) => {
            let results: Vec<Value> = wire
                .results
                .iter()
                .map(|rank| result(rank, "relevance_score", "document", back, true))
                .collect();
            json!({"model": call.model, "object": "list", "usage": counts, "results": results})
        }
        Shape::Plain(back) => wire
            .results
            .iter()
            .map(|rank| result(rank, "score", "text", back, false))
            .collect::<Vec<_>>()
            .into(),
        Shape::Scores => {
            wire.results.sort_by_key(|rank| rank.index);
            let data: Vec<Value> = wire
                .results
                .iter()
                .map(|rank| json!({"index": rank.index, "object": "score", "score": rank.relevance_score}))
                .collect();
            json!({"object": "list", "model": call.model, "data": data, "usage": counts})
        }
    };
    Ok(Reply::json(&value, usage))
}

fn result(rank: &Rank, score: &str, text: &str, back: &Option<Vec<String>>, wrapped: bool) -> Value {
    let mut item = Map::new();
    item.insert("index".into(), rank.index.into());
    item.insert(score.into(), json!(rank.relevance_score));
    if let Some(document) = back.as_ref().and_then(|all| all.get(rank.index)) {
        let value = if wrapped { json!({"text": document}) } else { json!(document) };
        item.insert(text.into(), value);
    }
    Value::Object(item)
}
