//! How answers look: tables for people, JSON for programs.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, ProgressBar};
use justonce::inspect::{
    EntryView, GenerationStateView, GenerationView, Octets, ProgressView, StateView, StatsView,
    Trouble, WhyView,
};
use serde::Serialize;

use super::times::{Bytes, Utc};

/// Rows that are laid out at once: a store may have more than fit into memory.
const ROWS_AT_ONCE: usize = 1000;

/// Bytes of a body or note that people are shown.
const SHOWN_BYTES: usize = 200;

pub(crate) fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

pub(crate) fn stats(out: &mut impl Write, stats: &StatsView) -> io::Result<()> {
    let (claims, commits) = (&stats.claims, &stats.commits);
    let mut table = facts();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("operations listed", stats.records_live.to_string());
    row("without a reply", stats.unanswered.to_string());
    row("generations", format!("{} ({} sealed)", stats.generations, stats.sealed_generations));
    row("claims: new", claims.new.to_string());
    row("claims: resumed", claims.resumed.to_string());
    row("claims: in flight", claims.in_flight.to_string());
    row("claims: completed", claims.completed.to_string());
    row("claims: failed", claims.failed.to_string());
    row("claims: mismatch", claims.mismatch.to_string());
    row("claims: lapsed", claims.lapsed.to_string());
    row("batches committed", commits.batches.to_string());
    row("records committed", format!("{} ({})", commits.records, Bytes(commits.record_bytes)));
    row("commit latency p50", format!("below {} µs", commits.latency_p50_micros));
    row("commit latency p99", format!("below {} µs", commits.latency_p99_micros));
    row("queued", Bytes(stats.queued_bytes).to_string());
    row("waiters", stats.waiters.to_string());
    row("takes writes", if stats.poisoned { "no, poisoned by a fault" } else { "yes" }.to_owned());
    row("clock behind when opened", format!("{} ms", stats.clock_skew_millis));
    write_table(out, &table)
}

pub(crate) fn entry(out: &mut impl Write, entry: &EntryView) -> io::Result<()> {
    let mut table = facts();
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([name.to_owned(), value]);
        }
    };
    row("request", Some(entry.request_id.clone()));
    row("project", entry.project.as_ref().map(text));
    row("key", entry.key.as_ref().map(text));
    row("state", Some(state_and_why(entry)));
    row("reason", entry.reason.as_deref().map(printable));
    row("attempt", Some(entry.attempt.to_string()));
    row("fence", Some(entry.fence.to_string()));
    row("label", entry.label.as_deref().map(printable));
    row("first claimed", Some(Utc(entry.claimed_at_millis).to_string()));
    row("last changed", Some(Utc(entry.changed_at_millis).to_string()));
    row("lease until", entry.lease_until_millis.map(|at| Utc(at).to_string()));
    row("forgotten at", Some(Utc(entry.expires_at_millis).to_string()));
    row("work may have been sent", entry.dispatched.then(|| "yes".to_owned()));
    row("note", entry.checkpoint.as_ref().map(|note| short(&text(note))));
    if let Some(reply) = &entry.reply {
        row("attempts used up", reply.attempts_exhausted.map(|attempts| attempts.to_string()));
        row("reply", Some(reply_summary(entry)));
        row("body", reply.body.as_ref().map(|body| short(&text(body))));
    }
    write_table(out, &table)
}

/// Operations in a table, some at a time.
#[derive(Default)]
pub(crate) struct Rows(Vec<EntryView>);

impl Rows {
    pub(crate) fn add(&mut self, out: &mut impl Write, entry: &EntryView) -> io::Result<()> {
        self.0.push(entry.clone());
        if self.0.len() < ROWS_AT_ONCE { Ok(()) } else { self.flush(out) }
    }

    pub(crate) fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        let entries = std::mem::take(&mut self.0);
        if entries.is_empty() {
            return Ok(());
        }
        let named = entries.iter().any(|entry| entry.key.is_some());
        let mut header = vec!["REQUEST", "STATE", "ATTEMPT", "CHANGED", "REPLY"];
        if named {
            header.extend(["PROJECT", "KEY"]);
        }
        let mut table = columns(&header);
        for entry in &entries {
            let mut row = vec![
                entry.request_id.clone(),
                state_and_why(entry),
                entry.attempt.to_string(),
                Utc(entry.changed_at_millis).to_string(),
                reply_summary(entry),
            ];
            if named {
                let name = |name: &Option<Octets>| name.as_ref().map_or_else(String::new, text);
                row.extend([name(&entry.project), name(&entry.key)]);
            }
            table.add_row(row);
        }
        write_table(out, &table)
    }
}

pub(crate) fn history(out: &mut impl Write, entries: &[EntryView]) -> io::Result<()> {
    if let Some(newest) = entries.first() {
        writeln!(out, "{}", newest.request_id)?;
    }
    let mut table = columns(&["ATTEMPT", "WRITTEN", "CAME TO", "FENCE", "NOTE"]);
    for entry in entries {
        let mut notes = Vec::new();
        notes.extend(entry.reason.as_deref().map(printable));
        if entry.dispatched {
            notes.push("dispatched".to_owned());
        }
        notes.extend(entry.checkpoint.as_ref().map(|note| short(&text(note))));
        if entry.reply.is_some() {
            notes.push(reply_summary(entry));
        }
        table.add_row([
            entry.attempt.to_string(),
            Utc(entry.changed_at_millis).to_string(),
            state_and_why(entry),
            entry.fence.to_string(),
            notes.join(", "),
        ]);
    }
    write_table(out, &table)
}

pub(crate) fn generations(out: &mut impl Write, all: &[GenerationView]) -> io::Result<()> {
    let mut table =
        columns(&["GENERATION", "STATE", "RECORDS", "UNANSWERED", "SIZE", "KEPT UNTIL"]);
    for of in all {
        let state = match of.state {
            GenerationStateView::Spare => "spare",
            GenerationStateView::Open => "open",
            GenerationStateView::Frozen => "frozen",
            GenerationStateView::Sealed => "sealed",
            _ => "other",
        };
        table.add_row([
            format!("{:08}", of.id),
            state.to_owned(),
            of.records.to_string(),
            of.unanswered.to_string(),
            Bytes(of.bytes).to_string(),
            of.retained_until_millis.map_or_else(String::new, |at| Utc(at).to_string()),
        ]);
    }
    for number in [2, 3, 4] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    write_table(out, &table)
}

pub(crate) fn progress(bar: &ProgressBar, progress: &ProgressView) {
    bar.set_length(progress.generations_in_all);
    bar.set_position(progress.generations);
    bar.set_message(format!(
        "{} records, {}, {} damaged",
        progress.records,
        HumanBytes(progress.bytes),
        progress.damages
    ));
}

pub(crate) fn verified(
    out: &mut impl Write,
    verified: Option<&ProgressView>,
    damages: &[Trouble],
) -> io::Result<()> {
    for damage in damages {
        writeln!(out, "damaged: {}", damage.message)?;
    }
    let Some(of) = verified else { return writeln!(out, "the store cannot be opened") };
    let word = if damages.is_empty() { "sound" } else { "damaged" };
    write!(
        out,
        "{word}: {} files, {} records, {} index entries, {} read",
        of.generations,
        of.records,
        of.entries,
        Bytes(of.bytes)
    )?;
    if of.unread > 0 {
        write!(out, "; {} files could not be read to their end", of.unread)?;
    }
    if of.damages > damages.len() as u64 {
        write!(out, "; {} damages in all", of.damages)?;
    }
    writeln!(out)
}

pub(crate) fn verified_json(
    out: &mut impl Write,
    verified: Option<&ProgressView>,
    damages: &[Trouble],
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        sound: bool,
        read: Option<&'a ProgressView>,
        damages: &'a [Trouble],
    }
    json(out, &Report { sound: damages.is_empty(), read: verified, damages })
}

fn state_and_why(entry: &EntryView) -> String {
    let state = match entry.state {
        StateView::InFlight => "in flight",
        StateView::Lapsed => "lapsed",
        StateView::Released => "released",
        StateView::Completed => "completed",
        StateView::Failed => "failed",
        _ => "other",
    };
    match entry.why {
        Some(WhyView::Lease) => format!("{state} (lease)"),
        Some(WhyView::Dropped) => format!("{state} (dropped)"),
        Some(WhyView::Restart) => format!("{state} (restart)"),
        _ => state.to_owned(),
    }
}

fn reply_summary(entry: &EntryView) -> String {
    let Some(reply) = &entry.reply else { return String::new() };
    let size = Bytes(reply.body_bytes);
    match &reply.content_tag {
        Some(tag) => format!("{size} {}", printable(tag)),
        None => size.to_string(),
    }
}

/// Bytes, for people: nothing that a terminal would act on.
fn text(octets: &Octets) -> String {
    match octets {
        Octets::Text(text) => printable(text),
        Octets::Hex { hex } => format!("0x{hex}"),
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|letter| {
            let escaped = letter.is_control().then(|| letter.escape_default());
            let plain = (!letter.is_control()).then_some(letter);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_BYTES) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// A table of names and values.
fn facts() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn columns(header: &[&str]) -> Table {
    let mut table = facts();
    table.set_header(header);
    table
}

fn write_table(out: &mut impl Write, table: &Table) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    Ok(())
}
