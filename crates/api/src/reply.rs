//! Answers: how they are put together.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use crate::body::AnswerBody;
use crate::dialect::{Dialect, DialectError, ErrorKind};

/// Names of headers that are not HTTP's own.
pub mod names {
    use hyper::header::HeaderName;

    /// OpenAI's clients read this name of a request.
    pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    /// Anthropic's clients read this one.
    pub static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
    /// Requests that waited for the model when this one came.
    pub static QUEUE_POSITION: HeaderName = HeaderName::from_static("x-pontoon-queue-position");
    /// For whom an operator's program asks.
    pub static ON_BEHALF: HeaderName = HeaderName::from_static("x-pontoon-caller");
    /// Docker's CLI only wants the model loaded.
    pub static PRELOAD: HeaderName = HeaderName::from_static("x-preload-only");
    /// Anthropic's clients send their keys in this.
    pub static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    /// Browsers say in this who wants a request.
    pub static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
}

/// An answer, or an error that is told in the caller's dialect.
pub type Answer = Result<Response<AnswerBody>, DialectError>;

/// A body of bytes.
pub fn bytes(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, value(content_type));
    answer
}

/// A body of JSON.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Answer {
    let text = serde_json::to_vec(body)
        .map_err(|error| DialectError::new(ErrorKind::Internal, error.to_string()))?;
    Ok(bytes(status, "application/json", text))
}

/// JSON that is written already.
pub fn written(body: Vec<u8>) -> Answer {
    Ok(bytes(StatusCode::OK, "application/json", body))
}

/// No body.
pub fn empty(status: StatusCode) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// A 200 with these headers.
pub fn with_body(headers: HeaderMap, body: AnswerBody) -> Response<AnswerBody> {
    let mut answer = Response::new(body);
    *answer.headers_mut() = headers;
    answer
}

/// An error in its dialect's words.
pub fn error(error: &DialectError, dialect: Dialect, request_id: &str) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(error.status(dialect)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = bytes(status, "application/json", error.render(dialect, request_id));
    if let Some(after) = error.retry_after {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// A header's value; empty where the text is none.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
