//! Which route a topic belongs to: a tree with a level of the patterns at each step.
//!
//! A literal level goes before `{one}`, and that before `{*rest}`, at the first level where two patterns differ.
//! A look-up visits each node once at most, however the wildcards are nested.

use std::collections::HashMap;

use super::pattern::{Level, Pattern};

#[derive(Debug)]
pub(crate) struct Table {
    /// The first is the root. A tree in one vector is dropped without recursion, however deep.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    one: Option<usize>,
    /// The route that ends here, and the one that takes whatever follows.
    here: Option<usize>,
    rest: Option<usize>,
}

/// What a look-up has still to try; the last is tried first.
enum Step<'a> {
    Enter(usize, Option<&'a str>),
    Take(usize),
}

const ROOT: usize = 0;

impl Default for Table {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Table {
    /// Adds a route; an error is the one that has the same topics.
    pub(crate) fn insert(&mut self, pattern: &Pattern, route: usize) -> Result<(), usize> {
        let mut at = ROOT;
        for level in pattern.levels() {
            let new = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return Ok(());
            };
            at = match level {
                Level::Rest(_) => return place(&mut node.rest, route),
                Level::One(_) => *node.one.get_or_insert(new),
                Level::Literal(text) => *node.literals.entry(text.clone()).or_insert(new),
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        self.nodes
            .get_mut(at)
            .map_or(Ok(()), |node| place(&mut node.here, route))
    }

    /// The route of a topic.
    pub(crate) fn find(&self, topic: &str) -> Option<usize> {
        // A leading wildcard does not take a topic that begins with `$` (5.0 section 4.7.2).
        let is_reserved = topic.starts_with('$');
        let mut steps = vec![Step::Enter(ROOT, Some(topic))];
        while let Some(step) = steps.pop() {
            let (at, left) = match step {
                Step::Take(route) => return Some(route),
                Step::Enter(at, left) => (at, left),
            };
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            let Some(left) = left else {
                if let Some(route) = node.here.or(node.rest) {
                    return Some(route);
                }
                continue;
            };
            let (level, below) = match left.split_once('/') {
                Some((level, below)) => (level, Some(below)),
                None => (left, None),
            };
            if at != ROOT || !is_reserved {
                steps.extend(node.rest.map(Step::Take));
                steps.extend(node.one.map(|one| Step::Enter(one, below)));
            }
            let literal = node.literals.get(level);
            steps.extend(literal.map(|&literal| Step::Enter(literal, below)));
        }
        None
    }
}

fn place(place: &mut Option<usize>, route: usize) -> Result<(), usize> {
    match place.replace(route) {
        None => Ok(()),
        Some(first) => {
            *place = Some(first);
            Err(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&str]) -> Table {
        let mut table = Table::default();
        for (route, pattern) in patterns.iter().enumerate() {
            table
                .insert(&Pattern::new(pattern).unwrap(), route)
                .unwrap();
        }
        table
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let patterns = [
            "a/b",
            "a/{x}",
            "a/{*x}",
            "{x}/b",
            "{x}/c/d",
            "a/c/{x}",
            "{*x}",
            "$SYS/{*x}",
            "$SYS/a",
            "//{x}",
        ];
        let table = table(&patterns);
        #[track_caller]
        fn check(table: &Table, patterns: &[&str], topic: &str, expected: &str) {
            let found = table.find(topic).map(|route| patterns[route]);
            assert_eq!(found, Some(expected), "{topic}");
        }
        for (topic, expected) in [
            ("a/b", "a/b"),
            ("a/c", "a/{x}"),
            ("a/", "a/{x}"),
            ("a", "a/{*x}"),
            ("a/b/c", "a/{*x}"),
            ("a/c/d", "a/c/{x}"),
            ("b/b", "{x}/b"),
            ("b/c/d", "{x}/c/d"),
            ("b/c", "{*x}"),
            ("/", "{*x}"),
            ("/b", "{x}/b"),
            ("///", "{*x}"),
            ("//", "//{x}"),
            ("$SYS/a", "$SYS/a"),
            ("$SYS", "$SYS/{*x}"),
            ("$SYS/b", "$SYS/{*x}"),
        ] {
            check(&table, &patterns, topic, expected);
        }
        assert_eq!(table.find("$other/b"), None);
    }

    #[test]
    fn the_same_shape_is_a_conflict() {
        for (one, other) in [
            ("a/b", "a/b"),
            ("a/{x}", "a/{y}"),
            ("a/{x}", "a/+"),
            ("a/{*x}", "a/#"),
            ("$share/g/a/{x}", "a/{x}"),
        ] {
            let mut table = table(&["unrelated", one]);
            assert_eq!(table.insert(&Pattern::new(other).unwrap(), 2), Err(1));
            // The first stays.
            assert_eq!(table.find("a/b"), Some(1));
        }
    }

    #[test]
    fn a_pattern_of_65535_levels_is_found_and_dropped_without_recursion() {
        let deep = "/".repeat(65_535);
        let table = table(&[&deep, "{*rest}", "/{*rest}"]);
        assert_eq!(table.find(&deep), Some(0));
        assert_eq!(table.find("/a"), Some(2));
    }

    /// Wildcards beside literals at each level: all ways are tried, each once.
    #[test]
    fn nested_wildcards_do_not_multiply() {
        let mut patterns = Vec::new();
        for depth in 0..200 {
            patterns.push(format!("{}x", "+/".repeat(depth)));
            patterns.push(format!("{}y", "a/".repeat(depth)));
        }
        let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
        assert_eq!(table(&patterns).find(&"a/".repeat(199)), None);
    }
}
