//! Answering a question of a store at hand: what the socket answers, and what whoever opens a
//! closed store asks of it.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::protocol::{Answer, Octets, Question, Trouble};
use super::views::{EntryView, StateView};
use crate::claim::Entry;
use crate::error::{Error, ErrorKind};
use crate::identity::RequestId;
use crate::store::{Filter, Store};
use crate::verify::Verify;

/// Unanswered operations that are listed at once. Where there are more, all are scanned for them,
/// one by one.
const MAX_LISTED: u64 = 1 << 16;

/// Slowest that a store is verified.
const MIN_BYTES_PER_SECOND: u64 = 1 << 20;

/// Operations that are passed over between two looks at whether whoever asked is still there.
const PASSED_BETWEEN_LOOKS: u64 = 1024;

/// Who asks.
pub trait Asker {
    /// Takes one answer; [`Break`](ControlFlow::Break) where it wants no more.
    fn tell(&mut self, answer: Answer) -> ControlFlow<()>;

    /// Whether it is still there, while there is nothing to tell.
    fn is_there(&mut self) -> bool {
        true
    }
}

impl<F: FnMut(Answer) -> ControlFlow<()>> Asker for F {
    fn tell(&mut self, answer: Answer) -> ControlFlow<()> {
        self(answer)
    }
}

/// Answers a question, with [`Answer::End`] as the last word, unless whoever asks has gone. Blocks
/// for as long as the call takes that is named at the [`Question`].
///
/// ```
/// use std::ops::ControlFlow;
/// use justonce::inspect::{Answer, Question, answer};
/// use justonce::{Operation, Options};
///
/// let store = Options::new().in_memory()?;
/// store.record_once(Operation::new("acme", "evt_1")).wait()?;
/// let mut told = Vec::new();
/// let scan = Question::Scan { project: None, state: None, bodies: false };
/// answer(&store, &scan, &mut |answer| {
///     told.push(answer);
///     ControlFlow::Continue(())
/// })?;
/// assert!(matches!(&told[..], [Answer::Entry(_), Answer::End { count: 1 }]));
/// # Ok::<(), justonce::Error>(())
/// ```
///
/// # Errors
/// Those of the call. A record that cannot be read is an [`Answer::Damage`] instead, where others
/// can be told.
pub fn answer(store: &Store, question: &Question, asker: &mut dyn Asker) -> Result<(), Error> {
    let told = tell(store, question, asker)?;
    if let ControlFlow::Continue(count) = told {
        // It was the last word, whatever comes of it.
        let _ = asker.tell(Answer::End { count });
    }
    Ok(())
}

/// How many were told, or that nobody listens any more.
type Told = ControlFlow<(), u64>;

fn tell(store: &Store, question: &Question, asker: &mut dyn Asker) -> Result<Told, Error> {
    match question {
        Question::Stats => {
            let stats = Answer::Stats(Box::new((&store.stats()).into()));
            Ok(asker.tell(stats).map_continue(|()| 1))
        }
        Question::Lookup { project, key } => {
            let entry = store.lookup(project.to_bytes()?, key.to_bytes()?).wait()?;
            Ok(tell_all(entry, true, asker))
        }
        Question::Request { id } => {
            let entry = store.lookup_request(id.parse::<RequestId>()?).wait()?;
            Ok(tell_all(entry, true, asker))
        }
        Question::Scan { project, state, bodies } => {
            let project = project.as_ref().map(Octets::to_bytes).transpose()?;
            let is_of = |entry: &Entry| {
                project.as_ref().is_none_or(|project| entry.is_of(store, project))
                    && state.is_none_or(|state| state == entry.state().into())
            };
            scan(store, is_of, *bodies, asker)
        }
        Question::InFlight if store.stats().unanswered > MAX_LISTED => {
            scan(store, |entry| StateView::from(entry.state()).is_unanswered(), false, asker)
        }
        Question::InFlight => {
            let entries = store.in_flight().wait()?;
            Ok(tell_all(entries, false, asker))
        }
        Question::History { project, key } => {
            let entries = store.history(project.to_bytes()?, key.to_bytes()?).wait()?;
            Ok(tell_all(entries, true, asker))
        }
        Question::Generations => {
            let generations = store.generations()?;
            for generation in &generations {
                if asker.tell(Answer::Generation(generation.into())).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(generations.len() as u64))
        }
        Question::Verify { bytes_per_second } => verify(store, *bytes_per_second, asker),
    }
}

fn tell_all(entries: impl IntoIterator<Item = Entry>, bodies: bool, asker: &mut dyn Asker) -> Told {
    let mut count = 0;
    for entry in entries {
        asker.tell(Answer::Entry(Box::new(EntryView::of(&entry, bodies))))?;
        count += 1;
    }
    ControlFlow::Continue(count)
}

/// Passes over what is not asked for here, and not in the store, to notice between two answers
/// that whoever asks has gone.
fn scan(
    store: &Store,
    is_asked_for: impl Fn(&Entry) -> bool,
    bodies: bool,
    asker: &mut dyn Asker,
) -> Result<Told, Error> {
    let (mut told, mut passed) = (0, 0);
    for entry in store.scan(Filter::new()) {
        let answer = match entry {
            Ok(entry) if is_asked_for(&entry) => {
                told += 1;
                Answer::Entry(Box::new(EntryView::of(&entry, bodies)))
            }
            Ok(_) => {
                passed += 1;
                if passed % PASSED_BETWEEN_LOOKS == 0 && !asker.is_there() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Answer::Damage(Trouble::from(&error))
            }
            Err(error) => return Err(error),
        };
        if asker.tell(answer).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(told))
}

fn verify(store: &Store, rate: Option<u64>, asker: &mut dyn Asker) -> Result<Told, Error> {
    let asker = RefCell::new(asker);
    let gone = RefCell::new(false);
    let mut verify = Verify::new()
        .on_progress(|progress| {
            let told = asker.borrow_mut().tell(Answer::Progress(progress.into()));
            *gone.borrow_mut() |= told.is_break();
        })
        .stop_when(|| {
            let is_gone = *gone.borrow() || !asker.borrow_mut().is_there();
            *gone.borrow_mut() = is_gone;
            is_gone
        });
    if let Some(rate) = rate {
        // Slower, and it would not notice for long that whoever asked has gone.
        verify = verify.bytes_per_second(rate.max(MIN_BYTES_PER_SECOND));
    }
    let verified = store.verify(verify);
    if *gone.borrow() {
        return Ok(ControlFlow::Break(()));
    }
    let verified = verified?;
    let asker = asker.into_inner();
    let damages = verified.damages().iter().map(|damage| Answer::Damage(damage.into()));
    for answer in damages.chain([Answer::Verified((&verified.progress()).into())]) {
        if asker.tell(answer).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(0))
}
