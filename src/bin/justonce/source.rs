//! Where answers come from: the service that has the store open, or the store itself.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use justonce::inspect::{Answer, Question, answer, ask};
use justonce::{Error, ErrorKind, Options, Owner, Store};

use super::outcome::Failure;

/// A store that is open elsewhere and does not answer, in this program's words.
const UNSERVED: &str = "another process has the store open and does not answer: have it keep \
    `let _inspector = justonce::inspect::serve(&store)?;` (feature `inspect`), or close it there";

/// The same, for what is not done to an open store.
const IN_USE: &str = "another process has the store open, and what is open is changed by its \
    service alone: close it there first";

/// Said to people, where the store answers for itself.
const CLOSED: &str = "nobody has the store open; this is what its next opening will find";

pub(crate) struct Source<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) external: bool,
    /// Whether it is a program that reads.
    pub(crate) quiet: bool,
}

impl Source<'_> {
    /// Asks, and hands on what is answered; how many were told.
    pub(crate) fn each(
        &self,
        question: &Question,
        mut tell: impl FnMut(Answer) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut told = 0;
        let mut take = |answer| match answer {
            Answer::End { count } => {
                told = count;
                Ok(())
            }
            answer => tell(answer),
        };
        if let Some(answers) = ask(self.directory, question)? {
            for answer in answers {
                take(answer?)?;
            }
            return Ok(told);
        }
        let store = self.options().open_unchanged(self.directory);
        let store = store.map_err(|error| in_words(error, UNSERVED))?;
        if !self.quiet {
            writeln!(io::stderr(), "justonce: {CLOSED}")?;
        }
        let mut taken = Ok(());
        answer(&store, question, &mut |answer| {
            taken = take(answer);
            if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        taken.map(|()| told)
    }

    /// Opens the store to change it.
    pub(crate) fn open_to_change(&self) -> Result<Store, Failure> {
        // It is not to be made where there is none.
        let looked_at = self.options().open_unchanged(self.directory);
        drop(looked_at.map_err(|error| in_words(error, IN_USE))?);
        let store = self.options().open(self.directory);
        store.map_err(|error| in_words(error, IN_USE))
    }

    fn options(&self) -> Options {
        let owner = if self.external { Owner::External } else { Owner::Process };
        Options::new().owner(owner)
    }
}

fn in_words(error: Error, if_open: &str) -> Failure {
    if error.kind() == ErrorKind::AlreadyOpen {
        Failure::Unreached(if_open.to_owned())
    } else {
        Failure::Store(error)
    }
}
