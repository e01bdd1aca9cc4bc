//! Which message of another stream a message is: the header that says so, and how far each source has come.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::codec::{DecodeError, Reader, Writer};
use super::headers;
use crate::jetstream::types::{PeerId, StreamSource};

/// The header that says where a message came from.
pub(crate) const SOURCE_HEADER: &str = "Nats-Stream-Source";

/// What tells the sources of a stream apart: the origin, what it is filtered by, and what its subjects become.
pub(crate) fn index_name(source: &StreamSource) -> String {
    let origin = origin_name(source);
    let or_all = |subject: &str| match subject {
        "" => ">".to_owned(),
        subject => subject.to_owned(),
    };
    let transforms = &source.subject_transforms;
    if transforms.is_empty() {
        return format!("{origin} {} >", or_all(&source.filter_subject));
    }
    let sources: Vec<String> = transforms.iter().map(|it| or_all(&it.src)).collect();
    let destinations: Vec<String> = transforms.iter().map(|it| or_all(&it.dest)).collect();
    format!(
        "{origin} {} {}",
        sources.join("\u{c}"),
        destinations.join("\u{c}")
    )
}

/// The origin as headers name it: one of another account or domain with a hash of how it is reached.
fn origin_name(source: &StreamSource) -> String {
    let mut name = source.name.clone();
    if let Some(external) = &source.external {
        name = format!("{name}:{}", PeerId::of(&external.api));
    }
    if let Some(consumer) = &source.consumer {
        name = format!("{name}:C={}", PeerId::of(&consumer.name));
    }
    name
}

/// The headers of a message without those that were meant for its origin alone.
pub(crate) fn without_origins_own(block: Bytes, names_source: bool) -> Bytes {
    let is_origins = |name: &[u8]| {
        name.starts_with(b"Nats-Expected-")
            || name.starts_with(b"Nats-Batch-")
            || (names_source && name == SOURCE_HEADER.as_bytes())
    };
    let mut any = false;
    headers::each(&block, |name, _| any |= is_origins(name));
    match any {
        true => Bytes::from(headers::without_those(&block, is_origins)),
        false => block,
    }
}

/// The headers of a message with one more.
pub(crate) fn with_header(block: &[u8], name: &str, value: &[u8]) -> Bytes {
    Bytes::from(headers::with(block, name, value))
}

/// The value of the header for a message of a source.
pub(crate) fn header(index_name: &str, sequence: u64, subject: &[u8]) -> Vec<u8> {
    let mut fields = index_name.splitn(2, ' ');
    let origin = fields.next().unwrap_or_default();
    let filters = fields.next().unwrap_or_default();
    let mut value = format!("{origin} {sequence} {filters} ").into_bytes();
    value.extend_from_slice(subject);
    value
}

/// The source and the sequence that a header names. Of versions before 2.10 only the origin is known, as the first field.
pub(crate) fn parse_header(value: &[u8]) -> Option<(String, u64)> {
    let value = std::str::from_utf8(value).ok()?;
    let fields: Vec<&str> = value.split(' ').collect();
    match fields.as_slice() {
        [origin, sequence] => Some(((*origin).to_owned(), sequence.parse().ok()?)),
        [origin, sequence, filters, destinations, ..] => {
            let name = format!("{origin} {filters} {destinations}");
            Some((name, sequence.parse().ok()?))
        }
        _ => None,
    }
}

/// Whether headers name a source so.
fn is_called(source: &StreamSource, name: &str) -> bool {
    index_name(source) == name || origin_name(source) == name
}

/// How far each source has come: its last message that was stored.
///
/// # Invariant
/// Changes only with applied entries. What was stored and has left the stream since still counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SourcePositions {
    by_name: BTreeMap<String, u64>,
}

impl SourcePositions {
    /// A message with this header is stored. What is none of the sources does not count: anybody can publish such a header.
    pub(crate) fn note(&mut self, header: &[u8], sources: &[StreamSource]) {
        let Some((name, sequence)) = parse_header(header) else {
            return;
        };
        if let Some(position) = self.by_name.get_mut(&name) {
            *position = (*position).max(sequence);
        } else if sources.iter().any(|source| is_called(source, &name)) {
            self.by_name.insert(name, sequence);
        }
    }

    /// The last message of a source.
    pub(crate) fn of(&self, source: &StreamSource) -> Option<u64> {
        let by_index = self.by_name.get(&index_name(source));
        by_index
            .or_else(|| self.by_name.get(&origin_name(source)))
            .copied()
    }

    /// Forgets the sources that are configured no longer.
    pub(crate) fn keep(&mut self, sources: &[StreamSource]) {
        self.by_name
            .retain(|name, _| sources.iter().any(|source| is_called(source, name)));
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.by_name.len() as u64);
        for (name, sequence) in &self.by_name {
            writer.blob(name.as_bytes());
            writer.number(*sequence);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut positions = Self::default();
        for _ in 0..reader.number()? {
            let name = reader.text()?.to_owned();
            positions.by_name.insert(name, reader.number()?);
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::types::{ExternalStream, SubjectTransform};

    fn source(name: &str) -> StreamSource {
        StreamSource {
            name: name.to_owned(),
            ..StreamSource::default()
        }
    }

    #[test]
    fn a_source_is_named_by_origin_filter_and_transforms() {
        assert_eq!(index_name(&source("O")), "O > >");
        let filtered = StreamSource {
            filter_subject: "o.a".to_owned(),
            ..source("O")
        };
        assert_eq!(index_name(&filtered), "O o.a >");
        let transform = |src: &str, dest: &str| SubjectTransform {
            src: src.to_owned(),
            dest: dest.to_owned(),
        };
        let transformed = StreamSource {
            subject_transforms: vec![transform("o.>", "p.>"), transform("", "q")],
            ..source("O")
        };
        assert_eq!(index_name(&transformed), "O o.>\u{c}> p.>\u{c}q");
        let external = StreamSource {
            external: Some(ExternalStream {
                api: "$JS.hub.API".to_owned(),
                deliver: String::new(),
            }),
            ..source("O")
        };
        let name = index_name(&external);
        assert!(
            name.starts_with("O:") && name.ends_with(" > >") && name.len() == 14,
            "{name}"
        );
    }

    #[test]
    fn a_header_says_which_message_it_is() {
        let name = index_name(&source("O"));
        let value = header(&name, 7, b"o.a");
        assert_eq!(value, b"O 7 > > o.a");
        let mut positions = SourcePositions::default();
        let sources = [source("O"), source("OLD")];
        positions.note(&value, &sources);
        positions.note(&header(&name, 5, b"o.b"), &sources);
        positions.note(b"OLD 3", &sources);
        positions.note(b"nonsense", &sources);
        positions.note(b"P 9 > > p.a", &sources);
        assert_eq!(positions.of(&source("O")), Some(7));
        assert_eq!(positions.of(&source("OLD")), Some(3));
        assert_eq!(positions.of(&source("P")), None);
        let mut writer = Writer::default();
        positions.write(&mut writer);
        let read = SourcePositions::read(&mut Reader::new(&writer.bytes)).expect("reads");
        assert_eq!(read, positions);
        positions.keep(&[source("O")]);
        assert_eq!(positions.of(&source("OLD")), None);
    }
}
