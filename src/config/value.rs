//! The tree that a configuration file becomes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A place in a configuration file. Lines and columns count from 1, columns in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The path as the operator wrote it; empty for text that came from no file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The members of a map, in the order of their names. Names keep their case.
pub type Map = BTreeMap<String, Node>;

/// One value and where it stands. A map's member stands where its key does.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it (or its key) begins.
    pub position: Position,
    /// Some `$reference` named this key, so that it may be a key that no option has.
    pub used_as_variable: bool,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Quoted, unquoted or block text.
    String(String),
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// A whole number, its size suffix already applied.
    Integer(i64),
    /// A number with a decimal point.
    Float(f64),
    /// `YYYY-MM-DDThh:mm:ssZ`, checked to be a date and kept as written.
    DateTime(String),
    /// `[ … ]`
    Array(Vec<Node>),
    /// `{ … }`
    Map(Map),
}

impl Value {
    /// The kind of value in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a decimal number",
            Value::DateTime(_) => "a date",
            Value::Array(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// How many nodes hang below this value.
    pub(super) fn descendants(&self) -> usize {
        match self {
            Value::Array(items) => items.iter().map(|node| 1 + node.value.descendants()).sum(),
            Value::Map(members) => members
                .values()
                .map(|node| 1 + node.value.descendants())
                .sum(),
            _ => 0,
        }
    }
}
