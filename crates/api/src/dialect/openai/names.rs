//! Small looks into JSON text that is not parsed: media addresses in requests, the model's name in answers.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::value::RawValue;

use super::super::error::{DialectError, ErrorKind};

static URL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"url\""));
static DATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"data\""));
static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"text\""));
static MODEL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"model\""));

/// Refuses media that the engine would have to fetch: it has no network and no files but its model.
pub fn check_media(messages: &RawValue) -> Result<(), DialectError> {
    let text = messages.get().as_bytes();
    for field in [&URL, &DATA] {
        for found in field.find_iter(text) {
            if let Some(address) = string_after(&text[found + field.needle().len()..]) {
                check_address(address)?;
            }
        }
    }
    check_text(text)
}

/// Refuses a part whose text is no string, which engines answer with an error of their own making. (A quote
/// inside a JSON string is always escaped, so `"text"` with a colon behind it is a key.)
fn check_text(messages: &[u8]) -> Result<(), DialectError> {
    for found in TEXT.find_iter(messages) {
        let rest = messages[found + TEXT.needle().len()..].trim_ascii_start();
        let Some(value) = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { continue };
        if !value.starts_with(b"\"") {
            let shown = super::super::json::excerpt(value, 40);
            let text = format!("the text of a part must be a string, got {shown}");
            return Err(DialectError::new(ErrorKind::InvalidRequest, text).with_param("messages"));
        }
    }
    Ok(())
}

/// Refuses an address that is not the data itself.
pub fn check_address(address: &[u8]) -> Result<(), DialectError> {
    let scheme: Vec<u8> = address.iter().take(8).map(u8::to_ascii_lowercase).collect();
    if !(scheme.starts_with(b"http:") || scheme.starts_with(b"https:") || scheme.starts_with(b"file:")) {
        return Ok(());
    }
    let shown = super::super::json::excerpt(address, 80);
    let text =
        format!("{shown:?} is not fetched for you: send images and audio inline as data:…;base64,… URLs");
    Err(DialectError::new(ErrorKind::InvalidRequest, text).with_param("messages"))
}

/// The string behind `: `, without its quotes and with its escapes.
fn string_after(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    text.get(..memchr::memchr(b'"', text)?)
}

/// Where the value of `"model"` begins and ends in an engine's answer, quotes included.
///
/// A quote inside a JSON string is always escaped, so `"model"` with a colon behind it is a key; in what engines
/// answer, the only one.
pub fn model_span(text: &[u8]) -> Option<std::ops::Range<usize>> {
    for key in MODEL.find_iter(text) {
        let mut at = key + MODEL.needle().len();
        at += blanks(&text[at..]);
        if text.get(at) != Some(&b':') {
            continue;
        }
        at += 1;
        at += blanks(&text[at..]);
        if text.get(at) != Some(&b'"') {
            continue;
        }
        let mut end = at + 1;
        while let Some(found) = text.get(end..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            end += found;
            if text[end] == b'"' {
                return Some(at..end + 1);
            }
            end += 2;
        }
        return None;
    }
    None
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Appends `text` with the model's name replaced by `name`, which is JSON with its quotes.
pub fn rename(text: &[u8], name: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + name.len());
    match model_span(text) {
        Some(span) => {
            out.extend_from_slice(&text[..span.start]);
            out.extend_from_slice(name);
            out.extend_from_slice(&text[span.end..]);
        }
        None => out.extend_from_slice(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::check_media;

    #[test]
    fn texts_are_strings_and_media_are_inline() {
        let check = |messages: &str| check_media(&RawValue::from_string(messages.to_owned()).unwrap());
        for good in [
            r#"[{"content":"hi"}]"#,
            r#"[{"content":[{"type":"text","text":"say \"text\": {}"}]}]"#,
            r#"[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}]"#,
        ] {
            check(good).unwrap();
        }
        for bad in [r#"[{"content":[{"type":"text","text":{}}]}]"#, r#"[{"content":[{"text" : 7}]}]"#] {
            assert!(check(bad).unwrap_err().message.contains("must be a string"), "{bad}");
        }
        let fetched = r#"[{"content":[{"image_url":{"url":"https://example.org/a.png"}}]}]"#;
        assert!(check(fetched).unwrap_err().message.contains("inline"));
    }
}
