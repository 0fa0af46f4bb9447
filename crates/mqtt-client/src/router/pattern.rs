//! Patterns of topics: the topic filter one stands for, and what it captures.
//!
//! `{name}` takes one level as `+` does, and a final `{*name}` the rest as `#` does: MQTT's own wildcards are
//! patterns too, which capture nothing. Braces of the topic itself are written twice.

use mqtt_proto::TopicFilter;

use super::error::PatternError;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: Box<str>,
    filter: TopicFilter,
    levels: Box<[Level]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Literal(Box<str>),
    /// Any one level, with the name of its capture.
    One(Option<Box<str>>),
    /// All levels that follow, and none of them; the last of its pattern.
    Rest(Option<Box<str>>),
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        let pattern = || text.to_owned();
        let (share, levels) = split_share(text);
        let levels: Box<[_]> = levels
            .split('/')
            .map(|level| Level::new(level).ok_or_else(|| level.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|level| PatternError::Braces {
                pattern: pattern(),
                level,
            })?;
        if let Some((_, before)) = levels.split_last()
            && before.iter().any(|level| matches!(level, Level::Rest(_)))
        {
            return Err(PatternError::RestNotLast { pattern: pattern() });
        }
        let mut names: Vec<_> = levels.iter().filter_map(Level::name).collect();
        names.sort_unstable();
        if let Some(&[name, _]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(PatternError::NameTwice {
                pattern: pattern(),
                name: name.to_owned(),
            });
        }
        let words: Vec<&str> = levels.iter().map(Level::in_filter).collect();
        let filter = TopicFilter::new(format!("{share}{}", words.join("/")));
        Ok(Self {
            text: text.into(),
            filter: filter.map_err(|source| PatternError::Filter {
                pattern: pattern(),
                source,
            })?,
            levels,
        })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// What is subscribed to.
    pub(crate) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// What each named level takes of a topic that matches.
    pub(crate) fn captures<'a>(
        &'a self,
        topic: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        let mut left = Some(topic);
        self.levels.iter().filter_map(move |level| {
            let taken = left.unwrap_or_default();
            let taken = if let Level::Rest(_) = level {
                taken
            } else {
                let split = left.and_then(|left| left.split_once('/'));
                left = split.map(|(_, after)| after);
                split.map_or(taken, |(first, _)| first)
            };
            level.name().map(|name| (name, taken))
        })
    }

    /// Whether some topic belongs to both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        if self.begins_wild() && other.is_reserved() || other.begins_wild() && self.is_reserved() {
            return false;
        }
        let (mut mine, mut theirs) = (self.levels.iter(), other.levels.iter());
        loop {
            match (mine.next(), theirs.next()) {
                (Some(Level::Rest(_)), _) | (_, Some(Level::Rest(_))) | (None, None) => {
                    return true;
                }
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Level::Literal(a)), Some(Level::Literal(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Whether its subscription brings all messages of the other's.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let is_same_group = self.filter.share_name() == other.filter.share_name();
        if !is_same_group || self.begins_wild() && other.is_reserved() {
            return false;
        }
        let (mut mine, mut theirs) = (self.levels.iter(), other.levels.iter());
        loop {
            match (mine.next(), theirs.next()) {
                (Some(Level::Rest(_)), _) | (None, None) => return true,
                (Some(Level::One(_)), Some(Level::One(_) | Level::Literal(_))) => {}
                (Some(Level::Literal(a)), Some(Level::Literal(b))) if a == b => {}
                _ => return false,
            }
        }
    }

    fn begins_wild(&self) -> bool {
        matches!(self.levels.first(), Some(Level::One(_) | Level::Rest(_)))
    }

    /// Whether its topics begin with `$`, which a leading wildcard does not take (5.0 section 4.7.2).
    fn is_reserved(&self) -> bool {
        matches!(self.levels.first(), Some(Level::Literal(level)) if level.starts_with('$'))
    }
}

impl Level {
    fn new(text: &str) -> Option<Self> {
        match text {
            "+" => return Some(Self::One(None)),
            "#" => return Some(Self::Rest(None)),
            _ => {}
        }
        if let Some(inner) = text.strip_prefix('{')
            && !inner.starts_with('{')
        {
            let inner = inner.strip_suffix('}')?;
            let (name, is_rest) = match inner.strip_prefix('*') {
                Some(name) => (name, true),
                None => (inner, false),
            };
            if name.is_empty() || name.contains(['{', '}', '*']) {
                return None;
            }
            let name = Some(name.into());
            return Some(if is_rest {
                Self::Rest(name)
            } else {
                Self::One(name)
            });
        }
        unescape(text).map(Self::Literal)
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::One(name) | Self::Rest(name) => name.as_deref(),
        }
    }

    fn in_filter(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::One(_) => "+",
            Self::Rest(_) => "#",
        }
    }
}

/// `$share/group/`, if it begins so, and the rest.
fn split_share(text: &str) -> (&str, &str) {
    let group = text
        .strip_prefix("$share/")
        .and_then(|rest| rest.find('/'))
        .map_or(0, |end| "$share/".len() + end + 1);
    text.split_at(group)
}

/// A literal level with its doubled braces made single; `None` if one stands alone.
fn unescape(text: &str) -> Option<Box<str>> {
    let mut level = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if matches!(char, '{' | '}') && chars.next() != Some(char) {
            return None;
        }
        level.push(char);
    }
    Some(level.into())
}

#[cfg(test)]
mod tests {
    use mqtt_proto::TopicError;

    use super::*;

    #[test]
    fn each_pattern_is_a_filter() {
        for (pattern, filter) in [
            ("devices/{id}/state", "devices/+/state"),
            ("devices/{id}/{*rest}", "devices/+/#"),
            ("{*all}", "#"),
            ("{a}", "+"),
            ("/{a}//", "/+//"),
            ("a/+/#", "a/+/#"),
            ("$share/group/devices/{id}", "$share/group/devices/+"),
            ("$share/{group}/a", "$share/{group}/a"),
            ("$SYS/{*rest}", "$SYS/#"),
            ("a/{{b}}/{c}", "a/{b}/+"),
            ("a/x{{}}y", "a/x{}y"),
        ] {
            assert_eq!(
                *Pattern::new(pattern).unwrap().filter(),
                *filter,
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        let braces = |pattern: &str, level: &str| PatternError::Braces {
            pattern: pattern.into(),
            level: level.into(),
        };
        let filter = |pattern: &str, source| PatternError::Filter {
            pattern: pattern.into(),
            source,
        };
        for (pattern, error) in [
            ("a/{}", braces("a/{}", "{}")),
            ("a/{*}", braces("a/{*}", "{*}")),
            ("{a", braces("{a", "{a")),
            ("a}", braces("a}", "a}")),
            ("a{b}", braces("a{b}", "a{b}")),
            ("{a}b", braces("{a}b", "{a}b")),
            ("{{a}", braces("{{a}", "{{a}")),
            ("{a/b}", braces("{a/b}", "{a")),
            ("a{", braces("a{", "a{")),
            ("", filter("", TopicError::Empty)),
            ("a+", filter("a+", TopicError::SingleLevel)),
            ("$share/g", filter("$share/g", TopicError::Share)),
            ("$share/+/{a}", filter("$share/+/{a}", TopicError::Share)),
        ] {
            assert_eq!(Pattern::new(pattern), Err(error), "{pattern}");
        }
        for pattern in ["{*a}/b", "#/b", "a/{*b}/{*c}"] {
            let refused = PatternError::RestNotLast {
                pattern: pattern.into(),
            };
            assert_eq!(Pattern::new(pattern), Err(refused));
        }
        let twice = PatternError::NameTwice {
            pattern: "{a}/{b}/{a}".into(),
            name: "a".into(),
        };
        assert_eq!(Pattern::new("{a}/{b}/{a}"), Err(twice));
    }

    #[test]
    fn captures_take_levels() {
        #[track_caller]
        fn check(pattern: &str, topic: &str, expected: &[(&str, &str)]) {
            let pattern = Pattern::new(pattern).unwrap();
            assert!(pattern.filter().matches(topic));
            assert_eq!(pattern.captures(topic).collect::<Vec<_>>(), expected);
        }
        check("a/{b}/c/{d}", "a/1/c/2", &[("b", "1"), ("d", "2")]);
        check("{a}/{b}", "/", &[("a", ""), ("b", "")]);
        check("a/{*rest}", "a/b//c", &[("rest", "b//c")]);
        check("a/{*rest}", "a", &[("rest", "")]);
        check("a/{*rest}", "a/", &[("rest", "")]);
        check("{a}/{*rest}", "a", &[("a", "a"), ("rest", "")]);
        check("+/{b}/#", "a/b/c", &[("b", "b")]);
        check("$share/g/{a}", "b", &[("a", "b")]);
    }

    #[test]
    fn covering() {
        #[track_caller]
        fn check(one: &str, other: &str, expected: bool) {
            let (one, other) = (Pattern::new(one).unwrap(), Pattern::new(other).unwrap());
            assert_eq!(one.covers(&other), expected);
            assert!(!other.covers(&one));
        }
        check("a/{b}", "a/b", true);
        check("a/{*b}", "a/{b}/c", true);
        check("a/{*b}", "a/{b}/{*c}", true);
        check("a/{*b}", "a", true);
        check("{*a}", "{a}/b", true);
        check("a/{b}/c", "a/b/{c}", false);
        check("a/{b}", "a/b/c", false);
        check("a/{b}", "b/{*c}", false);
        check("{*a}", "$SYS/a", false);
        check("$SYS/{*a}", "$SYS/a", true);
        check("$share/g/a/{b}", "$share/g/a/b", true);
        check("$share/g/a/{b}", "$share/h/a/b", false);
        check("a/{b}", "$share/g/a/b", false);
    }

    #[test]
    fn overlapping() {
        #[track_caller]
        fn check(one: &str, other: &str, expected: bool) {
            let (one, other) = (Pattern::new(one).unwrap(), Pattern::new(other).unwrap());
            assert_eq!(one.overlaps(&other), expected);
            assert_eq!(other.overlaps(&one), expected);
        }
        check("a/{b}", "a/b", true);
        check("a/{b}/c", "a/b/{c}", true);
        check("a/{b}", "b/{a}", false);
        check("a/{*b}", "a", true);
        check("a/{*b}", "b", false);
        check("a/{b}", "a", false);
        check("{*a}", "$SYS/b", false);
        check("{a}/b", "$SYS/b", false);
        check("$SYS/{*a}", "$SYS/b", true);
        check("$share/g/a/{b}", "a/b", true);
    }
}
