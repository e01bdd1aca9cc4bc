//! Double-quoted text as it stands in error messages about subjects.

use std::fmt::Write;

/// Puts `bytes` in double quotes; what is not printable is escaped.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            quote_character(&mut out, character);
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_character(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0b' => out.push_str("\\v"),
        '\x0c' => out.push_str("\\f"),
        other if (other as u32) < 0x80 && other.is_control() => {
            let _ = write!(out, "\\x{:02x}", other as u32);
        }
        other if other.is_control() => {
            let _ = write!(out, "\\u{:04x}", other as u32);
        }
        other => out.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn plain_subjects_stay_as_they_are_and_the_rest_is_escaped() {
        assert_eq!(quoted(b"a.b"), "\"a.b\"");
        assert_eq!(quoted("ünï.☃".as_bytes()), "\"ünï.☃\"");
        assert_eq!(quoted(b"a\"\\\x01\xff"), "\"a\\\"\\\\\\x01\\xff\"");
    }
}
