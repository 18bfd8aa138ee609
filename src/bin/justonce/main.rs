//! `justonce`: looks into a store, beside the service that has it open or on its own.
//!
//! What it can be asked is in [`arguments`], where answers come from in [`source`], how they look
//! in [`show`], what it exits with in [`outcome`].

#[cfg(not(unix))]
compile_error!("the program `justonce` asks services at Unix sockets: build it on Unix");

mod arguments;
mod outcome;
mod show;
mod source;
mod times;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use justonce::inspect::{Answer, EntryView, Octets, ProgressView, Question, Trouble};
use justonce::{ErrorKind, Store};

use arguments::{Arguments, Command, Names, Which};
use outcome::{Failure, Outcome};
use show::Rows;
use source::Source;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            if let Some(message) = failure.message() {
                // Nobody is left to be told that it could not be said.
                let _ = writeln!(io::stderr(), "justonce: {message}");
            }
            failure.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let json = arguments.json || matches!(arguments.command, Command::Export { .. });
    let source =
        Source { directory: &arguments.store, external: arguments.external_owners, quiet: json };
    match &arguments.command {
        Command::Stats => stats(&source, json),
        Command::Get { names, body: true } => body(&source, names),
        Command::Get { names, body: false } => {
            let Names { project, key } = names;
            one(&source, &Question::Lookup { project: octets(project), key: octets(key) }, json)
        }
        Command::Request { id } => one(&source, &Question::Request { id: id.to_string() }, json),
        Command::Ls { which } => list(&source, &scan(which, false), json),
        Command::InFlight => list(&source, &Question::InFlight, json),
        Command::History { names: Names { project, key } } => {
            let question = Question::History { project: octets(project), key: octets(key) };
            history(&source, &question, json)
        }
        Command::Generations => generations(&source, json),
        Command::Verify { mib_per_second } => verify(&source, *mib_per_second, json),
        Command::Export { which } => list(&source, &scan(which, true), json),
        Command::Forget { names: Names { project, key } } => {
            let store = source.open_to_change()?;
            let forgotten = store.forget(project.as_bytes(), key.as_bytes()).wait()?;
            store.close().wait()?;
            forget_told(forgotten, json)
        }
        Command::ForgetProject { project } => {
            forget_project(&source.open_to_change()?, project, json)
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), NAME, &mut io::stdout());
            Ok(Outcome::Found)
        }
        Command::Man { directory: Some(directory) } => {
            clap_mangen::generate_to(Arguments::command(), directory)?;
            Ok(Outcome::Found)
        }
        Command::Man { directory: None } => {
            clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout())?;
            Ok(Outcome::Found)
        }
    }
}

const NAME: &str = "justonce";

fn octets(name: &arguments::Name) -> Octets {
    Octets::from(name.as_bytes())
}

fn scan(which: &Which, bodies: bool) -> Question {
    Question::Scan {
        project: which.project.as_ref().map(octets),
        state: which.state.map(Into::into),
        bodies,
    }
}

fn stats(source: &Source<'_>, json: bool) -> Result<Outcome, Failure> {
    let mut out = io::stdout().lock();
    source.each(&Question::Stats, |answer| {
        match answer {
            Answer::Stats(stats) if json => show::json(&mut out, &stats)?,
            Answer::Stats(stats) => show::stats(&mut out, &stats)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Outcome::Found)
}

/// Shows the one entry there is.
fn one(source: &Source<'_>, question: &Question, json: bool) -> Result<Outcome, Failure> {
    let mut out = io::stdout().lock();
    let count = source.each(question, |answer| {
        match answer {
            Answer::Entry(entry) if json => show::json(&mut out, &entry)?,
            Answer::Entry(entry) => show::entry(&mut out, &entry)?,
            _ => {}
        }
        Ok(())
    })?;
    found(count, "no such operation is remembered", json)
}

/// Writes the bytes of the one reply there is.
fn body(source: &Source<'_>, names: &Names) -> Result<Outcome, Failure> {
    let question = Question::Lookup { project: octets(&names.project), key: octets(&names.key) };
    let mut replies = 0;
    source.each(&question, |answer| {
        if let Answer::Entry(entry) = answer
            && let Some(reply) = entry.reply
        {
            replies += 1;
            let bytes = reply.body.as_ref().map(Octets::to_bytes).transpose()?;
            let bytes = bytes.ok_or_else(|| {
                Failure::refused(format!("a reply of {} bytes is not told", reply.body_bytes))
            })?;
            io::stdout().lock().write_all(&bytes)?;
        }
        Ok(())
    })?;
    found(replies, "no reply is stored", false)
}

fn list(source: &Source<'_>, question: &Question, json: bool) -> Result<Outcome, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut rows = Rows::default();
    let mut outcome = Outcome::Found;
    source.each(question, |answer| {
        match answer {
            Answer::Entry(entry) if json => show::json(&mut out, &entry)?,
            Answer::Entry(entry) => rows.add(&mut out, &entry)?,
            Answer::Damage(damage) => {
                outcome = Outcome::Damaged;
                tell_damage(&damage)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    rows.flush(&mut out)?;
    out.flush()?;
    Ok(outcome)
}

fn history(source: &Source<'_>, question: &Question, json: bool) -> Result<Outcome, Failure> {
    let mut entries: Vec<EntryView> = Vec::new();
    let count = source.each(question, |answer| {
        if let Answer::Entry(entry) = answer {
            entries.push(*entry);
        }
        Ok(())
    })?;
    let mut out = io::stdout().lock();
    if json {
        entries.iter().try_for_each(|entry| show::json(&mut out, entry))?;
    } else if !entries.is_empty() {
        show::history(&mut out, &entries)?;
    }
    found(count, "no such operation is remembered", json)
}

fn generations(source: &Source<'_>, json: bool) -> Result<Outcome, Failure> {
    let mut generations = Vec::new();
    source.each(&Question::Generations, |answer| {
        if let Answer::Generation(generation) = answer {
            generations.push(generation);
        }
        Ok(())
    })?;
    let mut out = io::stdout().lock();
    if json {
        generations.iter().try_for_each(|generation| show::json(&mut out, generation))?;
    } else {
        show::generations(&mut out, &generations)?;
    }
    Ok(Outcome::Found)
}

fn verify(source: &Source<'_>, rate: Option<u64>, json: bool) -> Result<Outcome, Failure> {
    let question =
        Question::Verify { bytes_per_second: rate.map(|mib| mib.saturating_mul(1 << 20)) };
    let bar = if json { ProgressBar::hidden() } else { progress_bar() };
    let mut damages: Vec<Trouble> = Vec::new();
    let mut verified: Option<ProgressView> = None;
    let asked = source.each(&question, |answer| {
        match answer {
            Answer::Progress(progress) => show::progress(&bar, &progress),
            Answer::Damage(damage) => damages.push(damage),
            Answer::Verified(progress) => verified = Some(progress),
            _ => {}
        }
        Ok(())
    });
    bar.finish_and_clear();
    match asked {
        // What keeps it from being opened is what was asked for.
        Err(Failure::Store(error)) if error.kind() == ErrorKind::Corrupt => {
            damages.push(Trouble::from(&error));
        }
        asked => drop(asked?),
    }
    let mut out = io::stdout().lock();
    if json {
        show::verified_json(&mut out, verified.as_ref(), &damages)?;
    } else {
        show::verified(&mut out, verified.as_ref(), &damages)?;
    }
    Ok(if damages.is_empty() { Outcome::Found } else { Outcome::Damaged })
}

fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {pos}/{len} files  {msg}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn forget_told(forgotten: bool, json: bool) -> Result<Outcome, Failure> {
    if json {
        writeln!(io::stdout(), r#"{{"forgotten":{}}}"#, u8::from(forgotten))?;
    } else if forgotten {
        writeln!(io::stdout(), "forgotten")?;
    }
    found(u64::from(forgotten), "there was nothing to forget", json)
}

fn forget_project(
    store: &Store,
    project: &arguments::Name,
    json: bool,
) -> Result<Outcome, Failure> {
    let purged = store.forget_project(project.as_bytes()).wait()?;
    store.close().wait()?;
    let (forgotten, in_flight) = (purged.forgotten, purged.in_flight);
    if json {
        let line = format!(r#"{{"forgotten":{forgotten},"in_flight":{in_flight}}}"#);
        writeln!(io::stdout(), "{line}")?;
    } else {
        writeln!(io::stdout(), "forgotten: {forgotten}, left because in flight: {in_flight}")?;
    }
    Ok(Outcome::Found)
}

fn found(count: u64, or: &str, quietly: bool) -> Result<Outcome, Failure> {
    if count > 0 {
        return Ok(Outcome::Found);
    }
    if !quietly {
        writeln!(io::stderr(), "justonce: {or}")?;
    }
    Ok(Outcome::NotFound)
}

fn tell_damage(damage: &Trouble) -> Result<(), Failure> {
    Ok(writeln!(io::stderr(), "justonce: damaged: {}", damage.message)?)
}
