//! Bounds of what becomes a grammar in the engine: schemas, patterns and grammars of the caller's own.
//!
//! llama-server writes a repetition out, once for each time that it may occur. Where the least is more than the
//! most, the number of those left wraps around, and it writes rules until its memory is full.

use serde_json::{Map, Value};

use super::error::DialectError;

/// Fields of a request that hold schemas, wherever in them.
const SCHEMAS: [&str; 3] = ["response_format", "json_schema", "tools"];

/// Keywords of JSON Schema of which the first may not be above the second.
const RANGES: [(&str, &str); 6] = [
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
    ("minimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
];

/// Looks through the fields of a request to an engine.
///
/// # Errors
/// The first range whose ends are the wrong way round.
pub fn check(fields: &Map<String, Value>) -> Result<(), DialectError> {
    let schemas = SCHEMAS.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    schemas.into_iter().try_for_each(|(name, value)| check_schema(name, value))
}

/// Looks through a schema, or whatever holds some. `name` is the request's field.
///
/// # Errors
/// As [`check`].
pub fn check_schema(name: &str, value: &Value) -> Result<(), DialectError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_schema(name, item)),
        Value::Object(map) => {
            for (least, most) in RANGES {
                let number = |key: &str| map.get(key).and_then(Value::as_f64);
                if let (Some(low), Some(high)) = (number(least), number(most))
                    && low > high
                {
                    let text = format!("{name}: {least} is {low}, which is more than {most}, {high}");
                    return Err(DialectError::invalid(name, text));
                }
            }
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                check_repetitions(name, pattern, false)?;
            }
            if let Some(grammar) = map.get("grammar").and_then(Value::as_str) {
                check_repetitions(name, grammar, true)?;
            }
            map.values().try_for_each(|value| check_schema(name, value))
        }
        _ => Ok(()),
    }
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

/// Looks through a pattern, or a grammar, in which quotes hold literals, for `{m,n}`.
///
/// # Errors
/// The first of them whose ends are the wrong way round.
pub fn check_repetitions(name: &str, text: &str, quotes: bool) -> Result<(), DialectError> {
    let mut rest = text.char_indices();
    // What ends the literal or the class that this is in.
    let mut inside = None;
    while let Some((at, character)) = rest.next() {
        match (inside, character) {
            (_, '\\') => drop(rest.next()),
            (Some(end), character) if character == end => inside = None,
            (Some(_), _) => {}
            (None, '[') => inside = Some(']'),
            (None, '"') if quotes => inside = Some('"'),
            (None, '{') => {
                let range = text[at + 1..].split_once('}').and_then(|(range, _)| range.split_once(','));
                let number = |text: &str| text.trim().parse::<u64>().ok();
                let Some((Some(low), Some(high))) = range.map(|(low, high)| (number(low), number(high)))
                else {
                    continue;
                };
                if low > high {
                    let text = format!("{name}: a repetition of {{{low},{high}}} begins above its end");
                    return Err(DialectError::invalid(name, text));
                }
            }
            (None, _) => {}
        }
    }
    Ok(())
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
    fn repetitions_are_found_outside_of_literals() {
        for (text, quotes, good) in [
            (r#"root ::= "a"{2,5} "b"{3} "c"{1,}"#, true, true),
            (r#"root ::= "a"{5,2}"#, true, false),
            (r#"root ::= "a" { 5 , 2 }"#, true, false),
            (r#"root ::= "{5,2}" [{5,2}] "\"{5,2}""#, true, true),
            (r"^\{5,2}[{5,2}]$", false, true),
            (r#"^"a{5,2}"$"#, false, false),
            ("^äöü{7,3}$", false, false),
            ("{", false, true),
            (r"\", false, true),
        ] {
            assert_eq!(check_repetitions("grammar", text, quotes).is_ok(), good, "{text}");
        }
    }
}
