//! The table at the end.

#![expect(clippy::print_stdout, reason = "the table is what the example is run for")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::path::Path;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::audit::Audit;
use crate::facts::Why;
use crate::ledger::{Ledger, Run};
use crate::traffic::{Plan, Source};

/// What the ledger does not know.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// From the first start to the last end.
    pub(crate) took: Duration,
    /// Answers to claims in each second of it.
    pub(crate) claims_by_second: Vec<u64>,
    /// Of the store's directory, when it is closed.
    pub(crate) bytes_on_disk: u64,
}

pub(crate) fn print(
    arguments: &Arguments,
    plan: &Plan,
    ledger: &Ledger,
    audit: &Audit,
    figures: &Figures,
) {
    let minutes = plan.rows.last().map_or(0.0, |row| row.at.as_secs_f64() / 60.0);
    println!(
        "{}, {minutes:.1} minutes at {} times its speed, seed {}",
        arguments.trace_name(),
        arguments.speed,
        arguments.seed
    );
    traffic(plan, ledger, audit);
    answers(ledger);
    owners(ledger);
    promises(ledger, audit);
    costs(plan, ledger, audit, figures);
    let verdict = match audit.differences.len() {
        0 => "agree with the store".to_owned(),
        count => format!("differ from the store in {count} places"),
    };
    row("the books", verdict, "");
}

fn traffic(plan: &Plan, ledger: &Ledger, audit: &Audit) {
    let (completed, failed) = (count(audit.completed), count(audit.failed));
    row("operations", count(plan.rows.len()), format!("{completed} completed, {failed} failed"));
    let cut_off: usize = ledger.runs.iter().map(|run| run.cut_off).sum();
    let total = plan.submissions.len() + cut_off;
    row("submissions", count(total), "");
    for (source, name) in Source::ALL {
        let of = plan.submissions.iter().filter(|submission| submission.source == source);
        row(format!("  {name}"), count(of.count()), "");
    }
    row("  cut off by a kill, made again", count(cut_off), "");
}

fn answers(ledger: &Ledger) {
    let sum = |of: fn(&Run) -> u64| ledger.runs.iter().map(of).sum::<u64>();
    row("claims answered", count(sum(claims_in)), "");
    row("  new", count(sum(|run| run.counted.new)), "");
    let why = |why| {
        let resumed = ledger.owners().filter_map(|owner| owner.ticket.resumed.as_ref());
        count(resumed.filter(|resumed| resumed.why == why).count())
    };
    row(
        "  resumed",
        count(sum(|run| run.counted.resumed)),
        format!(
            "{} dropped, {} lease over, {} released, {} restart",
            why(Why::Dropped),
            why(Why::Lease),
            why(Why::Released),
            why(Why::Restart)
        ),
    );
    row("  in flight", count(sum(|run| run.counted.in_flight)), "");
    row("  completed", count(sum(|run| run.counted.completed)), "");
    row("  failed", count(sum(|run| run.counted.failed)), "");
    row("  mismatch", count(sum(|run| run.counted.mismatch)), "");
    row("flights waited for to a reply", count(sum(|run| run.waited)), "");
    row("queue full, call made again", count(sum(|run| run.busy)), "");
}

fn owners(ledger: &Ledger) {
    let of =
        |is: fn(&crate::ledger::Owner) -> bool| count(ledger.owners().filter(|o| is(o)).count());
    let calls: u64 = ledger.owners().map(|owner| u64::from(owner.calls)).sum();
    row("model calls", count(calls), "");
    row("owners that died", of(|owner| owner.dropping.is_some()), "ticket dropped");
    row("owners that hung", of(|owner| owner.hangs), "past their lease");
    row("owners told they are none", of(|owner| owner.lost), "reply not stored");
    row("provider errors", of(|owner| owner.releasing.is_some()), "released");
    let failed = of(|owner| owner.settled && owner.settling.as_ref().is_some_and(|r| r.has_failed));
    row("final errors", failed, "failed");
    for (number, run) in (1..).zip(&ledger.runs).filter(|(_, run)| run.was_killed) {
        let after = ledger.runs.get(number).map_or(0, |next| next.unanswered);
        row(
            format!("SIGKILL of process {number}"),
            count(after),
            format!("operations interrupted, {} submissions cut off", count(run.cut_off)),
        );
    }
}

fn promises(ledger: &Ledger, audit: &Audit) {
    let known = ledger.accounts.values().filter(|account| !account.answers().is_empty());
    let replies = format!("of {} acknowledged or shown", count(known.count()));
    row("lost replies", count(audit.lost_replies), replies);
    row("double replies", count(audit.double_replies), "");
    row("two owners at once", count(audit.two_owners), "");
}

fn costs(plan: &Plan, ledger: &Ledger, audit: &Audit, figures: &Figures) {
    let of = |times: &[u64], permille: usize| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = (sorted.len() * permille / 1000).min(sorted.len().saturating_sub(1));
        format!("{} us", count(sorted.get(at).copied().unwrap_or_default()))
    };
    let (claims, duplicates) = (&ledger.times.claims, &ledger.times.duplicates);
    row("claim, p50", of(claims, 500), "new, on disk");
    row("claim, p99", of(claims, 990), "");
    row("duplicate, p50", of(duplicates, 500), "completed, failed, in flight or mismatch");
    row("duplicate, p99", of(duplicates, 990), "");
    let total: u64 = ledger.runs.iter().map(claims_in).sum();
    let mean = total as f64 / figures.took.as_secs_f64().max(0.001);
    let most = figures.claims_by_second.iter().max().copied().unwrap_or_default();
    row("claims/s", format!("{mean:.0}"), format!("as the trace has them; most {}", count(most)));
    if let Some(told) = ledger.runs.last().and_then(|run| run.told) {
        let rows = told.records_written as f64 / (told.batches.max(1)) as f64;
        row("records a commit", format!("{rows:.1}"), "in the last process");
    }
    let keys = plan.rows.len().max(1);
    let bytes = figures.bytes_on_disk as f64 / keys as f64;
    let replies = audit.reply_bytes / keys;
    row("bytes a key", format!("{bytes:.0}"), format!("of these {replies} of reply"));
    row("wall time", format!("{:.1} s", figures.took.as_secs_f64()), "");
}

fn claims_in(run: &Run) -> u64 {
    let of = run.counted;
    of.new + of.resumed + of.in_flight + of.completed + of.failed + of.mismatch
}

fn row(name: impl AsRef<str>, figure: impl AsRef<str>, note: impl AsRef<str>) {
    let line = format!("{:<32}{:>12}   {}", name.as_ref(), figure.as_ref(), note.as_ref());
    println!("{}", line.trim_end());
}

/// A count with its thousands set apart.
fn count(of: impl TryInto<u64>) -> String {
    let digits = of.try_into().unwrap_or(u64::MAX).to_string();
    let mut apart = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// Bytes of all files in a directory.
pub(crate) fn bytes_in(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
