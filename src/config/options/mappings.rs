//! A `mappings` block: where else what is published goes.

use super::super::value::{Map, Value};
use super::report::{Field, Report, in_file_order};
use crate::subject::is_valid_subject;
use crate::subject::transform::{Destination, Mapping, Mappings};

/// Weights are parts of a hundred.
const WEIGHT_MAX: i64 = 100;

/// Reads the block: one destination for a subject, or several with weights. They are tried in the order of the file.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Mappings {
    let mut mappings = Mappings::default();
    let Some(map) = field.map(report) else {
        return mappings;
    };
    for entry in in_file_order(map) {
        if !is_valid_subject(entry.name) {
            if !entry.node.used_as_variable {
                let reason = format!("Subject {:?} is not a valid subject", entry.name);
                entry.invalid(report, reason);
            }
            continue;
        }
        if let Some(mapping) = one(&entry, report) {
            mappings.add(mapping);
        }
    }
    mappings
}

fn one(entry: &Field<'_>, report: &mut Report) -> Option<Mapping> {
    let source = entry.name;
    let made = match entry.value() {
        Value::String(destination) => {
            let made = Mapping::simple(source, destination);
            made.map_err(|error| {
                format!("Error adding mapping for {source:?} to {destination:?} : {error}")
            })
        }
        Value::Map(members) => several(source, &[destination(entry, members, report)?]),
        Value::Array(items) => {
            let mut destinations = Vec::with_capacity(items.len());
            for node in items {
                let item = Field { name: source, node };
                let Value::Map(members) = item.value() else {
                    item.invalid(report, "Expected an entry for the mapping destination");
                    return None;
                };
                destinations.push(destination(&item, members, report)?);
            }
            several(source, &destinations)
        }
        _ => {
            entry.wrong_type(report, "a subject, or destinations with weights");
            return None;
        }
    };
    match made {
        Ok(mapping) => Some(mapping),
        Err(reason) => {
            entry.invalid(report, reason);
            None
        }
    }
}

fn several(source: &str, destinations: &[Destination]) -> Result<Mapping, String> {
    Mapping::new(source, destinations)
        .map_err(|error| format!("Error adding mapping for {source:?} : {error}"))
}

fn destination(entry: &Field<'_>, members: &Map, report: &mut Report) -> Option<Destination> {
    let mut destination = Destination {
        subject: String::new(),
        weight: 0,
        cluster: None,
    };
    let mut is_weighted = false;
    for member in in_file_order(members) {
        match member.key().as_str() {
            "dest" | "destination" => destination.subject = member.string(report)?,
            "weight" => {
                destination.weight = weight(&member, report)?;
                is_weighted = true;
            }
            "cluster" => {
                destination.cluster = member.string(report).filter(|name| !name.is_empty());
            }
            _ => member.unknown(report),
        }
    }
    if !is_weighted {
        let subject = &destination.subject;
        let reason = format!("Missing weight for mapping destination {subject:?}");
        entry.invalid(report, reason);
        return None;
    }
    Some(destination)
}

/// A number of a hundred, with or without the sign for that.
fn weight(field: &Field<'_>, report: &mut Report) -> Option<u32> {
    let number = match field.value() {
        Value::Integer(number) => *number,
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            match digits.parse() {
                Ok(number) => number,
                Err(_) => {
                    let reason = format!("Invalid weight {digits:?} for mapping destination");
                    field.invalid(report, reason);
                    return None;
                }
            }
        }
        _ => {
            field.wrong_type(report, "a number or a percentage");
            return None;
        }
    };
    if !(0..=WEIGHT_MAX).contains(&number) {
        field.invalid(
            report,
            format!("Invalid weight {number} for mapping destination"),
        );
        return None;
    }
    u32::try_from(number).ok()
}
