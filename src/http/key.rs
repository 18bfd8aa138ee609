//! The key in a header's value.
//!
//! The draft makes it a string of a structured field (RFC 8941): `"8e03978e-40d5"`, perhaps with
//! parameters, which mean nothing here. Most clients in use send it without the quotes, so that
//! visible characters that cannot be taken for anything else are a key too: `8e03978e-40d5` is the
//! same key as the one above.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The value of a header is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The key of a request; `None` where it has no such header.
pub(super) fn of_header(
    headers: &HeaderMap,
    name: &HeaderName,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => parse(value).map(Some),
        (Some(_), Some(_)) => Err(Malformed),
    }
}

fn parse(value: &HeaderValue) -> Result<Vec<u8>, Malformed> {
    let text = value.as_bytes().trim_ascii();
    let key = match text.split_first() {
        Some((b'"', rest)) => quoted(rest)?,
        _ if text.iter().all(|byte| is_bare(*byte)) => text.to_vec(),
        _ => return Err(Malformed),
    };
    if key.is_empty() { Err(Malformed) } else { Ok(key) }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';')
}

/// What comes after the opening quote: a string's characters, its end, parameters.
fn quoted(rest: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (key, rest) = string(rest)?;
    parameters(rest)?;
    Ok(key)
}

fn string(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Ok((key, rest)),
            [b'\\', escaped @ (b'"' | b'\\'), rest @ ..] => {
                key.push(*escaped);
                rest
            }
            [byte @ (b' '..=b'[' | b']'..=b'~'), rest @ ..] => {
                key.push(*byte);
                rest
            }
            _ => return Err(Malformed),
        };
    }
}

/// `;name`, `;name=value`, any number of them.
fn parameters(text: &[u8]) -> Result<(), Malformed> {
    let mut rest = text.trim_ascii_start();
    while let Some(after) = rest.strip_prefix(b";") {
        rest = name(after.trim_ascii_start())?;
        if let Some(after) = rest.strip_prefix(b"=") {
            rest = match after.strip_prefix(b"\"") {
                Some(inside) => string(inside)?.1,
                None => bare_item(after)?,
            };
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

fn name(text: &[u8]) -> Result<&[u8], Malformed> {
    match text.first() {
        Some(b'a'..=b'z' | b'*') => Ok(after(
            text,
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
        )),
        _ => Err(Malformed),
    }
}

/// A token, number, boolean or byte sequence: told apart by nobody here.
fn bare_item(text: &[u8]) -> Result<&[u8], Malformed> {
    let rest = after(text, is_bare);
    if rest.len() < text.len() { Ok(rest) } else { Err(Malformed) }
}

fn after(text: &[u8], belongs: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !belongs(*byte)).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(value: &str) -> Option<String> {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        parse(&value).ok().map(|key| String::from_utf8(key).unwrap())
    }

    #[test]
    fn a_quoted_string_is_a_key_without_its_quotes() {
        assert_eq!(key(r#""8e03978e-40d5""#).unwrap(), "8e03978e-40d5");
        assert_eq!(key(r#"  "a b, c; d"  "#).unwrap(), "a b, c; d");
        assert_eq!(key(r#""a\"b\\c""#).unwrap(), r#"a"b\c"#);
    }

    #[test]
    fn a_bare_token_is_the_key_it_would_be_in_quotes() {
        assert_eq!(key("8e03978e-40d5").unwrap(), "8e03978e-40d5");
        assert_eq!(key("aGVsbG8+/w==").unwrap(), "aGVsbG8+/w==");
    }

    #[test]
    fn parameters_are_no_part_of_the_key() {
        for value in [r#""k";a"#, r#""k"; a=1;b="x;y""#, r#""k";a=?0;b=token"#] {
            assert_eq!(key(value).as_deref(), Some("k"), "{value}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for value in [
            "",
            r#""""#,
            r#""open"#,
            r#""a"b"#,
            r#""a\n""#,
            r#""a","b""#,
            "a,b",
            "a b",
            "a;b",
            "\"a\tb\"",
            "\"\u{e4}\"",
            "\u{e4}",
            r#""k";"#,
            r#""k";A=1"#,
            r#""k";a="#,
        ] {
            assert_eq!(key(value), None, "{value:?}");
        }
    }

    #[test]
    fn two_headers_are_malformed() {
        let name = HeaderName::from_static("idempotency-key");
        let mut headers = HeaderMap::new();
        assert_eq!(of_header(&headers, &name), Ok(None));
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(of_header(&headers, &name), Ok(Some(b"a".to_vec())));
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(of_header(&headers, &name), Err(Malformed));
    }

    proptest! {
        #[test]
        fn every_printable_text_comes_through_its_quotes(text in "[ -~]{1,40}") {
            let quoted = format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
            prop_assert_eq!(key(&quoted), Some(text));
        }

        #[test]
        fn any_value_is_a_key_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                prop_assert!(parse(&value).map_or(true, |key| !key.is_empty()));
            }
        }
    }
}
