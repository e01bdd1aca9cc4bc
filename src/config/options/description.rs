//! What a server says of itself to others: tags, metadata, and the features that its operator switches on.

use std::collections::BTreeMap;

use super::super::value::Value;
use super::Options;
use super::report::{Field, Report, in_file_order};

/// Acks and flow control are written in the form that names domain and account.
pub const LONG_ACKS: &str = "js_ack_fc_v2";
/// Gaps in what a mirror copies go to its replicas as ranges. They always do here, so that the flag changes nothing.
pub const DELETE_RANGE: &str = "js_raft_delete_range";
/// The features that the reference has behind flags. All of them are off unless they are switched on.
pub const FEATURE_FLAGS: [&str; 2] = [LONG_ACKS, DELETE_RANGE];

/// The features that the operator switches on or off; among them may be some that this version does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureFlags(BTreeMap<String, bool>);

impl FeatureFlags {
    /// Whether a feature is on.
    pub fn is_on(&self, flag: &str) -> bool {
        self.0.get(flag).copied().unwrap_or(false)
    }

    /// All features of this version, and whether they are on.
    pub fn known(&self) -> BTreeMap<&'static str, bool> {
        FEATURE_FLAGS.map(|flag| (flag, self.is_on(flag))).into()
    }

    /// What is configured, for people to read; nothing where nothing is.
    pub fn shown(&self) -> Option<(String, Option<String>)> {
        if self.0.is_empty() {
            return None;
        }
        let (known, unknown): (Vec<_>, Vec<_>) = self
            .0
            .iter()
            .partition(|(flag, _)| FEATURE_FLAGS.contains(&flag.as_str()));
        let known: Vec<String> = known
            .into_iter()
            .map(|(flag, on)| format!("{flag} ({})", if *on { "opt-in" } else { "disabled" }))
            .collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        };
        let unknown: Vec<&str> = unknown.into_iter().map(|(flag, _)| flag.as_str()).collect();
        Some((known, (!unknown.is_empty()).then(|| unknown.join(", "))))
    }
}

/// Reads a key of the top level. False when it is none of these.
pub(super) fn read(
    options: &mut Options,
    key: &str,
    field: &Field<'_>,
    report: &mut Report,
) -> bool {
    match key {
        "server_tags" => {
            if let Some(tags) = field.strings(report) {
                let tags = tags.iter().map(|tag| tag.trim().to_lowercase());
                options.server_tags = tags.filter(|tag| !tag.is_empty()).collect();
                options.server_tags.sort();
                options.server_tags.dedup();
            }
        }
        "server_metadata" => options.server_metadata = metadata(field, report),
        "feature_flags" => options.feature_flags = feature_flags(field, report),
        _ => return false,
    }
    true
}

fn metadata(field: &Field<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    for member in field.map(report).map(in_file_order).unwrap_or_default() {
        if let Some(text) = member.string(report) {
            metadata.insert(member.name.to_owned(), text);
        }
    }
    metadata
}

/// What no server of this version knows is let pass with a warning, as the reference tells of it in its log.
fn feature_flags(field: &Field<'_>, report: &mut Report) -> FeatureFlags {
    let mut flags = FeatureFlags::default();
    for member in field.map(report).map(in_file_order).unwrap_or_default() {
        let Value::Bool(on) = member.value() else {
            member.wrong_type(report, "a boolean");
            continue;
        };
        if !FEATURE_FLAGS.contains(&member.name) {
            let reason = "no feature of this version has this name".to_owned();
            report.warn(&member.node.position, member.name, reason);
        }
        flags.0.insert(member.name.to_owned(), *on);
    }
    flags
}
