//! The figures of a worker over time, and whether they are flat.

use std::fmt;
use std::str::FromStr;

/// Rows of the table.
const ROWS: usize = 12;

const COLUMNS: usize = 7;

/// The figures by name, and what those that must be flat may grow by after the warm-up: a share of
/// what they were then, and beside that.
const FIGURES: [(&str, Option<(f64, f64)>); COLUMNS] = [
    ("s", None),
    ("memory MB", Some((0.25, 24.0))),
    ("files", Some((0.25, 8.0))),
    ("handles", Some((0.25, 12.0))),
    ("threads", Some((0.0, 4.0))),
    ("waiters", None),
    ("queued kB", None),
];

#[derive(Debug, Default)]
pub(crate) struct Watch {
    samples: Vec<[f64; COLUMNS]>,
    /// Waiters and queued bytes when all was done, and the milliseconds an answer came too late.
    left: Option<[u64; 3]>,
}

impl Watch {
    /// Enters a line of figures; `false` where it is something else.
    pub(crate) fn enter(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some(("figures", words)) => numbers(words).map(|of| self.samples.push(of)).is_some(),
            Some(("left", words)) => {
                self.left = numbers(words);
                self.left.is_some()
            }
            _ => false,
        }
    }

    /// What grew. The first third is warm-up; what comes right after it is compared with the end.
    pub(crate) fn growth(&self) -> Vec<String> {
        let warm = &self.samples[self.samples.len() / 3..];
        let few = warm.len() / 3;
        if few == 0 {
            return vec!["the run was too short for figures".to_owned()];
        }
        let (before, after) = (mean(&warm[..few]), mean(&warm[warm.len() - few..]));
        let mut grown = Vec::new();
        for (((name, bound), before), after) in FIGURES.into_iter().zip(before).zip(after) {
            if bound.is_some_and(|(share, beside)| after > before + before * share + beside) {
                grown.push(format!("{name} grew from {before:.1} to {after:.1}"));
            }
        }
        grown
    }

    /// What a worker that was not killed has left.
    pub(crate) fn left(&self) -> Option<String> {
        match self.left {
            Some([0, 0, 0]) => None,
            Some([waiters, bytes, late]) => Some(format!(
                "left at the end: {waiters} waiters, {bytes} bytes queued; {late} ms too late"
            )),
            None => Some("a worker that was not killed did not say what was left".to_owned()),
        }
    }
}

fn numbers<T: FromStr, const N: usize>(words: &str) -> Option<[T; N]> {
    let numbers: Vec<T> = words.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[expect(clippy::cast_precision_loss, reason = "a count of samples")]
fn mean(samples: &[[f64; COLUMNS]]) -> [f64; COLUMNS] {
    let sum = |column: usize| samples.iter().map(|sample| sample[column]).sum::<f64>();
    std::array::from_fn(|column| sum(column) / samples.len() as f64)
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, _) in FIGURES {
            write!(f, "{name:>11}")?;
        }
        for sample in self.samples.iter().step_by(self.samples.len() / ROWS + 1) {
            writeln!(f)?;
            for figure in sample {
                write!(f, "{figure:>11.1}")?;
            }
        }
        Ok(())
    }
}
