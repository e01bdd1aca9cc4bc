//! JSON as the reference writes it: `<`, `>`, `&` and the two Unicode line separators are escaped, as Go's encoder does.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// Writes `value` as the reference would.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut output = Vec::with_capacity(512);
    encode_into(value, &mut output);
    output
}

/// Appends `value` as the reference would write it.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, output: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(output, HtmlSafe);
    // Our own types hold string keys only and a Vec takes every byte, so writing them cannot fail.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Compact JSON with the characters escaped that Go's encoder escapes.
struct HtmlSafe;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let Some(special) = from.chars().next() else {
                break;
            };
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = from.get(special.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let text: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(text)
    }
}
