//! Serving a store: a thread that listens, and one for each who asks.
//!
//! Nothing here holds the store open or up: threads work on a [guest](Store::guest) handle, hold no
//! lock while they write, and end when the store closes or the [`Inspector`] is dropped. Both wait
//! for them; an asker's stream is shut down for that, and what is read for it stops at its next
//! record.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::answer::{Asker, answer};
use super::protocol::{Answer, Asked, MAX_QUESTION_BYTES, Question, Trouble};
use super::socket::{self, Bound};
use crate::clock::instant;
use crate::engine::{Engine, Guest};
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::sync::{self, Arc, AtomicBool, JoinHandle, Mutex, Ordering, Weak};

/// How many are answered at once; more are told that it is busy.
pub const MAX_ASKERS: usize = 4;

/// How long an asker may take to ask, and to take what was written last.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nobody is let in where the system refuses to.
const AFTER_REFUSAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Answers questions about a store while it is kept; see [`serve`].
#[derive(Debug)]
#[must_use = "questions are answered for as long as it is kept"]
pub struct Inspector(Arc<Served>);

impl Drop for Inspector {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Answers questions about an open store, from outside the process, until what is returned is
/// dropped or the store is closed.
///
/// Makes a socket, `inspect.sock`, in the store's directory, for this user alone, and a thread that
/// listens there. Keeps no store open. Dropping it ends what is being answered, removes the socket
/// and waits for the threads, for no longer than a record takes to read.
///
/// ```
/// use justonce::inspect::{Answer, Question, ask, serve};
/// use justonce::{Operation, Store};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("dedupe");
/// let store = Store::open(&path)?;
/// let _inspector = serve(&store)?;
/// store.record_once(Operation::new("acme", "evt_1")).wait()?;
///
/// // In another process:
/// let answers = ask(&path, &Question::Stats)?.expect("the service answers");
/// let answers: Vec<_> = answers.collect::<Result<_, _>>()?;
/// assert!(matches!(&answers[0], Answer::Stats(stats) if stats.claims.new == 1));
/// # Ok::<(), justonce::Error>(())
/// ```
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): the store is in memory, its path is too long for a socket (107
/// bytes with the name on Linux, 103 elsewhere), or it is served already.
/// [`Closed`](ErrorKind::Closed), [`Io`](ErrorKind::Io).
pub fn serve(store: &Store) -> Result<Inspector, Error> {
    let engine = store.engine();
    let Some(directory) = store.path() else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "a store in memory has no directory for a socket: ask it in its own process",
        ));
    };
    // A forked child would take its parent's socket away.
    engine.check_open()?;
    let served = Arc::new(Served::new()?);
    // Whoever sees it out waits until it is there, or it would come after the store has closed.
    let mut place = served.place.lock();
    // Taken in first: of two, one must not take the other's socket away.
    let guest = Arc::downgrade(&served);
    let guest: Weak<dyn Guest> = guest;
    if !engine.take_in(guest) {
        engine.check_open()?;
        return Err(Error::new(
            ErrorKind::Invalid,
            "the store is served already: keep the inspector there is",
        ));
    }
    let (listener, bound) = socket::bind(directory)?;
    let (store, listening) = (store.guest(), Arc::clone(&served));
    let thread = sync::spawn("justonce-inspect", move || listening.listen(&store, &listener));
    match thread {
        Ok(thread) => *place = Some(Place { bound, thread }),
        Err(error) => {
            bound.remove();
            return Err(Error::new(
                ErrorKind::Io,
                "the system starts no more threads: raise its limit",
            )
            .with_source(error));
        }
    }
    drop(place);
    Ok(Inspector(served))
}

#[derive(Debug)]
struct Served {
    stopping: AtomicBool,
    /// Read by the thread that listens, which is woken by a byte.
    wake: (UnixStream, UnixStream),
    /// Whoever is being answered, by a number, to be cut off.
    streams: Mutex<BTreeMap<u64, UnixStream>>,
    /// None once it has been left. Held while the threads end, so that nobody believes them gone
    /// before.
    place: Mutex<Option<Place>>,
    process: u32,
}

#[derive(Debug)]
struct Place {
    bound: Bound,
    thread: JoinHandle<()>,
}

impl Guest for Served {
    fn leave(&self) {
        // In a forked child the threads and the socket are the parent's.
        if std::process::id() != self.process {
            return;
        }
        self.stopping.store(true, Ordering::SeqCst);
        // A full pipe wakes as well.
        let _ = (&self.wake.0).write(&[0]);
        let mut place = self.place.lock();
        if let Some(Place { bound, thread }) = place.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
            bound.remove();
        }
    }
}

impl Served {
    fn new() -> Result<Self, Error> {
        let wake = UnixStream::pair().and_then(|wake| {
            wake.0.set_nonblocking(true)?;
            wake.1.set_nonblocking(true)?;
            Ok(wake)
        });
        Ok(Served {
            stopping: AtomicBool::new(false),
            wake: wake.map_err(|error| Error::io("a pair of sockets", error))?,
            streams: Mutex::default(),
            place: Mutex::new(None),
            process: std::process::id(),
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The body of the thread that listens.
    fn listen(self: &Arc<Self>, store: &Store, listener: &UnixListener) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        let mut number = 0;
        while !self.is_stopping() {
            let mut either =
                [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.wake.1, PollFlags::IN)];
            // Interrupted, it looks again.
            let _ = poll(&mut either, None);
            threads.retain(|thread| !thread.is_finished());
            match listener.accept() {
                _ if self.is_stopping() => break,
                Ok((stream, _)) if threads.len() >= MAX_ASKERS => refuse(stream),
                Ok((stream, _)) => {
                    number += 1;
                    threads.extend(self.attend(store, number, stream));
                }
                Err(error) if is_passing(&error) => {}
                // No descriptors, no memory: whoever waits there would wake it at once again.
                Err(_) => {
                    let mut wake = [PollFd::new(&self.wake.1, PollFlags::IN)];
                    let _ = poll(&mut wake, Some(&AFTER_REFUSAL));
                }
            }
        }
        for stream in self.streams.lock().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Starts a thread for one who asks. Where the system starts none, they see the end of the
    /// stream.
    fn attend(
        self: &Arc<Self>,
        store: &Store,
        number: u64,
        stream: UnixStream,
    ) -> Option<JoinHandle<()>> {
        self.streams.lock().insert(number, stream.try_clone().ok()?);
        let (served, guest) = (Arc::clone(self), store.clone());
        let thread = sync::spawn("justonce-asked", move || {
            // A panic in it is that asker's alone; the stream is off the list in any case.
            let _listed = Listed { served: &served, number };
            let engine: &Arc<Engine> = guest.engine();
            let _lent = engine.lend_thread();
            if let Ok(conversation) = Conversation::over(stream, &served) {
                conversation.converse(&guest);
            }
        });
        thread.inspect_err(|_| drop(self.streams.lock().remove(&number))).ok()
    }
}

/// An asker's place among the streams.
struct Listed<'s> {
    served: &'s Served,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.served.streams.lock().remove(&self.number);
    }
}

/// With one who asks, at the other end of a stream.
struct Conversation<'s> {
    served: &'s Served,
    stream: UnixStream,
    written: BufWriter<UnixStream>,
    /// It took nothing for too long, or is gone.
    is_let_go: bool,
}

impl<'s> Conversation<'s> {
    fn over(stream: UnixStream, served: &'s Served) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let written = BufWriter::new(stream.try_clone()?);
        Ok(Conversation { served, stream, written, is_let_go: false })
    }

    fn converse(mut self, store: &Store) {
        let answered = match self.question() {
            Ok(Some(question)) => answer(store, &question, &mut self),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            // The last word; whoever does not take it has gone.
            let _ = self.tell(Answer::Error(Trouble::from(&error)));
        }
        if self.is_let_go {
            // Not written once more when it is dropped.
            drop(self.written.into_parts());
        }
    }

    /// The question; none where the asker has gone or is too slow.
    fn question(&self) -> Result<Option<Question>, Error> {
        let mut line = Vec::new();
        let until_late = Until { stream: &self.stream, late: instant().checked_add(PATIENCE) };
        let mut limited = BufReader::new(until_late.take(MAX_QUESTION_BYTES));
        if limited.read_until(b'\n', &mut line).is_err() || line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') && line.len() as u64 >= MAX_QUESTION_BYTES {
            let message = format!("a question has at most {MAX_QUESTION_BYTES} bytes: ask less");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Asked::read(&line).map(Some)
    }

    fn write(&mut self, answer: &Answer) -> io::Result<()> {
        serde_json::to_writer(&mut self.written, answer)?;
        self.written.write_all(b"\n")?;
        match answer {
            // Whoever looks on sees it move.
            Answer::Progress(_) => self.written.flush(),
            _ => Ok(()),
        }
    }
}

impl Asker for Conversation<'_> {
    fn tell(&mut self, answer: Answer) -> ControlFlow<()> {
        if !self.is_let_go {
            self.is_let_go = self.served.is_stopping() || self.write(&answer).is_err();
        }
        if self.is_let_go { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn is_there(&mut self) -> bool {
        let mut asker = [PollFd::new(&self.stream, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = poll(&mut asker, Some(&at_once));
        let is_gone = |of: &PollFd<'_>| of.revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let is_gone = polled.is_ok() && asker.iter().any(is_gone);
        !is_gone && !self.served.is_stopping()
    }
}

/// Reads until a moment, however slowly it comes.
struct Until<'s> {
    stream: &'s UnixStream,
    late: Option<std::time::Instant>,
}

impl Read for Until<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.late.and_then(|late| late.checked_duration_since(instant()));
        let left = left.filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut)?;
        self.stream.set_read_timeout(Some(left))?;
        (&mut &*self.stream).read(out)
    }
}

fn refuse(mut stream: UnixStream) {
    let message = format!("{MAX_ASKERS} are being answered already: ask again later");
    let busy = Answer::Error(Trouble::from(&Error::new(ErrorKind::Busy, message)));
    // There is room for a line in a fresh stream.
    let _ = stream.set_nonblocking(true);
    if let Ok(mut line) = serde_json::to_vec(&busy) {
        line.push(b'\n');
        let _ = stream.write_all(&line);
    }
}

/// Whether nothing is wrong but that nobody is there.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}
