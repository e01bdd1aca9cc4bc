//! The functions of a transform's destination: how they are written and what they make of a subject.
//!
//! `$n` and `{{wildcard(n)}}` give the n-th wildcard's token. `{{partition(buckets, n, …)}}` gives a number below `buckets` that is the
//! same for the same tokens (FNV-1a, as everybody who partitions with the reference relies on). The others cut tokens into pieces.

use super::error::TransformError;
use crate::subject::validate::tokens;

/// FNV-1a, 32 bits: offset basis and prime.
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// A function with its arguments. Wildcards are numbered from 1 as they are written; [`Function::at_tokens`] makes them positions of
/// the source's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Wildcard(Place),
    /// Of these tokens, or of the whole subject when there are none.
    Partition {
        buckets: u32,
        places: Vec<Place>,
    },
    Random {
        below: i32,
    },
    Cut {
        how: Cut,
        place: Place,
        size: i32,
    },
    Split {
        place: Place,
        separator: String,
    },
}

/// Which token a function takes.
pub(super) type Place = i64;

/// How a token is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    SplitFromLeft,
    SplitFromRight,
    SliceFromLeft,
    SliceFromRight,
    Left,
    Right,
}

/// What a name in a destination stands for.
#[derive(Clone, Copy)]
enum Name {
    Wildcard,
    Partition,
    Cut(Cut),
    Split,
    Random,
}

/// Names with the places where a capital may stand.
const NAMES: [(&str, &[usize], Name); 10] = [
    ("wildcard", &[0], Name::Wildcard),
    ("partition", &[0], Name::Partition),
    ("splitfromleft", &[0, 5, 9], Name::Cut(Cut::SplitFromLeft)),
    ("splitfromright", &[0, 5, 9], Name::Cut(Cut::SplitFromRight)),
    ("slicefromleft", &[0, 5, 9], Name::Cut(Cut::SliceFromLeft)),
    ("slicefromright", &[0, 5, 9], Name::Cut(Cut::SliceFromRight)),
    ("right", &[0], Name::Cut(Cut::Right)),
    ("left", &[0], Name::Cut(Cut::Left)),
    ("split", &[0], Name::Split),
    ("random", &[0], Name::Random),
];

/// Whether a token is written as a function is.
pub(super) fn looks_like_one(token: &str) -> bool {
    token.len() > 4 && token.starts_with("{{") && token.ends_with("}}")
}

/// The text between the parentheses of `{{ name( … ) }}`, wherever in the token that begins.
pub(super) fn arguments<'a>(token: &'a str, name: &str, capitals: &[usize]) -> Option<&'a str> {
    token.match_indices('{').find_map(|(at, _)| {
        let rest = token.get(at..)?.strip_prefix("{{")?;
        let rest = rest.trim_start_matches(super::is_white);
        let written = rest.get(..name.len())?;
        let same = written.bytes().zip(name.bytes()).enumerate();
        for (at, (have, want)) in same {
            if have != want && !(capitals.contains(&at) && have == want.to_ascii_uppercase()) {
                return None;
            }
        }
        let rest = rest.get(name.len()..)?;
        let rest = rest.trim_start_matches(super::is_white).strip_prefix('(')?;
        rest.rmatch_indices(')').find_map(|(end, _)| {
            let after = rest.get(end + 1..)?.trim_start_matches(super::is_white);
            after.starts_with("}}").then(|| rest.get(..end)).flatten()
        })
    })
}

/// Arguments are separated by commas; white space after one is dropped.
fn separated(arguments: &str) -> Vec<&str> {
    let mut all = arguments.split(',');
    let first = all.next().unwrap_or_default();
    let others = all.map(|argument| argument.trim_start_matches(super::is_white));
    std::iter::once(first).chain(others).collect()
}

impl Function {
    /// What a token of a destination says; `None` when it stands for itself.
    pub(super) fn parse(token: &str) -> Result<Option<Self>, TransformError> {
        if let Some(number) = token.strip_prefix('$') {
            // Other things rely on tokens with a dollar, so what is no number is no mistake.
            return Ok(number.parse().ok().map(Function::Wildcard));
        }
        if !looks_like_one(token) {
            return Ok(None);
        }
        let found = NAMES.iter().find_map(|(name, capitals, meaning)| {
            Some((*meaning, arguments(token, name, capitals)?))
        });
        let Some((name, arguments)) = found else {
            return Err(TransformError::UnknownFunction {
                token: token.to_owned(),
            });
        };
        let call = Call {
            token,
            arguments: separated(arguments),
        };
        call.read(name).map(Some)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        matches!(self, Function::Wildcard(_))
    }

    /// How many wildcards it takes.
    pub(super) fn wildcard_count(&self) -> usize {
        match self {
            Function::Wildcard(_) | Function::Cut { .. } | Function::Split { .. } => 1,
            Function::Partition { places, .. } => places.len(),
            Function::Random { .. } => 0,
        }
    }

    /// The same with the positions of the source's wildcards instead of their numbers.
    pub(super) fn at_tokens(
        self,
        token: &str,
        wildcards: &[usize],
    ) -> Result<Self, TransformError> {
        let at = |number: Place| -> Result<Place, TransformError> {
            // Numbers below 1 are the first token, as in the reference.
            let Some(index) = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)) else {
                return Ok(0);
            };
            match wildcards.get(index) {
                Some(at) => Ok(Place::try_from(*at).unwrap_or(Place::MAX)),
                None => Err(TransformError::IndexOutOfRange {
                    token: format!("{token}: [{number}]"),
                }),
            }
        };
        Ok(match self {
            Function::Wildcard(place) => Function::Wildcard(at(place)?),
            Function::Partition { buckets, places } => Function::Partition {
                buckets,
                places: places.into_iter().map(at).collect::<Result<_, _>>()?,
            },
            Function::Random { below } => Function::Random { below },
            Function::Cut { how, place, size } => Function::Cut {
                how,
                place: at(place)?,
                size,
            },
            Function::Split { place, separator } => Function::Split {
                place: at(place)?,
                separator,
            },
        })
    }

    /// The same for a source without wildcards, of which only the whole subject can be taken.
    pub(super) fn of_a_literal(self, token: &str) -> Result<Self, TransformError> {
        match self {
            Function::Random { .. } => Ok(self),
            Function::Partition { buckets, .. } => Ok(Function::Partition {
                buckets,
                places: Vec::new(),
            }),
            _ => Err(TransformError::IndexOutOfRange {
                token: token.to_owned(),
            }),
        }
    }

    /// Writes what it makes of a subject.
    pub(super) fn apply(&self, subject: &[u8], random: &mut dyn FnMut() -> u32, out: &mut Vec<u8>) {
        match self {
            Function::Wildcard(place) => out.extend_from_slice(token_at(subject, *place)),
            Function::Partition { buckets, places } => {
                let hash = match places.is_empty() {
                    true => fnv(FNV_OFFSET, subject),
                    false => places
                        .iter()
                        .fold(FNV_OFFSET, |hash, at| fnv(hash, token_at(subject, *at))),
                };
                number(i64::from(hash.checked_rem(*buckets).unwrap_or(0)), out);
            }
            Function::Random { below } => {
                let drawn = i64::from(random() >> 1);
                number(drawn.checked_rem(i64::from(*below)).unwrap_or(0), out);
            }
            Function::Cut { how, place, size } => {
                let token = token_at(subject, *place);
                match usize::try_from(*size) {
                    Ok(size) if size > 0 && size < token.len() => how.apply(token, size, out),
                    _ => out.extend_from_slice(token),
                }
            }
            Function::Split { place, separator } => {
                split(token_at(subject, *place), separator.as_bytes(), out);
            }
        }
    }
}

/// A function's token and its arguments.
struct Call<'a> {
    token: &'a str,
    arguments: Vec<&'a str>,
}

impl Call<'_> {
    fn read(&self, name: Name) -> Result<Function, TransformError> {
        let token = || self.token.to_owned();
        match (name, self.arguments.as_slice()) {
            (Name::Wildcard, [""]) => Err(TransformError::NotEnoughArguments { token: token() }),
            (Name::Wildcard, [place]) => Ok(Function::Wildcard(self.integer(place)?)),
            (Name::Partition, [buckets, places @ ..]) => {
                let places = places.iter().map(|place| self.integer(place));
                Ok(Function::Partition {
                    buckets: self.up_to_i32(buckets)?.cast_unsigned(),
                    places: places.collect::<Result<_, _>>()?,
                })
            }
            (Name::Random, [below]) => Ok(Function::Random {
                below: self.up_to_i32(below)?,
            }),
            (Name::Cut(how), [place, size]) => Ok(Function::Cut {
                how,
                place: self.integer(place)?,
                size: size
                    .trim_matches(' ')
                    .parse()
                    .map_err(|_| TransformError::InvalidArgument { token: token() })?,
            }),
            (Name::Split, [place, separator]) => {
                let place = self.integer(place)?;
                if separator.contains([' ', '.']) {
                    return Err(TransformError::InvalidArgument { token: token() });
                }
                Ok(Function::Split {
                    place,
                    separator: (*separator).to_owned(),
                })
            }
            (Name::Wildcard, _) | (Name::Cut(_) | Name::Split, [_, _, _, ..]) => {
                Err(TransformError::TooManyArguments { token: token() })
            }
            _ => Err(TransformError::NotEnoughArguments { token: token() }),
        }
    }

    fn integer(&self, argument: &str) -> Result<i64, TransformError> {
        let parsed = argument.trim_matches(' ').parse();
        parsed.map_err(|_| TransformError::InvalidArgument {
            token: self.token.to_owned(),
        })
    }

    fn up_to_i32(&self, argument: &str) -> Result<i32, TransformError> {
        i32::try_from(self.integer(argument)?).map_err(|_| TransformError::InvalidArgument {
            token: self.token.to_owned(),
        })
    }
}

impl Cut {
    /// Cuts a token that is longer than the size.
    fn apply(self, token: &[u8], size: usize, out: &mut Vec<u8>) {
        let from_right = token.len() - size;
        match self {
            Cut::Left => out.extend_from_slice(token.get(..size).unwrap_or_default()),
            Cut::Right => out.extend_from_slice(token.get(from_right..).unwrap_or_default()),
            Cut::SplitFromLeft => two(token, size, out),
            Cut::SplitFromRight => two(token, from_right, out),
            Cut::SliceFromLeft => joined(token.chunks(size), out),
            Cut::SliceFromRight => {
                let (first, rest) = token.split_at(token.len() % size);
                let first = (!first.is_empty()).then_some(first);
                joined(first.into_iter().chain(rest.chunks(size)), out);
            }
        }
    }
}

fn two(token: &[u8], at: usize, out: &mut Vec<u8>) {
    let (left, right) = token.split_at(at);
    joined([left, right].into_iter(), out);
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for (at, part) in parts.enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(part);
    }
}

/// Splits a token; empty parts leave no token of their own.
fn split(token: &[u8], separator: &[u8], out: &mut Vec<u8>) {
    let mut rest = token;
    let mut at = 0;
    while let Some((part, next)) = cut_at(rest, separator) {
        out.extend_from_slice(part);
        let following = cut_at(next, separator).map_or(next, |(part, _)| part);
        let nothing_before = at == 0 && part.is_empty();
        if !following.is_empty() && !nothing_before {
            out.push(b'.');
        }
        rest = next;
        at += 1;
    }
    out.extend_from_slice(rest);
}

/// What is before the first separator, and behind it. An empty separator stands between all characters.
fn cut_at<'a>(token: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if separator.is_empty() {
        let is_start = |byte: &u8| byte & 0xc0 != 0x80;
        let end = token.iter().skip(1).position(is_start)? + 1;
        return Some((token.get(..end)?, token.get(end..)?));
    }
    let at = memchr::memmem::find(token, separator)?;
    Some((token.get(..at)?, token.get(at + separator.len()..)?))
}

fn token_at(subject: &[u8], place: Place) -> &[u8] {
    usize::try_from(place)
        .ok()
        .and_then(|place| tokens(subject).nth(place))
        .unwrap_or_default()
}

fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME);
    bytes.iter().fold(hash, mix)
}

fn number(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
