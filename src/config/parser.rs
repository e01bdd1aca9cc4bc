//! The structure of a configuration file: maps, lists, variables and includes.

use super::lexer::{Lexer, ParseError, Scalar, is_newline};
use super::value::{Map, Node, Value};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How deep maps and lists may nest.
pub const NESTING_DEPTH_MAX: usize = 128;
/// How deep files may include files.
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// How large one file may be.
pub const FILE_BYTES_MAX: usize = 256 << 20;
/// How many values variables may multiply into: references copy what they name.
pub const COPIED_VALUES_MAX: usize = 1 << 20;
/// How deep environment variables may refer to each other.
const ENVIRONMENT_DEPTH_MAX: usize = 16;

/// What a configuration may reach outside its own text.
pub trait Surroundings {
    /// The bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The process's own files and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Surroundings for Process {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Why a configuration could not be read into a tree.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file could not be read.
    #[error("error opening config file {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any configuration is.
    #[error("config file {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not the configuration language.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// Reads a file and all that it includes into a tree.
pub fn parse_file(path: &Path, surroundings: &dyn Surroundings) -> Result<Map, ReadError> {
    let shared = Shared {
        surroundings,
        includes: Vec::new(),
        environment: Vec::new(),
        copied: 0,
    };
    read_file(path, shared).map(|(map, _)| map)
}

/// Reads text that came from no file; its includes are relative to the working directory.
pub fn parse_text(text: &str, surroundings: &dyn Surroundings) -> Result<Map, ReadError> {
    let shared = Shared {
        surroundings,
        includes: Vec::new(),
        environment: Vec::new(),
        copied: 0,
    };
    Parser::new(text, Arc::from(""), PathBuf::new(), shared)
        .document()
        .map(|(map, _)| map)
}

/// What a file shares with the files it includes and the variables it reads.
struct Shared<'a> {
    surroundings: &'a dyn Surroundings,
    /// The files being read, outermost first.
    includes: Vec<PathBuf>,
    /// The environment variables being read, outermost first.
    environment: Vec<String>,
    /// Values copied by references so far.
    copied: usize,
}

fn read_file<'a>(path: &Path, mut shared: Shared<'a>) -> Result<(Map, Shared<'a>), ReadError> {
    let bytes = shared
        .surroundings
        .read(path)
        .map_err(|source| ReadError::Open {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
        });
    }
    let file: Arc<str> = Arc::from(path.to_string_lossy().as_ref());
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let sound = bytes.get(..error.valid_up_to()).unwrap_or(&[]);
            let mut lexer = Lexer::new(std::str::from_utf8(sound).unwrap_or(""), file);
            while lexer.bump().is_some() {}
            return Err(lexer.error("the file is not UTF-8 text").into());
        }
    };
    shared.includes.push(path.to_owned());
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    let (map, mut shared) = Parser::new(text, file, directory, shared).document()?;
    shared.includes.pop();
    Ok((map, shared))
}

struct Parser<'a, 's> {
    lexer: Lexer<'a>,
    directory: PathBuf,
    shared: Shared<'s>,
    /// The maps that are open, outermost first: where a variable is looked for.
    scopes: Vec<Map>,
    depth: usize,
}

/// Which map a member stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The file's own top level, without braces.
    Top,
    /// The braces around a whole file.
    WholeFile,
    /// A map that is some key's value.
    Map,
}

impl<'a, 's> Parser<'a, 's> {
    fn new(text: &'a str, file: Arc<str>, directory: PathBuf, shared: Shared<'s>) -> Self {
        Parser {
            lexer: Lexer::new(text, file),
            directory,
            shared,
            scopes: vec![Map::new()],
            depth: 0,
        }
    }

    fn document(mut self) -> Result<(Map, Shared<'s>), ReadError> {
        loop {
            self.lexer.skip_blank();
            match self.lexer.peek() {
                None => break,
                Some('{') => {
                    let opened = self.lexer.position();
                    self.lexer.bump();
                    self.members(Place::WholeFile, &opened)?;
                }
                // A closing brace too many at the very end is let pass, as the reference does.
                Some('}') => {
                    self.lexer.bump();
                    self.lexer.skip_blank();
                    if self.lexer.peek().is_some() {
                        return Err(self
                            .lexer
                            .error("expected the end of the file after '}'")
                            .into());
                    }
                }
                Some(_) => self.member(Place::Top)?,
            }
        }
        Ok((self.scopes.pop().unwrap_or_default(), self.shared))
    }

    /// Members up to the closing brace, which is taken.
    fn members(&mut self, place: Place, opened: &super::value::Position) -> Result<(), ReadError> {
        loop {
            self.lexer.skip_blank();
            match self.lexer.peek() {
                Some('}') => {
                    self.lexer.bump();
                    return Ok(());
                }
                Some(c @ (']' | '{' | '[')) => {
                    return Err(self
                        .lexer
                        .error(format!("expected a key but found '{c}'"))
                        .into());
                }
                Some(_) => self.member(place)?,
                None => {
                    return Err(ParseError {
                        position: opened.clone(),
                        reason: "this map is never closed: unexpected end of file".into(),
                    }
                    .into());
                }
            }
        }
    }

    fn member(&mut self, place: Place) -> Result<(), ReadError> {
        let position = self.lexer.position();
        let key = self.lexer.key()?;
        let spaced = self.lexer.peek().is_some_and(char::is_whitespace);
        if !key.quoted && spaced && key.name.eq_ignore_ascii_case("include") {
            self.include(&position)?;
            return self.end_of_member(place);
        }
        self.lexer.skip_whitespace();
        if self.lexer.separator() {
            match place {
                Place::Map => self.lexer.skip_whitespace(),
                Place::Top | Place::WholeFile => self.lexer.skip_inline(),
            }
        }
        match self.lexer.peek() {
            None => {
                return Err(ParseError {
                    position,
                    reason: format!("config is invalid: '{}' has no value", key.name),
                }
                .into());
            }
            Some(c @ ('}' | ',')) if place == Place::Map => {
                let reason = format!("expected a value for '{}' but found '{c}'", key.name);
                return Err(self.lexer.error(reason).into());
            }
            Some(_) => {}
        }
        let mut node = self.value()?;
        node.position = position;
        self.set(key.name, node);
        self.end_of_member(place)
    }

    fn set(&mut self, name: String, mut node: Node) {
        if let Some(scope) = self.scopes.last_mut() {
            node.used_as_variable = scope.get(&name).is_some_and(|old| old.used_as_variable);
            scope.insert(name, node);
        }
    }

    fn end_of_member(&mut self, place: Place) -> Result<(), ReadError> {
        self.lexer.skip_inline();
        if self.lexer.at_comment() {
            self.lexer.skip_comment();
            return Ok(());
        }
        match self.lexer.peek() {
            None => Ok(()),
            Some('}') if place != Place::Top => Ok(()),
            Some(c) if is_newline(c) || matches!(c, ';' | ',' | '}') => {
                self.lexer.bump();
                Ok(())
            }
            Some(c) => Err(self
                .lexer
                .error(format!(
                    "expected the value to end with a new line, a comment, ',' or ';' but found '{c}'"
                ))
                .into()),
        }
    }

    fn value(&mut self) -> Result<Node, ReadError> {
        let position = self.lexer.position();
        let value = match self.lexer.peek() {
            Some('{') => self.nested(|parser| {
                parser.lexer.bump();
                parser.scopes.push(Map::new());
                parser.members(Place::Map, &position)?;
                Ok(Value::Map(parser.scopes.pop().unwrap_or_default()))
            })?,
            Some('[') => self.nested(Self::array)?,
            _ => match self.lexer.scalar()? {
                Scalar::Plain(value) => value,
                Scalar::Variable(name) => self.variable(&name, &position)?,
            },
        };
        Ok(Node {
            value,
            position,
            used_as_variable: false,
        })
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, ReadError>,
    ) -> Result<Value, ReadError> {
        if self.depth >= NESTING_DEPTH_MAX {
            let reason = format!("maps and lists nest deeper than {NESTING_DEPTH_MAX}");
            return Err(self.lexer.error(reason).into());
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Result<Value, ReadError> {
        let opened = self.lexer.position();
        self.lexer.bump();
        let mut items = Vec::new();
        loop {
            self.lexer.skip_blank();
            match self.lexer.peek() {
                Some(']') => {
                    self.lexer.bump();
                    return Ok(Value::Array(items));
                }
                Some(',') => {
                    return Err(self.lexer.error("expected a value but found ','").into());
                }
                Some(_) => items.push(self.value()?),
                None => {
                    return Err(ParseError {
                        position: opened,
                        reason: "this list is never closed: unexpected end of file".into(),
                    }
                    .into());
                }
            }
            self.end_of_item()?;
        }
    }

    fn end_of_item(&mut self) -> Result<(), ReadError> {
        self.lexer.skip_inline();
        if self.lexer.at_comment() {
            self.lexer.skip_comment();
            self.lexer.skip_inline();
        }
        match self.lexer.peek() {
            None | Some(']') => Ok(()),
            Some(c) if is_newline(c) || c == ',' => {
                self.lexer.bump();
                Ok(())
            }
            Some(c) => Err(self
                .lexer
                .error(format!("expected ',', a new line or ']' but found '{c}'"))
                .into()),
        }
    }

    /// What `$name` stands for: a bcrypt hash stands for itself, then the maps that are open, innermost first, then
    /// the environment.
    fn variable(
        &mut self,
        name: &str,
        position: &super::value::Position,
    ) -> Result<Value, ReadError> {
        if ["2a$", "2b$", "2x$", "2y$"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            return Ok(Value::String(format!("${name}")));
        }
        for scope in self.scopes.iter_mut().rev() {
            if let Some(node) = scope.get_mut(name) {
                node.used_as_variable = true;
                self.shared.copied += 1 + node.value.descendants();
                if self.shared.copied > COPIED_VALUES_MAX {
                    let reason =
                        format!("variables multiply into more than {COPIED_VALUES_MAX} values");
                    return Err(self.lexer.error(reason).into());
                }
                return Ok(node.value.clone());
            }
        }
        self.environment(name, position)
    }

    fn environment(
        &mut self,
        name: &str,
        position: &super::value::Position,
    ) -> Result<Value, ReadError> {
        let fail = |reason: String| {
            Err(ReadError::Parse(ParseError {
                position: position.clone(),
                reason,
            }))
        };
        if self.shared.environment.iter().any(|open| open == name) {
            return fail(format!("variable reference cycle for '{name}'"));
        }
        if self.shared.environment.len() >= ENVIRONMENT_DEPTH_MAX {
            return fail(format!("variable '{name}' is too many references away"));
        }
        let Some(text) = self.shared.surroundings.variable(name) else {
            return fail(format!("variable reference for '{name}' can not be found"));
        };
        // Read as if it had been written in a file, so that numbers, lists and maps work.
        let mut environment = self.shared.environment.clone();
        environment.push(name.to_owned());
        let shared = Shared {
            surroundings: self.shared.surroundings,
            includes: self.shared.includes.clone(),
            environment,
            copied: self.shared.copied,
        };
        let text = format!("value={text}");
        let inner = Parser::new(&text, Arc::from(format!("${name}")), PathBuf::new(), shared);
        match inner.document() {
            Ok((mut map, shared)) => {
                self.shared.copied = shared.copied;
                match map.remove("value") {
                    Some(node) => Ok(node.value),
                    None => fail(format!("variable reference for '{name}' has no value")),
                }
            }
            Err(error) => fail(format!(
                "variable reference for '{name}' could not be parsed: {error}"
            )),
        }
    }

    fn include(&mut self, position: &super::value::Position) -> Result<(), ReadError> {
        let written = self.lexer.include_path()?;
        let path = join_below(&self.directory, Path::new(&written));
        let fail = |reason: String| {
            Err(ReadError::Parse(ParseError {
                position: position.clone(),
                reason,
            }))
        };
        if self.shared.includes.contains(&path) {
            return fail(format!("'{written}' includes itself"));
        }
        if self.shared.includes.len() >= INCLUDE_DEPTH_MAX {
            return fail(format!(
                "includes nest deeper than {INCLUDE_DEPTH_MAX} at '{written}'"
            ));
        }
        let shared = Shared {
            surroundings: self.shared.surroundings,
            includes: self.shared.includes.clone(),
            environment: self.shared.environment.clone(),
            copied: self.shared.copied,
        };
        match read_file(&path, shared) {
            Ok((map, shared)) => {
                self.shared.copied = shared.copied;
                for (name, node) in map {
                    let used = node.used_as_variable;
                    self.set(name.clone(), node);
                    if used
                        && let Some(node) = self.scopes.last_mut().and_then(|s| s.get_mut(&name))
                    {
                        node.used_as_variable = true;
                    }
                }
                Ok(())
            }
            Err(error) => fail(format!("error parsing include file '{written}', {error}")),
        }
    }
}

/// An include is always taken below the including file's directory, an absolute path too: the reference does so, and the
/// same file must mean the same here.
fn join_below(directory: &Path, path: &Path) -> PathBuf {
    let mut joined = directory.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(part) => joined.push(part),
            Component::ParentDir => joined.push(".."),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    joined
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
