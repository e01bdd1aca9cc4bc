//! The list of steps that are not expected to match yet.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::Outcome;

/// The parsed list.
pub struct NotYet {
    ids: BTreeSet<String>,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/not_yet.txt")
}

/// The id that a line of the list names; none for blanks and comments.
fn id_of(line: &str) -> Option<&str> {
    line.split_whitespace()
        .next()
        .filter(|word| !word.starts_with('#'))
}

impl NotYet {
    /// Reads the list from the tree.
    pub fn load() -> Self {
        let text =
            std::fs::read_to_string(path()).expect("tests/golden/not_yet.txt is in the tree");
        Self {
            ids: text.lines().filter_map(id_of).map(str::to_owned).collect(),
        }
    }

    /// Whether a step is listed.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Holds the outcomes against the list; panics with a report when they do not fit.
    pub fn judge(&self, name: &str, outcomes: &[Outcome]) {
        let matching = outcomes.iter().filter(|o| o.differences.is_empty()).count();
        println!("{name}: {matching} of {} steps match", outcomes.len());
        if std::env::var_os("GOLDEN_REPORT").is_some() {
            outcomes
                .iter()
                .filter(|o| !o.differences.is_empty())
                .for_each(|o| print!("{}", report(o)));
        }
        let mut complaints = String::new();
        for outcome in outcomes {
            if !outcome.differences.is_empty() && !self.contains(&outcome.id) {
                complaints.push_str(&report(outcome));
            }
        }
        let stale = self.stale(name, outcomes);
        if !stale.is_empty() && std::env::var_os("GOLDEN_SHRINK").is_some() {
            shrink(&stale);
        } else if !stale.is_empty() && std::env::var_os("NATS_SERVER_UNDER_TEST").is_none() {
            complaints.push_str(
                "\nlisted in tests/golden/not_yet.txt although they match (GOLDEN_SHRINK=1 takes them out):\n",
            );
            for id in &stale {
                let _ = writeln!(complaints, "  {id}");
            }
        }
        assert!(
            complaints.is_empty(),
            "{name} differs from the recording:\n{complaints}"
        );
    }

    /// Listed ids of this recording that match, or that no step has.
    fn stale(&self, name: &str, outcomes: &[Outcome]) -> BTreeSet<String> {
        let of_this_recording =
            |id: &&String| id.rsplit_once(':').is_some_and(|(file, _)| file == name);
        self.ids
            .iter()
            .filter(of_this_recording)
            .filter(|id| {
                outcomes
                    .iter()
                    .find(|outcome| outcome.id == **id)
                    .is_none_or(|outcome| outcome.differences.is_empty())
            })
            .cloned()
            .collect()
    }
}

fn report(outcome: &Outcome) -> String {
    let mut text = format!("\n{}  {}\n", outcome.id, outcome.title);
    for difference in &outcome.differences {
        let _ = writeln!(text, "    {difference}");
    }
    text
}

fn shrink(stale: &BTreeSet<String>) {
    // The tests of one binary run side by side and all rewrite the one list.
    static LIST: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _guard = LIST.lock();
    let text = std::fs::read_to_string(path()).expect("the list is readable");
    let kept: String = text
        .lines()
        .filter(|line| id_of(line).is_none_or(|id| !stale.contains(id)))
        .flat_map(|line| [line, "\n"])
        .collect();
    std::fs::write(path(), kept).expect("the list is writable");
    println!("took {} lines out of the list", stale.len());
}
