//! The requests: an hour of them, from a file or made up.
//!
//! A trace is a CSV file with the columns `TIMESTAMP,ContextTokens,GeneratedTokens`, as in the
//! Azure LLM inference trace 2023. Without one, [`generate`] makes an hour that imitates its chat
//! requests: 19,366 arrivals whose rate drifts between a half and one and a half of its mean from
//! minute to minute; prompts of about 1,020 tokens in the middle with a long tail (1 in 100 over
//! 4,000); answers in two humps, around 100 tokens and around 400, none over 1,000.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens are clamped before they are cast"
)]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use crate::random::Random;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Since the first request.
    pub(crate) at: Duration,
    pub(crate) context_tokens: u32,
    pub(crate) generated_tokens: u32,
}

const GENERATED_ROWS: usize = 19_366;
const HOUR_SECONDS: f64 = 3_600.0;

pub(crate) fn read(path: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: {error}: give a trace that can be read", path.display()))?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let row = parse(line).ok_or_else(|| {
            format!(
                "{}, line {}: {line:?} is no TIMESTAMP,ContextTokens,GeneratedTokens",
                path.display(),
                number + 1
            )
        })?;
        rows.push(row);
    }
    rows.sort_by_key(|row| row.at);
    let Some(first) = rows.first().map(|row| row.at) else {
        return Err(format!("{} holds no requests: give another", path.display()).into());
    };
    for row in &mut rows {
        row.at -= first;
    }
    Ok(rows)
}

fn parse(line: &str) -> Option<Row> {
    let mut columns = line.trim_end().split(',');
    let at = since_some_day(columns.next()?)?;
    let context_tokens = columns.next()?.parse().ok()?;
    let generated_tokens = columns.next()?.parse().ok()?;
    Some(Row { at, context_tokens, generated_tokens })
}

/// The time in `2023-11-16 18:15:46.6805900`, counted from a day in the past.
fn since_some_day(timestamp: &str) -> Option<Duration> {
    let (date, time) = timestamp.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':');
    let hours: u64 = time.next()?.parse().ok()?;
    let minutes: u64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    // Years begin in March here, so that a leap day is the last of its year.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let whole = ((days * 24 + hours) * 60 + minutes) * 60;
    Some(Duration::from_secs(whole) + Duration::try_from_secs_f64(seconds).ok()?)
}

/// An hour of the same shape.
pub(crate) fn generate(seed: u64) -> Vec<Row> {
    let mut arrivals = Random::of(seed, "arrivals", 0);
    let mut tokens = Random::of(seed, "tokens", 0);
    let mut at = 0.0;
    let mut minute_ends = 0.0;
    let mut drift = 0.0_f64;
    let mut times = Vec::with_capacity(GENERATED_ROWS);
    for _ in 0..GENERATED_ROWS {
        if at >= minute_ends {
            minute_ends += 60.0;
            drift = 0.9 * drift + 0.1 * arrivals.normal();
        }
        at += arrivals.gap(1.0) / drift.exp().clamp(0.5, 1.5);
        times.push(at);
    }
    let to_an_hour = HOUR_SECONDS / at;
    times
        .into_iter()
        .map(|time| Row {
            at: Duration::from_secs_f64(time * to_an_hour),
            context_tokens: log_normal(&mut tokens, 900.0, 0.9, 14_050.0),
            generated_tokens: if tokens.chance(0.65) {
                log_normal(&mut tokens, 95.0, 0.55, 1_000.0)
            } else {
                log_normal(&mut tokens, 405.0, 0.12, 1_000.0)
            },
        })
        .collect()
}

fn log_normal(random: &mut Random, median: f64, deviation: f64, max: f64) -> u32 {
    (median * (deviation * random.normal()).exp()).clamp(2.0, max) as u32
}
