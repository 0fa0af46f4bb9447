//! Markdown, and the figures in it.

use std::{fmt, time::Duration};

/// A table in Markdown, with columns of even width: words to the left, figures to the right.
pub(crate) struct Table {
    /// Columns of words; they come first.
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(words: usize, heading: [&str; N]) -> Self {
        Self {
            words,
            rows: vec![heading.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column < self.words {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    if column < self.words {
                        write!(f, "| {:-<width$} ", "")?;
                    } else {
                        write!(f, "| {:->width$} ", ":")?;
                    }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// What was measured again and again.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Not a number if there are none.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest that is not below so many of a hundred.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// With so many digits after the point, or a dash for what could not be measured.
pub(crate) fn figure(value: f64, digits: usize) -> String {
    if value.is_finite() {
        format!("{value:.digits$}")
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert!(samples.median().is_nan());
        (1..=100).rev().for_each(|n| samples.push(f64::from(n)));
        assert_eq!(samples.median(), 50.0);
        assert_eq!(samples.percentile(95), 95.0);
        assert_eq!(samples.percentile(100), 100.0);
    }

    #[test]
    fn a_table() {
        let mut table = Table::new(1, ["who", "µs"]);
        table.push(vec!["a".to_owned(), figure(1234.56, 1)]);
        table.push(vec!["bcde".to_owned(), figure(f64::NAN, 1)]);
        let expected = "\
            | who  |     µs |\n\
            | ---- | -----: |\n\
            | a    | 1234.6 |\n\
            | bcde |      - |\n";
        assert_eq!(table.to_string(), expected);
    }
}
