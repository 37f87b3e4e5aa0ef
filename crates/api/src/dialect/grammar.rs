//! Bounds of what becomes a grammar in the engine: schemas, patterns and grammars of the caller's own.
//!
//! llama-server writes a repetition out, once for each time that it may occur. Where the least is more than the
//! most, the number of those left wraps around, and it writes rules until its memory is full.

use serde_json::{Map, Value};

use super::error::DialectError;

/// Fields of a request that hold schemas, wherever in them.
const SCHEMAS: [&str; 3] = ["response_format", "json_schema", "tools"];

/// Keywords of JSON Schema that count, the least before the most. Engines read them as 32 bits with a sign, and take
/// what is longer for something else.
const COUNTS: [(&str, &str); 4] = [
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
];

/// Keywords that bound a number, below before above.
const BOUNDS: [[&str; 2]; 2] = [["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]];

/// Looks through the fields of a request to an engine.
///
/// # Errors
/// The first range whose ends are the wrong way round.
pub fn check(fields: &Map<String, Value>) -> Result<(), DialectError> {
    let mut schemas = SCHEMAS.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    schemas.try_for_each(|(name, value)| check_schema(name, value))
}

/// Looks through a schema, or whatever holds some. `name` is the request's field.
///
/// # Errors
/// As [`check`].
pub fn check_schema(name: &str, value: &Value) -> Result<(), DialectError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_schema(name, item)),
        Value::Object(map) => {
            check_counts(name, map)?;
            check_bounds(name, map)?;
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                check_repetitions(name, pattern)?;
            }
            if let Some(grammar) = map.get("grammar").and_then(Value::as_str) {
                check_repetitions(name, grammar)?;
            }
            map.values().try_for_each(|value| check_schema(name, value))
        }
        _ => Ok(()),
    }
}

fn check_counts(name: &str, map: &Map<String, Value>) -> Result<(), DialectError> {
    let count = |key: &str| match map.get(key).filter(|value| value.is_number()) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|count| i32::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => {
                let text =
                    format!("{name}: {key} is {value}; it must be a whole number from 0 to {}", i32::MAX);
                Err(DialectError::invalid(name, text))
            }
        },
    };
    for (least, most) in COUNTS {
        if let (Some(low), Some(high)) = (count(least)?, count(most)?)
            && low > high
        {
            let text = format!("{name}: {least} is {low}, which is more than {most}, {high}");
            return Err(DialectError::invalid(name, text));
        }
    }
    Ok(())
}

/// Any bound from below against any from above; where one is exclusive, they may not be equal. Nor may whole numbers
/// be longer than an engine's 64 bits.
fn check_bounds(name: &str, map: &Map<String, Value>) -> Result<(), DialectError> {
    let bounds = |keys: [&'static str; 2]| {
        keys.into_iter().filter_map(|key| Some((key, map.get(key).filter(|value| value.is_number())?)))
    };
    for (low_key, low) in bounds(BOUNDS[0]) {
        for (high_key, high) in bounds(BOUNDS[1]) {
            let wrong = match (low.as_i64(), high.as_i64()) {
                // Whole numbers between them, if any, are at least one above and one below.
                (Some(low), Some(high)) => {
                    let above = i128::from(low) + i128::from(low_key.starts_with("exclusive"));
                    let below = i128::from(high) - i128::from(high_key.starts_with("exclusive"));
                    above > below
                }
                _ => low.as_f64() > high.as_f64(),
            };
            if wrong {
                let text =
                    format!("{name}: {low_key} is {low}, which leaves nothing below {high_key}, {high}");
                return Err(DialectError::invalid(name, text));
            }
        }
    }
    for (key, value) in BOUNDS.into_iter().flat_map(bounds) {
        if value.as_f64().is_some_and(|number| number.abs() >= 9.2e18) {
            let text = format!("{name}: {key} is {value}, which is beyond 64 bits");
            return Err(DialectError::invalid(name, text));
        }
    }
    Ok(())
}

/// The same for a field's text.
///
/// # Errors
/// As [`check`], and where it is nested too deeply to be looked through.
pub fn check_text(name: &str, text: &str) -> Result<(), DialectError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| DialectError::invalid(name, format!("{name} cannot be read: {error}")))?;
    check_schema(name, &value)
}

/// Looks through a pattern or a grammar for `{m,n}`. Wherever it is: what looks like a literal or a comment to us may
/// be none to the engine.
///
/// # Errors
/// The first of them whose ends are the wrong way round.
pub fn check_repetitions(name: &str, text: &str) -> Result<(), DialectError> {
    for (at, _) in text.match_indices('{') {
        let wrong = match range(&text[at + 1..]) {
            Ok(Some((low, high))) => low > high,
            Ok(None) => false,
            Err(Unread) => true,
        };
        if wrong {
            let shown = super::json::excerpt(&text.as_bytes()[at..], 24);
            let text = format!(
                "{name}: the repetition {shown:?} begins above its end; write such braces with a backslash where they mean themselves"
            );
            return Err(DialectError::invalid(name, text));
        }
    }
    Ok(())
}

/// Bytes of blanks and comments in braces that are read.
const MAX_BLANK: usize = 1024;

/// Longer than anybody writes a repetition.
struct Unread;

/// The two numbers behind a brace, where there are two.
fn range(text: &str) -> Result<Option<(u64, u64)>, Unread> {
    let (low, rest) = number(text)?;
    let Some(rest) = rest.strip_prefix(',').filter(|_| !low.is_empty()) else { return Ok(None) };
    let (high, rest) = number(rest)?;
    if high.is_empty() || !rest.starts_with('}') {
        return Ok(None);
    }
    let value = |digits: &str| digits.parse().map_err(|_| Unread);
    Ok(Some((value(low)?, value(high)?)))
}

/// The digits that come next, and what follows them; blanks and comments around them are passed over.
fn number(text: &str) -> Result<(&str, &str), Unread> {
    let text = blank(text)?;
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let rest = if end > 0 { blank(&text[end..])? } else { text };
    Ok((&text[..end], rest))
}

fn blank(text: &str) -> Result<&str, Unread> {
    let mut comment = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' | b'\r' => comment = false,
            b'#' => comment = true,
            _ if comment || byte.is_ascii_whitespace() => {}
            _ => return Ok(&text[at..]),
        }
        if at == MAX_BLANK {
            return Err(Unread);
        }
    }
    Ok("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_the_wrong_way_round_are_refused_wherever_they_are() {
        let said = |value: Value| check(value.as_object().unwrap()).map_err(|error| error.message);
        let of = |schema: Value| json!({ "response_format": { "json_schema": { "schema": schema } } });
        said(of(
            json!({ "type": "array", "minItems": 2, "maxItems": 2, "items": { "pattern": "^a{2,5}$" } }),
        ))
        .unwrap();
        said(of(json!({ "properties": { "minItems": { "type": "string" }, "maxItems": 1 } }))).unwrap();
        for (schema, words) in [
            (json!({ "minItems": 5, "maxItems": 2 }), "minItems is 5"),
            (json!({ "properties": { "a": { "minLength": 3, "maxLength": 1 } } }), "minLength is 3"),
            (json!({ "anyOf": [{ "type": "integer", "minimum": 5, "maximum": -2 }] }), "minimum is 5"),
            (json!({ "items": { "pattern": "^a{5,2}$" } }), "{5,2}"),
        ] {
            let error = said(of(schema)).unwrap_err();
            assert!(error.contains("response_format") && error.contains(words), "{error}");
        }
        let tools = json!({ "tools": [{ "function": { "parameters": { "minItems": 1, "maxItems": 0 } } }] });
        assert!(said(tools).is_err());
    }

    #[test]
    fn numbers_that_an_engine_would_cut_are_refused() {
        let refused = |schema: Value| check_schema("json_schema", &schema).is_err();
        // 2^32 + 2 is 2 in 32 bits.
        assert!(refused(json!({ "minItems": 5, "maxItems": 4_294_967_298u64 })));
        assert!(refused(json!({ "maxLength": -1 })));
        assert!(refused(json!({ "minLength": 1.5 })));
        assert!(refused(json!({ "minimum": 5, "maximum": u64::MAX })));
        assert!(refused(json!({ "minimum": 9_007_199_254_740_993i64, "maximum": 9_007_199_254_740_992i64 })));
        assert!(refused(json!({ "exclusiveMinimum": 5, "exclusiveMaximum": 5 })));
        assert!(refused(json!({ "minimum": 5, "exclusiveMaximum": 5 })));
        assert!(!refused(json!({ "minimum": 5, "maximum": 5, "minItems": 0, "maxItems": i32::MAX })));
        assert!(!refused(json!({ "minimum": -0.5, "exclusiveMaximum": 0.5 })));
    }

    #[test]
    fn repetitions_are_found_wherever_they_are() {
        for (text, good) in [
            (r#"root ::= "a"{2,5} "b"{3} "c"{1,}"#, true),
            (r#"root ::= "a"{5,2}"#, false),
            ("root ::= \"a\" { 5 , 2 }", false),
            // A quote in a comment opens no literal; a comment may be within the braces.
            ("# \"\nroot ::= \"a\"{5,2}", false),
            ("root ::= \"#\" \"a\"{5, # }\n 2}", false),
            ("root ::= \"a\"{99999999999999999999,2}", false),
            (r"^\{5,2\}$", true),
            (r#"^"a{5,2}"$"#, false),
            ("^äöü{7,3}$", false),
            ("{", true),
            ("{1,#", true),
            (&format!("{{5,{}2}}", " ".repeat(2000)), false),
            (&"#{\n".repeat(5000), false),
        ] {
            assert_eq!(check_repetitions("grammar", text).is_ok(), good, "{text}");
        }
    }
}
