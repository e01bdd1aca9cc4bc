//! The form of a profile: `profile.proto` of pprof, compressed with gzip.
//!
//! Only the messages and fields that a CPU profile needs. Numbers of fields are those of the schema.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A part of a file that the process runs code of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it begins in memory.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// The file.
    pub file: String,
}

/// One stack, and how often it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Where the thread was, the innermost frame first.
    pub addresses: Vec<u64>,
    /// The thread's name.
    pub thread: Arc<str>,
    /// How many samples found it.
    pub count: u64,
}

/// When and how samples were taken.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Processor time between two samples.
    pub period: Duration,
}

/// The profile of these stacks, compressed. Names of functions are not in it: whoever reads it finds them in the files.
pub fn encode(stacks: &[Stack], mappings: &[Mapping], sampling: &Sampling) -> io::Result<Vec<u8>> {
    let message = Profile::default().of(stacks, mappings, sampling);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&message.0)?;
    encoder.finish()
}

/// A message of the protocol buffers' encoding.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }

    fn numbers(&mut self, field: u64, values: &[u64]) {
        let mut packed = Message::default();
        for value in values {
            packed.varint(*value);
        }
        self.message(field, &packed);
    }
}

/// Gives each text and address its number.
#[derive(Default)]
struct Profile {
    texts: HashMap<String, u64>,
    text_order: Vec<String>,
    locations: HashMap<u64, u64>,
    message: Message,
}

impl Profile {
    fn of(mut self, stacks: &[Stack], mappings: &[Mapping], sampling: &Sampling) -> Message {
        // The schema wants the empty text first.
        self.text("");
        let period = nanoseconds(sampling.period);
        for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
            let kind = self.value_type(kind, unit);
            self.message.message(1, &kind);
        }
        for (number, mapping) in (1..).zip(mappings) {
            let mut message = Message::default();
            message.number(1, number);
            message.number(2, mapping.start);
            message.number(3, mapping.end);
            message.number(4, mapping.offset);
            message.number(5, self.text(&mapping.file));
            self.message.message(3, &message);
        }
        let thread_key = self.text("thread");
        for stack in stacks {
            let mut sample = Message::default();
            let addresses = stack.addresses.iter();
            let frames: Vec<u64> = addresses
                .map(|address| self.location(*address, mappings))
                .collect();
            sample.numbers(1, &frames);
            sample.numbers(2, &[stack.count, stack.count.saturating_mul(period)]);
            let mut label = Message::default();
            label.number(1, thread_key);
            label.number(2, self.text(&stack.thread));
            sample.message(3, &label);
            self.message.message(2, &sample);
        }
        let started = sampling.started.duration_since(SystemTime::UNIX_EPOCH);
        let started = nanoseconds(started.unwrap_or_default());
        self.message.number(9, started);
        self.message.number(10, nanoseconds(sampling.duration));
        let kind = self.value_type("cpu", "nanoseconds");
        self.message.message(11, &kind);
        self.message.number(12, period);
        for text in &self.text_order {
            self.message.bytes(6, text.as_bytes());
        }
        self.message
    }

    fn text(&mut self, text: &str) -> u64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.text_order.len() as u64;
        self.text_order.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> Message {
        let mut message = Message::default();
        message.number(1, self.text(kind));
        message.number(2, self.text(unit));
        message
    }

    fn location(&mut self, address: u64, mappings: &[Mapping]) -> u64 {
        if let Some(number) = self.locations.get(&address) {
            return *number;
        }
        let number = self.locations.len() as u64 + 1;
        let is_in = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
        let mapping = mappings.iter().position(is_in);
        let mut message = Message::default();
        message.number(1, number);
        message.number(2, mapping.map_or(0, |at| at as u64 + 1));
        message.number(3, address);
        self.message.message(4, &message);
        self.locations.insert(address, number);
        number
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_profile_has_the_bytes_of_the_schema() {
        let stacks = [Stack {
            addresses: vec![7, 300, 7],
            thread: "t".into(),
            count: 2,
        }];
        let mappings = [Mapping {
            start: 5,
            end: 9,
            offset: 1,
            file: "f".into(),
        }];
        let sampling = Sampling {
            started: SystemTime::UNIX_EPOCH + Duration::from_nanos(5),
            duration: Duration::from_nanos(6),
            period: Duration::from_nanos(100),
        };
        let packed = encode(&stacks, &mappings, &sampling).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut plain)
            .unwrap();
        // Written out by hand from the schema: two types of values, a mapping, two locations of which one is in it, a sample
        // that meets one of them twice, the times, the period, and the texts in the order in which they were met.
        let mut expected = Vec::new();
        expected.extend([0x0a, 4, 0x08, 1, 0x10, 2]);
        expected.extend([0x0a, 4, 0x08, 3, 0x10, 4]);
        expected.extend([0x1a, 10, 0x08, 1, 0x10, 5, 0x18, 9, 0x20, 1, 0x28, 5]);
        expected.extend([0x22, 6, 0x08, 1, 0x10, 1, 0x18, 7]);
        expected.extend([0x22, 5, 0x08, 2, 0x18, 0xac, 0x02]);
        expected.extend([0x12, 16, 0x0a, 3, 1, 2, 1, 0x12, 3, 2, 0xc8, 0x01]);
        expected.extend([0x1a, 4, 0x08, 6, 0x10, 7]);
        expected.extend([0x48, 5, 0x50, 6, 0x5a, 4, 0x08, 3, 0x10, 4, 0x60, 100]);
        for text in [
            "",
            "samples",
            "count",
            "cpu",
            "nanoseconds",
            "f",
            "thread",
            "t",
        ] {
            expected.extend([0x32, text.len() as u8]);
            expected.extend(text.as_bytes());
        }
        assert_eq!(plain, expected);
    }
}
