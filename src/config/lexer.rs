//! Characters of a configuration file into keys and plain values. What nests is the parser's.
//!
//! The language is read as nats-server reads it, with its traps: an unquoted `2m` is two million and not two minutes,
//! an unquoted string ends at a single quote, and a key ends only at white space or a separator.

use super::value::{Position, Value};
use std::sync::Arc;

/// Text that is not this language, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: Parse error on line {}: {reason}", position.line)]
pub struct ParseError {
    /// Where reading stopped.
    pub position: Position,
    /// What was expected there, or what is wrong.
    pub reason: String,
}

/// A value without inner structure.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A value that stands for itself.
    Plain(Value),
    /// `$name`: to be looked up.
    Variable(String),
}

/// A key as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, without quotes.
    pub name: String,
    /// Quoted names are never keywords.
    pub quoted: bool,
}

/// A cursor over the text of one file.
pub struct Lexer<'a> {
    text: &'a str,
    file: Arc<str>,
    offset: usize,
    line: u32,
    line_start: usize,
}

impl<'a> Lexer<'a> {
    /// A cursor at the beginning of `text`; `file` is only named in positions.
    pub fn new(text: &'a str, file: Arc<str>) -> Self {
        Lexer {
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            file,
            offset: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// Where the cursor stands.
    pub fn position(&self) -> Position {
        let column = self
            .offset
            .saturating_sub(self.line_start)
            .saturating_add(1);
        Position {
            file: Arc::clone(&self.file),
            line: self.line,
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// An error where the cursor stands.
    pub fn error(&self, reason: impl Into<String>) -> ParseError {
        ParseError {
            position: self.position(),
            reason: reason.into(),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.offset).unwrap_or("")
    }

    /// The next character, left in place.
    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the next character.
    pub fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.offset += next.len_utf8();
        if next == '\n' {
            self.line = self.line.saturating_add(1);
            self.line_start = self.offset;
        }
        Some(next)
    }

    fn bump_while(&mut self, accept: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&accept) {
            self.bump();
        }
    }

    /// Whether a comment begins here.
    pub fn at_comment(&self) -> bool {
        let rest = self.rest();
        rest.starts_with('#') || rest.starts_with("//")
    }

    /// Skips to the end of the line, which is left in place.
    pub fn skip_comment(&mut self) {
        self.bump_while(|c| !is_newline(c));
    }

    /// Skips blanks and tabs.
    pub fn skip_inline(&mut self) {
        self.bump_while(is_inline_space);
    }

    /// Skips all white space, new lines included.
    pub fn skip_whitespace(&mut self) {
        self.bump_while(char::is_whitespace);
    }

    /// Skips white space, new lines and comments.
    pub fn skip_blank(&mut self) {
        loop {
            self.skip_whitespace();
            if !self.at_comment() {
                return;
            }
            self.skip_comment();
        }
    }

    /// Reads a key.
    pub fn key(&mut self) -> Result<Key, ParseError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                let name = self.quoted(quote, "a quoted key is never closed")?;
                Ok(Key { name, quoted: true })
            }
            Some(separator) if is_separator(separator) => {
                Err(self.error(format!("expected a key but found '{separator}'")))
            }
            _ => {
                let start = self.offset;
                self.bump_while(|c| !c.is_whitespace() && !is_separator(c));
                Ok(Key {
                    name: self.since(start).to_owned(),
                    quoted: false,
                })
            }
        }
    }

    /// Reads what stands between two of these quotes, where nothing is escaped.
    fn quoted(&mut self, quote: char, unclosed: &'static str) -> Result<String, ParseError> {
        let position = self.position();
        self.bump();
        let start = self.offset;
        self.bump_while(|c| c != quote);
        let text = self.since(start).to_owned();
        match self.bump() {
            Some(_) => Ok(text),
            None => Err(ParseError {
                position,
                reason: unclosed.into(),
            }),
        }
    }

    /// Takes a key separator if one stands here.
    pub fn separator(&mut self) -> bool {
        let found = self.peek().is_some_and(is_separator);
        if found {
            self.bump();
        }
        found
    }

    /// Reads the path of an `include`.
    pub fn include_path(&mut self) -> Result<String, ParseError> {
        self.skip_inline();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.quoted(quote, "a quoted include path is never closed")
            }
            Some(c)
                if matches!(c, '[' | '{' | '(' | '-' | '\\')
                    || c.is_ascii_digit()
                    || is_newline(c) =>
            {
                Err(self.error(format!("expected the path of an include but found {c:?}")))
            }
            None => Err(self.error("expected the path of an include but the file ends")),
            Some(_) => {
                let start = self.offset;
                self.bump_while(|c| {
                    !(is_newline(c) || is_inline_space(c) || matches!(c, ';' | '}' | '\''))
                });
                let path = self.since(start).to_owned();
                if self.peek() == Some('\'') {
                    self.bump();
                }
                Ok(path)
            }
        }
    }

    /// Reads a value that is neither a list nor a map.
    pub fn scalar(&mut self) -> Result<Scalar, ParseError> {
        match self.peek() {
            Some('\'') => self.single_quoted(),
            Some('"') => self.double_quoted(),
            Some('(') => self.block(),
            Some('.') => Err(self.error("a decimal number must start with a digit, not '.'")),
            Some(c) if is_newline(c) => Err(self.error("expected a value but found a new line")),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            _ => self.bare(self.offset),
        }
    }

    fn single_quoted(&mut self) -> Result<Scalar, ParseError> {
        let opened = self.position();
        self.bump();
        let start = self.offset;
        self.bump_while(|c| c != '\'');
        let text = self.since(start).to_owned();
        match self.bump() {
            Some(_) => Ok(Scalar::Plain(Value::String(text))),
            None => Err(unclosed(opened)),
        }
    }

    fn double_quoted(&mut self) -> Result<Scalar, ParseError> {
        let opened = self.position();
        self.bump();
        let mut text = Vec::new();
        loop {
            let start = self.offset;
            self.bump_while(|c| c != '"' && c != '\\');
            text.extend_from_slice(self.since(start).as_bytes());
            match self.bump() {
                Some('"') => break,
                Some(_) => self.escape(&mut text)?,
                None => return Err(unclosed(opened)),
            }
        }
        utf8(text, opened).map(|text| Scalar::Plain(Value::String(text)))
    }

    /// One escape, its backslash already taken.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), ParseError> {
        let unknown = "expected one of the escapes \\xXX, \\t, \\n, \\r, \\\" and \\\\";
        let byte = match self.peek() {
            Some('t') => b'\t',
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                self.bump();
                let digits = self.rest().get(..2);
                let byte = digits
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                    .ok_or_else(|| self.error("expected two hexadecimal digits after \\x"))?;
                self.bump();
                byte
            }
            _ => return Err(self.error(unknown)),
        };
        self.bump();
        text.push(byte);
        Ok(())
    }

    /// `( … )`: everything up to a `)` alone on its line.
    fn block(&mut self) -> Result<Scalar, ParseError> {
        let opened = self.position();
        self.bump();
        let start = self.offset;
        loop {
            let at_line_start = self.offset == self.line_start && self.offset > start;
            if at_line_start && self.peek() == Some(')') {
                let text = self.since(start).to_owned();
                self.bump();
                if self.peek().is_none_or(is_newline) {
                    return Ok(Scalar::Plain(Value::String(text)));
                }
            }
            if self.bump().is_none() {
                return Err(ParseError {
                    position: opened,
                    reason: "a block is never closed by ')' on a line of its own".into(),
                });
            }
        }
    }

    /// Something that begins like a number: an integer with or without size suffix, a decimal number, a date, an
    /// address, or a string after all.
    fn number(&mut self) -> Result<Scalar, ParseError> {
        let start = self.offset;
        let negative = self.peek() == Some('-');
        if negative {
            self.bump();
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return Err(self.error("expected a digit after '-'"));
            }
        }
        self.bump_while(|c| c.is_ascii_digit());
        let digits_end = self.offset;
        match self.peek() {
            Some('-') if !negative => self.date(start),
            Some('.') => self.decimal(start),
            Some(c) if is_size_suffix(c) => {
                self.bump();
                self.bump_while(|c| matches!(c, 'b' | 'B' | 'i' | 'I'));
                match self.at_terminator() {
                    true => self.integer(start, digits_end),
                    false => self.bare(start),
                }
            }
            _ if self.at_terminator() => self.integer(start, digits_end),
            _ if negative => Err(self.error("expected the number to end here")),
            _ => self.bare(start),
        }
    }

    fn integer(&self, start: usize, digits_end: usize) -> Result<Scalar, ParseError> {
        let written = self.since(start);
        let out_of_range = || self.error(format!("integer '{written}' is out of range"));
        let number: i64 = self
            .text
            .get(start..digits_end)
            .unwrap_or("")
            .parse()
            .map_err(|_| out_of_range())?;
        let suffix = self.since(digits_end).to_ascii_lowercase();
        let unit = size_unit(&suffix)
            .ok_or_else(|| self.error(format!("'{suffix}' is not a size suffix in '{written}'")))?;
        let number = number.checked_mul(unit).ok_or_else(out_of_range)?;
        Ok(Scalar::Plain(Value::Integer(number)))
    }

    fn decimal(&mut self, start: usize) -> Result<Scalar, ParseError> {
        self.bump();
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.error("a decimal number must have a digit after the '.'"));
        }
        self.bump_while(|c| c.is_ascii_digit());
        if self.at_terminator() {
            let written = self.since(start);
            return written
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .map(|number| Scalar::Plain(Value::Float(number)))
                .ok_or_else(|| self.error(format!("number '{written}' is out of range")));
        }
        self.bump_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '-'));
        self.bare(start)
    }

    fn date(&mut self, start: usize) -> Result<Scalar, ParseError> {
        self.bump_while(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 'Z'));
        let written = self.since(start);
        let well_known = &time::format_description::well_known::Rfc3339;
        let valid = written.len() == "2006-01-02T15:04:05Z".len()
            && written.ends_with('Z')
            && time::OffsetDateTime::parse(written, well_known).is_ok();
        match valid && self.at_terminator() {
            true => Ok(Scalar::Plain(Value::DateTime(written.to_owned()))),
            false => Err(self.error(format!(
                "expected a date as 2006-01-02T15:04:05Z but got '{written}'; quote it if it is text"
            ))),
        }
    }

    /// An unquoted string that began at `start`: perhaps a boolean or a variable.
    fn bare(&mut self, start: usize) -> Result<Scalar, ParseError> {
        let opened = self.position();
        let mut text = Vec::new();
        let mut escaped = false;
        let mut piece = start;
        loop {
            self.bump_while(|c| !is_terminator(c) && c != '\\' && c != '\'');
            text.extend_from_slice(self.since(piece).as_bytes());
            match self.peek() {
                Some('\\') => {
                    self.bump();
                    self.escape(&mut text)?;
                    escaped = true;
                    piece = self.offset;
                }
                Some('\'') => {
                    self.bump();
                    escaped = true;
                    break;
                }
                _ => break,
            }
        }
        let text = utf8(text, opened)?;
        if escaped {
            return Ok(Scalar::Plain(Value::String(text)));
        }
        if let Some(name) = text.strip_prefix('$') {
            return Ok(Scalar::Variable(name.to_owned()));
        }
        Ok(Scalar::Plain(match boolean(&text) {
            Some(value) => Value::Bool(value),
            None => Value::String(text),
        }))
    }

    fn at_terminator(&self) -> bool {
        self.peek().is_none_or(is_terminator)
    }
}

fn unclosed(position: Position) -> ParseError {
    ParseError {
        position,
        reason: "a quoted string is never closed".into(),
    }
}

fn utf8(text: Vec<u8>, position: Position) -> Result<String, ParseError> {
    String::from_utf8(text).map_err(|_| ParseError {
        position,
        reason: "the escapes of this string do not make UTF-8 text".into(),
    })
}

fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("yes") || is("on") {
        Some(true)
    } else if is("false") || is("no") || is("off") {
        Some(false)
    } else {
        None
    }
}

/// What one of a size with this (lower case) suffix counts: `k` is 1000, `kb`, `ki` and `kib` are 1024, and so on.
fn size_unit(suffix: &str) -> Option<i64> {
    if suffix.is_empty() {
        return Some(1);
    }
    let power = match suffix.chars().next()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    match suffix.get(1..)? {
        "" => Some(1000i64.pow(power)),
        "b" | "i" | "ib" => Some(1024i64.pow(power)),
        _ => None,
    }
}

fn is_size_suffix(c: char) -> bool {
    matches!(c.to_ascii_lowercase(), 'k' | 'm' | 'g' | 't' | 'p' | 'e')
}

/// Whether `c` parts a key from its value.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, '=' | ':')
}

/// Whether `c` ends a line.
pub(super) fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_inline_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_terminator(c: char) -> bool {
    is_newline(c) || is_inline_space(c) || matches!(c, ';' | ',' | ']' | '}')
}
