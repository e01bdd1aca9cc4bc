//! What a metric is, and how much of them an answer may hold.

/// A metric and all its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name, without what the format puts behind it.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What they are counted in, when they are not plain numbers; the name ends with it.
    pub unit: &'static str,
    /// The names of the labels of each series.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// What the values of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A count that only rises while the server runs.
    Counter,
    /// How often values lay below some bounds.
    Histogram,
    /// Words in labels; the value is always 1.
    Info,
}

impl Kind {
    /// The format's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the format puts behind the name of the one sample of a series; a histogram has several.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// A value that goes up and down.
pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        unit: "",
        labels,
        help,
    }
}

/// A count that only rises.
pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        kind: Kind::Counter,
        ..gauge(name, labels, help)
    }
}

impl Family {
    /// As it is, counted in this unit, with which its name ends.
    pub(super) const fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    pub(super) const fn bytes(self) -> Self {
        self.in_unit("bytes")
    }

    pub(super) const fn seconds(self) -> Self {
        self.in_unit("seconds")
    }
}

/// One metric of a table, and where its value stands in a row.
pub(super) struct Column<R> {
    pub(super) family: Family,
    pub(super) value: fn(&R) -> Value,
}

/// The metrics of a table.
pub(super) fn families_of<R>(table: &'static [Column<R>]) -> impl Iterator<Item = &'static Family> {
    table.iter().map(|column| &column.family)
}

/// A number as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Decimal(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Decimal(value)
    }
}

/// How many series of things with names of their own may still be shown.
#[derive(Debug)]
pub(super) struct Budget {
    series: usize,
}

impl Budget {
    pub(super) fn of(series: usize) -> Self {
        Self { series }
    }

    /// How many rows of so many series there is room for.
    pub(super) fn rows(&self, series_each: usize) -> usize {
        self.series / series_each.max(1)
    }

    /// Leaves out the rows that there is no room for, and says how many those are.
    pub(super) fn cut<R>(&mut self, rows: &mut Vec<R>, series_each: usize) -> usize {
        let left_out = rows.len().saturating_sub(self.rows(series_each));
        rows.truncate(rows.len() - left_out);
        self.series -= rows.len() * series_each;
        left_out
    }
}
