//! The text format (OpenMetrics 1.0): metadata, samples, the end.

use super::family::{Column, Family, Value};
use std::fmt::Write;

/// The text of an answer while it is written.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Writes a table: its metrics one after another, and of each one sample per row. Without rows there is nothing to write.
    pub(super) fn table<R, L: AsRef<str>>(
        &mut self,
        columns: &[Column<R>],
        rows: &[R],
        labels: impl Fn(&R) -> &[L],
    ) {
        if rows.is_empty() {
            return;
        }
        for Column { family, value } in columns {
            self.metadata(family);
            let suffix = family.kind.suffix();
            for row in rows {
                self.sample(family, suffix, labels(row), None, value(row));
            }
        }
    }

    /// Writes a histogram without labels: the upper bound of each bucket and how many values lie in it, how many lie above the
    /// last, and all values together.
    pub(super) fn histogram(
        &mut self,
        family: &Family,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        above: u64,
        sum: Value,
    ) {
        const NONE: [&str; 0] = [];
        self.metadata(family);
        let mut count = 0;
        for (bound, values) in buckets {
            count += values;
            let bound = format!("{bound:?}");
            self.sample(family, "_bucket", &NONE, Some(&bound), count.into());
        }
        count += above;
        self.sample(family, "_bucket", &NONE, Some("+Inf"), count.into());
        self.sample(family, "_count", &NONE, None, count.into());
        self.sample(family, "_sum", &NONE, None, sum);
    }

    /// The whole text.
    pub(super) fn end(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn metadata(&mut self, family: &Family) {
        let Family {
            name, unit, help, ..
        } = family;
        // Writing into a string never fails.
        let _ = writeln!(self.text, "# TYPE {name} {}", family.kind.word());
        if !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = write!(self.text, "# HELP {name} ");
        self.escape(help);
        self.text.push('\n');
    }

    fn sample<L: AsRef<str>>(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: &[L],
        bound: Option<&str>,
        value: Value,
    ) {
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let named = family
            .labels
            .iter()
            .copied()
            .zip(labels.iter().map(AsRef::as_ref));
        let mut before = '{';
        for (name, label) in named.chain(bound.map(|bound| ("le", bound))) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escape(label);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = match value {
            Value::Whole(value) => writeln!(self.text, " {value}"),
            Value::Decimal(value) => writeln!(self.text, " {value:?}"),
        };
    }

    /// What would end a label or a line is escaped.
    fn escape(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                character => self.text.push(character),
            }
        }
    }
}
