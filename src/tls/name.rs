//! Distinguished names: what a certificate says of its subject, and what an operator writes to mean it.

use super::der::{OBJECT_IDENTIFIER, Reader, SEQUENCE, SET};

/// `0.9.2342.19200300.100.1.25`: a part of a domain.
const DOMAIN_COMPONENT: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19];

/// The attributes that have a name, with the last byte of `2.5.4.x`, in the order in which a subject is written.
const ATTRIBUTES: [(u8, &str); 9] = [
    (5, "SERIALNUMBER"),
    (3, "CN"),
    (17, "POSTALCODE"),
    (9, "STREET"),
    (8, "ST"),
    (7, "L"),
    (11, "OU"),
    (10, "O"),
    (6, "C"),
];

/// One attribute: its type in capitals and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    kind: String,
    value: String,
}

/// A name: lists of attributes that belong together, the most particular first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    parts: Vec<Vec<Attribute>>,
}

impl DistinguishedName {
    /// The name of a certificate's subject; `None` when one of its attributes has no name here.
    pub(super) fn of_subject(subject: &[u8]) -> Option<Self> {
        let mut parts = attributes_of(subject)?
            .into_iter()
            .map(|part| {
                let named = part.into_iter().rev().map(|(kind, value)| {
                    let kind = attribute_name(kind)?.to_owned();
                    Some(Attribute { kind, value })
                });
                named.collect::<Option<Vec<_>>>()
            })
            .collect::<Option<Vec<_>>>()?;
        parts.retain(|part| !part.is_empty());
        parts.reverse();
        Some(Self { parts })
    }

    /// A name as it is written, `CN=a,O=b+OU=c` (RFC 4514).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = vec![Vec::new()];
        for (separator, kind, value) in pairs(text)? {
            if separator == b',' && parts.last().is_some_and(|part| !part.is_empty()) {
                parts.push(Vec::new());
            }
            let attribute = Attribute {
                kind: kind.to_ascii_uppercase(),
                value,
            };
            parts.last_mut()?.push(attribute);
        }
        Some(Self { parts })
    }

    /// Whether both have the same parts, in whatever order.
    pub fn has_same_parts(&self, other: &Self) -> bool {
        let mut left: Vec<_> = other.parts.iter().collect();
        self.parts.len() == other.parts.len()
            && self.parts.iter().all(|part| {
                let found = left.iter().position(|other| is_same_part(part, other));
                found.map(|at| left.swap_remove(at)).is_some()
            })
    }

    /// Whether both have the same parts in the same order.
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.parts.iter().zip(&other.parts);
        self.parts.len() == other.parts.len() && pairs.all(|(one, two)| is_same_part(one, two))
    }
}

/// The order of attributes within a part means nothing.
fn is_same_part(one: &[Attribute], two: &[Attribute]) -> bool {
    one.len() == two.len()
        && one.iter().all(|attribute| two.contains(attribute))
        && two.iter().all(|attribute| one.contains(attribute))
}

/// The subject as text: the attributes that have a name in their customary order, and the same with the parts of the domain
/// behind it, when there are any.
pub(super) fn written(subject: &[u8]) -> (String, Option<String>) {
    let all: Vec<(&[u8], String)> = attributes_of(subject)
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect();
    let mut parts = Vec::new();
    for (number, name) in ATTRIBUTES {
        let mut values: Vec<&String> = all
            .iter()
            .filter(|(kind, _)| *kind == [0x55, 0x04, number])
            .map(|(_, value)| value)
            .collect();
        // Of these there is one; the last says it.
        if matches!(name, "CN" | "SERIALNUMBER") && values.len() > 1 {
            values = values.split_off(values.len() - 1);
        }
        let written: Vec<String> = values
            .into_iter()
            .filter(|value| !(value.is_empty() && matches!(name, "CN" | "SERIALNUMBER")))
            .map(|value| format!("{name}={}", escaped(value)))
            .collect();
        if !written.is_empty() {
            parts.push(written.join("+"));
        }
    }
    let domain: Vec<String> = all
        .iter()
        .filter(|(kind, _)| *kind == DOMAIN_COMPONENT)
        .map(|(_, value)| format!("DC={value}"))
        .collect();
    let plain = parts.join(",");
    let with_domain = (!domain.is_empty()).then(|| format!("{plain},{}", domain.join(",")));
    (plain, with_domain)
}

/// The attributes of a part: the kind as its identifier's bytes, and the value.
type Part<'a> = Vec<(&'a [u8], String)>;

/// The attributes of each part, in the certificate's order.
fn attributes_of(subject: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut sequence = Reader(subject).expect(SEQUENCE)?.inside();
    while let Some(set) = sequence.expect(SET) {
        let mut part = Vec::new();
        let mut members = set.inside();
        while let Some(pair) = members.expect(SEQUENCE) {
            let mut pair = pair.inside();
            let kind = pair.expect(OBJECT_IDENTIFIER)?.content;
            part.push((kind, pair.next()?.text()?));
        }
        parts.push(part);
    }
    Some(parts)
}

fn attribute_name(kind: &[u8]) -> Option<&'static str> {
    if kind == DOMAIN_COMPONENT {
        return Some("DC");
    }
    let [0x55, 0x04, number] = kind else {
        return None;
    };
    let known = ATTRIBUTES.iter().find(|(known, _)| known == number);
    known.map(|(_, name)| *name)
}

/// What separates names and values is escaped, and so is white space at the ends (RFC 2253).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let is_special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && at == 0)
            || (c == ' ' && (at == 0 || at == last));
        if is_special {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// The pairs of a written name, each with what separates it from the one before: `,` or `+`.
fn pairs(text: &str) -> Option<Vec<(u8, String, String)>> {
    let mut found = Vec::new();
    let mut kind: Option<String> = None;
    let mut separator = b',';
    let mut current = Vec::new();
    let mut trailing = 0;
    let mut bytes = text.bytes().peekable();
    let take = |current: &mut Vec<u8>, trailing: &mut usize| {
        current.truncate(current.len() - std::mem::take(trailing));
        String::from_utf8(std::mem::take(current)).ok()
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let next = bytes.next()?;
                trailing = 0;
                current.push(match next {
                    b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\' => next,
                    high => {
                        let digit = |byte: u8| char::from(byte).to_digit(16);
                        let number = digit(high)? * 16 + digit(bytes.next()?)?;
                        u8::try_from(number).ok()?
                    }
                });
            }
            b'=' if kind.is_none() => {
                kind = Some(take(&mut current, &mut trailing)?);
                // A value in BER; nobody writes those.
                if bytes.peek() == Some(&b'#') {
                    return None;
                }
            }
            b',' | b'+' => {
                let name = kind.take().filter(|kind| !kind.is_empty())?;
                found.push((separator, name, take(&mut current, &mut trailing)?));
                separator = byte;
            }
            b' ' if current.is_empty() => {}
            byte => {
                trailing = if byte == b' ' { trailing + 1 } else { 0 };
                current.push(byte);
            }
        }
    }
    if !current.is_empty() {
        let name = kind.take().filter(|kind| !kind.is_empty())?;
        found.push((separator, name, take(&mut current, &mut trailing)?));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, two: &str) -> bool {
        let parse = |text| DistinguishedName::parse(text).unwrap();
        parse(one).is_same(&parse(two))
    }

    #[test]
    fn written_names_are_the_same_whatever_their_case_and_blanks() {
        assert!(same("CN=a,O=b", "cn=a, o=b "));
        assert!(same("CN=a+OU=c,O=b", "OU=c+CN=a,O=b"));
        assert!(same("CN=a\\,b", "CN=a\\2cb"));
        assert!(!same("CN=a,O=b", "O=b,CN=a") && !same("CN=a", "CN=A"));
        let parse = |text| DistinguishedName::parse(text).unwrap();
        assert!(parse("CN=a,O=b").has_same_parts(&parse("O=b,CN=a")));
        assert!(!parse("CN=a,O=b").has_same_parts(&parse("O=b,O=b")));
        for wrong in ["a", "=a,", "CN=#0401", "CN=a\\z", "CN=a\\4"] {
            assert_eq!(DistinguishedName::parse(wrong), None, "{wrong}");
        }
    }
}
