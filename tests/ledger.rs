//! Keeps docs/parity.tsv honest: every row of the parity list stands there once, what is called proven names tests, and
//! each named test is in the tree, runs and, where it is a recorded step, is expected to match.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct Row {
    line: usize,
    id: String,
    state: String,
    tests: Vec<String>,
    note: String,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("docs/parity.tsv")).expect("docs/parity.tsv");
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(index, line)| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [id, state, tests, note] = fields[..] else {
                panic!(
                    "docs/parity.tsv:{}: four fields, not {}",
                    index + 1,
                    fields.len()
                );
            };
            Row {
                line: index + 1,
                id: id.to_owned(),
                state: state.to_owned(),
                tests: tests
                    .split(',')
                    .map(str::trim)
                    .filter(|test| !test.is_empty())
                    .map(str::to_owned)
                    .collect(),
                note: note.to_owned(),
            }
        })
        .collect()
}

/// Panics with all complaints at once, so that one run shows all there is to mend.
fn judge(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_line_has_a_state_and_what_the_state_asks_for() {
    let mut complaints = Vec::new();
    for row in rows() {
        let mut complain =
            |what: &str| complaints.push(format!("line {}, {}: {what}", row.line, row.id));
        match row.state.as_str() {
            "yes" if row.tests.is_empty() => {
                complain("`yes` names the test that would fail without it")
            }
            "part" if row.note.is_empty() => complain("`part` says what is missing"),
            "no" if !row.tests.is_empty() => complain("`no` has no tests"),
            "n/a" if row.note.is_empty() => complain("`n/a` says why"),
            "yes" | "part" | "no" | "n/a" => {}
            other => complain(&format!("no such state {other:?}")),
        }
    }
    judge(&complaints);
}

#[test]
fn every_row_of_the_parity_list_stands_in_the_ledger_once() {
    let mut seen = BTreeSet::new();
    let mut complaints: Vec<String> = rows()
        .into_iter()
        .filter(|row| !seen.insert(row.id.clone()))
        .map(|row| format!("line {}: {} again", row.line, row.id))
        .collect();
    let list = root().join("../shared/spec/parity.md");
    match std::fs::read_to_string(&list) {
        Err(_) => println!("skipped: there is no parity list at {}", list.display()),
        Ok(text) => {
            let listed: BTreeSet<String> = text.lines().filter_map(listed_id).collect();
            complaints.extend(
                listed
                    .difference(&seen)
                    .map(|id| format!("{id} is missing")),
            );
            complaints.extend(
                seen.difference(&listed)
                    .map(|id| format!("{id} is not in the list")),
            );
        }
    }
    judge(&complaints);
}

/// The id in the first cell of a table row, such as `JS-API-07`.
fn listed_id(line: &str) -> Option<String> {
    let id = line.strip_prefix('|')?.split('|').next()?.trim();
    let (area, number) = id.rsplit_once('-')?;
    let is_area = !area.is_empty()
        && area
            .chars()
            .all(|character| character.is_ascii_uppercase() || character == '-');
    (is_area && number.parse::<u32>().is_ok()).then(|| id.to_owned())
}

#[test]
fn every_named_test_exists_and_runs() {
    let mut files = BTreeMap::new();
    let mut complaints = Vec::new();
    for row in rows() {
        for test in &row.tests {
            if let Err(reason) = check_test(test, &mut files) {
                complaints.push(format!("line {}, {}: {test}: {reason}", row.line, row.id));
            }
        }
    }
    judge(&complaints);
}

fn check_test(test: &str, files: &mut BTreeMap<String, String>) -> Result<(), String> {
    let (path, name) = test.rsplit_once("::").ok_or("not `path::name`")?;
    if !files.contains_key(path) {
        let text = std::fs::read_to_string(root().join(path)).map_err(|error| error.to_string())?;
        files.insert(path.to_owned(), text);
    }
    let text = &files[path];
    match Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str())
    {
        Some("rs") => check_rust_test(text, name),
        Some("py") if text.contains(&format!("def {name}(")) => Ok(()),
        Some("mjs") if text.contains(&format!("test(\"{name}\"")) => Ok(()),
        _ => Err("no such test in the file".to_owned()),
    }
}

/// A test function is one whose attributes, up to the item before it, make it a test and do not ignore it.
fn check_rust_test(text: &str, name: &str) -> Result<(), String> {
    let needle = format!("fn {name}(");
    let at = text.find(&needle).ok_or("no such function in the file")?;
    // Without the function's own indentation, which would pass for an empty line.
    let attributes: Vec<&str> = text[..at]
        .trim_end()
        .lines()
        .rev()
        .take_while(|line| {
            let line = line.trim();
            !line.is_empty() && line != "}" && line != "{"
        })
        .collect();
    if attributes.iter().any(|line| line.contains("#[ignore")) {
        return Err("it is ignored".to_owned());
    }
    let is_test = attributes.iter().any(|line| {
        let line = line.trim();
        line.starts_with("#[") && line.contains("test") && !line.contains("cfg(")
    });
    if is_test {
        Ok(())
    } else {
        Err("the function is no test".to_owned())
    }
}

#[test]
fn every_recorded_step_that_a_note_calls_on_is_expected_to_match() {
    let list = std::fs::read_to_string(root().join("tests/golden/not_yet.txt")).expect("the list");
    let not_yet: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut complaints = Vec::new();
    for row in rows() {
        let words = row
            .note
            .split([' ', ',', ';'])
            .filter(|word| row.state == "yes" && not_yet.contains(word));
        for word in words {
            complaints.push(format!(
                "line {}, {}: {word} does not match yet",
                row.line, row.id
            ));
        }
    }
    judge(&complaints);
}
