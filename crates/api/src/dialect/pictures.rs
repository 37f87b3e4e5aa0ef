//! How large the pictures in a request become when they are decoded, which engines do not bound: a file of some
//! kilobytes can hold gigabytes.

use std::io::Read;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem::Finder;
use serde_json::Value;

use super::error::{DialectError, ErrorKind};

/// Pixels of all pictures of a request together.
const MAX_PIXELS: u64 = 64_000_000;

/// Bytes that a PNG file may unpack to for each of its pixels (four channels of 16 bits, and the filters' bytes).
const PNG_BYTES: u64 = 9;

/// What leads engines to a picture, which need not be a `data:` URL: any text in base64 will do, and one that is said to
/// be sound may be a picture all the same. Escapes may hide the word.
static LEADS: LazyLock<[Finder<'static>; 8]> = LazyLock::new(|| {
    ["base64", "\\u", "\"images\"", "image_url", "input_audio", "input_video", "video_url", "multimodal_data"]
        .map(Finder::new)
});

/// Whether there may be pictures in a request of any dialect.
pub fn possible(request: &[u8]) -> bool {
    LEADS.iter().any(|word| word.find(request).is_some())
}

/// Holds the pictures in `body`, JSON for an engine, against the limit. What is no picture is left to the engine to
/// refuse.
///
/// # Errors
/// [`ErrorKind::TooLarge`] with the size and the limit.
pub fn check(body: &[u8]) -> Result<(), DialectError> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
    let mut pixels = 0;
    walk(&body, &mut pixels)
}

fn walk(value: &Value, pixels: &mut u64) -> Result<(), DialectError> {
    match value {
        Value::String(text) => {
            let url = text.strip_prefix("data:").and_then(|rest| rest.split_once(','));
            add(url.map_or(text, |(_, data)| data), pixels)
        }
        Value::Array(values) => values.iter().try_for_each(|value| walk(value, pixels)),
        Value::Object(fields) => fields.values().try_for_each(|value| walk(value, pixels)),
        _ => Ok(()),
    }
}

fn add(data: &str, pixels: &mut u64) -> Result<(), DialectError> {
    // As lenient as an engine may be: what is not read here is not bounded.
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let text: Vec<u8> = data.bytes().take_while(known).collect();
    let whole = &text[..text.len() - usize::from(text.len() % 4 == 1)];
    let Ok(bytes) = GeneralPurpose::new(&STANDARD, config).decode(whole) else { return Ok(()) };
    let Ok(size) = imagesize::blob_size(&bytes) else { return Ok(()) };
    let (width, height) = (size.width as u64, size.height as u64);
    *pixels = pixels.saturating_add(width.saturating_mul(height));
    if *pixels > MAX_PIXELS {
        return Err(too_large(format!(
            "the pictures of a request may have {MAX_PIXELS} pixels together, and with one of {width} by {height} \
             they have {pixels}; send them smaller"
        )));
    }
    let most = width.saturating_mul(height).saturating_mul(PNG_BYTES).saturating_add(1 << 20);
    if unpacks_beyond(&bytes, most) {
        return Err(too_large(format!(
            "a PNG picture of {width} by {height} pixels unpacks to more than {most} bytes, which none does"
        )));
    }
    Ok(())
}

fn too_large(text: String) -> DialectError {
    DialectError::new(ErrorKind::TooLarge, text).with_param("messages")
}

/// Whether the data of a PNG file is more than `most` bytes unpacked. The format is that of the PNG specification,
/// third edition, sections 5 and 10: chunks of length, type, data and checksum; those of type `IDAT` are one zlib
/// stream.
fn unpacks_beyond(file: &[u8], most: u64) -> bool {
    let Some(mut rest) = file.strip_prefix(b"\x89PNG\r\n\x1a\n") else { return false };
    let mut packed = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let data = &behind[..length.min(behind.len())];
        if &head[4..] == b"IDAT" {
            packed.extend_from_slice(data);
        }
        rest = behind.get(length + 4..).unwrap_or_default();
    }
    let mut unpacked = flate2::read::ZlibDecoder::new(packed.as_slice()).take(most + 1);
    let mut piece = [0; 32 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = unpacked.read(&mut piece) {
        total += count as u64;
    }
    total > most
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A PNG file of this size whose data is so many zeros.
    fn png(width: u32, height: u32, zeros: usize) -> String {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |kind: &[u8], data: &[u8]| {
            file.extend((data.len() as u32).to_be_bytes());
            file.extend(kind);
            file.extend(data);
            file.extend([0; 4]);
        };
        let header = [width.to_be_bytes().as_slice(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        chunk(b"IHDR", &header);
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![0; zeros]).unwrap();
        let packed = packed.finish().unwrap();
        let (first, second) = packed.split_at(packed.len() / 2);
        chunk(b"IDAT", first);
        chunk(b"IDAT", second);
        chunk(b"IEND", &[]);
        base64::engine::general_purpose::STANDARD.encode(file)
    }

    fn fault(urls: &[String]) -> String {
        let parts: Vec<Value> = urls
            .iter()
            .map(|url| serde_json::json!({ "type": "image_url", "image_url": { "url": url } }))
            .collect();
        let body = serde_json::json!({ "messages": [{ "role": "user", "content": parts }] });
        check(body.to_string().as_bytes()).err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn pictures_are_bounded_together_and_unpacked() {
        let url = |data: String| format!("data:image/png;base64,{data}");
        assert_eq!(fault(&[url(png(640, 480, 640 * 480 * 3 + 480))]), "");
        assert!(fault(&[url(png(12_000, 12_000, 100))]).contains("12000 by 12000"));
        let half = || url(png(7_000, 7_000, 100));
        assert_eq!(fault(&[half()]), "");
        assert!(fault(&[half(), half()]).contains("98000000"));
        assert!(fault(&[url(png(16, 16, 64 << 20))]).contains("unpacks to more than"));
        assert_eq!(fault(&["data:image/png;base64,AAAA".into(), "https://x".into(), url("%".into())]), "");
    }

    #[test]
    fn escapes_and_missing_padding_hide_nothing() {
        let data = png(12_000, 12_000, 100);
        let data = data.trim_end_matches('=');
        for text in [
            format!(r#"{{"a":"data:image/png;b\u0061se64,{data}"}}"#),
            format!(r#"{{"a":["data:image/png;base64,{data}"]}}"#),
            format!(r#"{{"image_url":{{"url":"{data}"}}}}"#),
            format!(r#"{{"input_audio":{{"format":"wav","data":"{data}"}}}}"#),
            format!(r#"{{"prompt":{{"prompt_string":"x","multimodal_data":["{data}"]}}}}"#),
            format!(r#"{{"a":"data:image/png;base64,{}"}}"#, data.replace('/', "\\/")),
        ] {
            assert!(possible(text.as_bytes()) && check(text.as_bytes()).is_err(), "{}", &text[..60]);
        }
    }
}
