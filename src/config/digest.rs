//! The name of a configuration: SHA-256 over the JSON of its tree, as the reference computes it.
//!
//! Two servers with the same file show the same digest in `-t` and `/varz`, whichever implementation they run.

use super::value::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// `sha256:<hex>` of the tree.
pub fn config_digest(map: &Map) -> String {
    let mut json = String::new();
    write_map(map, &mut json);
    json.push('\n');
    let mut name = String::from("sha256:");
    for byte in Sha256::digest(json.as_bytes()) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn write_map(map: &Map, json: &mut String) {
    json.push('{');
    for (index, (key, node)) in map.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_string(key, json);
        json.push(':');
        write_value(&node.value, json);
    }
    json.push('}');
}

fn write_value(value: &Value, json: &mut String) {
    match value {
        Value::String(text) | Value::DateTime(text) => write_string(text, json),
        Value::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
        Value::Integer(number) => {
            let _ = write!(json, "{number}");
        }
        Value::Float(number) => write_float(*number, json),
        Value::Array(items) => {
            json.push('[');
            for (index, node) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_value(&node.value, json);
            }
            json.push(']');
        }
        Value::Map(map) => write_map(map, json),
    }
}

/// Go's form: shortest digits, with an exponent only for the very small and the very large.
fn write_float(number: f64, json: &mut String) {
    let size = number.abs();
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                write!(json, "{digits}e+{exponent}")
            }
            _ => write!(json, "{text}"),
        }
    } else {
        write!(json, "{number}")
    };
}

/// Go escapes what HTML and JavaScript would trip over, too.
fn write_string(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}
