//! That `docs/complaints.md` has an answer in each row, and that every test it names is there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf};

/// The rows of each table, by what their numbers begin with.
const ROWS: &[(&str, usize)] = &[
    ("C1-", 10),
    ("C2-", 10),
    ("C3-", 8),
    ("C4-", 7),
    ("C5-", 8),
    ("C6-", 12),
    ("G", 24),
];

/// What a row may say in the place of a test.
const WITHOUT: &[&str] = &["Not yet", "Out of reach"];

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(workspace().join("docs/complaints.md")).unwrap()
}

/// Each row's number and answer.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (number, _, answer) = (cells.next()?, cells.next()?, cells.next()?);
        assert_eq!(cells.next(), None, "{number} has too many cells");
        number
            .ends_with(|last: char| last.is_ascii_digit())
            .then_some((number, answer))
    });
    rows.collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests a text names: file and function.
fn tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    quoted(text).filter_map(|quoted| quoted.split_once("::"))
}

/// Whether `source` has a test of this name: a function with the attribute right before it.
fn has_test(source: &str, name: &str) -> bool {
    let mut is_test = false;
    source.lines().map(str::trim).any(|line| {
        let function = line.trim_start_matches("async ").strip_prefix("fn ");
        let is_function = function.is_some();
        let is_it = function.and_then(|rest| rest.strip_prefix(name));
        let found = is_test && is_it.is_some_and(|rest| rest.starts_with('('));
        is_test = !is_function && (is_test || is_attribute(line));
        found
    })
}

fn is_attribute(line: &str) -> bool {
    line.starts_with("#[test]") || line.starts_with("#[tokio::test")
}

#[test]
fn every_complaint_is_there_once() {
    let page = page();
    let mut numbers = rows(&page).into_iter().map(|(number, _)| number);
    for (table, count) in ROWS {
        for row in 1..=*count {
            assert_eq!(numbers.next(), Some(&*format!("{table}{row}")));
        }
    }
    assert_eq!(numbers.next(), None);
}

#[test]
fn every_row_has_an_answer() {
    for (number, answer) in rows(&page()) {
        let says = WITHOUT.iter().any(|words| answer.contains(words));
        assert!(
            says || tests(answer).next().is_some(),
            "{number} has no answer: {answer}"
        );
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let page = page();
    let named: BTreeSet<_> = rows(&page)
        .into_iter()
        .flat_map(|(_, answer)| tests(answer))
        .collect();
    assert!(named.len() > 100, "{} tests are named", named.len());
    for (file, name) in named {
        let path = workspace().join("crates").join(file);
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(has_test(&source, name), "{file} has no test {name}");
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let page = page();
    let files = quoted(&page).filter(|quoted| quoted.ends_with(".rs"));
    for file in files {
        let is_there = [workspace(), workspace().join("crates")]
            .iter()
            .any(|folder| folder.join(file).is_file());
        assert!(is_there, "there is no {file}");
    }
}

#[test]
fn a_test_is_told_from_other_functions() {
    let source = "
        #[test]
        fn plain() {}
        #[tokio::test(start_paused = true)]
        #[cfg(unix)]
        async fn waits() {}
        fn not_one() {}
        async fn plain_too() {}
    ";
    for (name, expected) in [
        ("plain", true),
        ("waits", true),
        ("not_one", false),
        ("plain_too", false),
        ("wait", false),
    ] {
        assert_eq!(has_test(source, name), expected, "{name}");
    }
}
