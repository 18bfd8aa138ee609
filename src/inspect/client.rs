//! Asking: a stream to the service, one question, its answers as they come.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::protocol::{Answer, Asked, MAX_BODY_BYTES, Question, VERSION};
use super::socket;
use crate::error::{Error, ErrorKind};

/// Longest line of an answer: six bytes may stand for one of a body.
const MAX_ANSWER_BYTES: u64 = 7 * MAX_BODY_BYTES as u64;

/// Asks the service that has the store in a directory open, and [serves](super::serve) it. `None`
/// where nobody answers there: the store is closed, or its service does not serve it.
///
/// Blocks until the question is sent; each answer blocks until it is there.
///
/// # Errors
/// [`Io`](ErrorKind::Io): this user may not ask, or there is no such directory.
pub fn ask(directory: impl AsRef<Path>, question: &Question) -> Result<Option<Answers>, Error> {
    let directory = directory.as_ref();
    let in_directory = |error| Error::io(directory.display(), error);
    let Some(path) = reachable(directory).map_err(in_directory)? else { return Ok(None) };
    let in_socket = |error| Error::io(path.display(), error);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if is_unanswered(&error) => return Ok(None),
        Err(error) => return Err(in_socket(error)),
    };
    let asked = Asked { version: VERSION, question: question.clone() };
    let mut line = serde_json::to_vec(&asked).map_err(|error| in_socket(error.into()))?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have been refused unread, and told why.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(in_socket(error)),
    }
    Ok(Some(Answers { stream: BufReader::new(stream), path, is_over: false }))
}

/// What is answered, as it comes. The last is [`Answer::End`] or an error: a stream that ends
/// without is one.
#[derive(Debug)]
pub struct Answers {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    is_over: bool,
}

impl Answers {
    fn read(&mut self) -> Result<Answer, Error> {
        let mut line = Vec::new();
        let mut limited = self.stream.by_ref().take(MAX_ANSWER_BYTES);
        let read = limited.read_until(b'\n', &mut line);
        read.map_err(|error| Error::io(self.path.display(), error))?;
        if line.last() != Some(&b'\n') {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{} ended before all was told: ask again", self.path.display()),
            ));
        }
        serde_json::from_slice(&line).map_err(|error| {
            let message = format!(
                "{} answers what is not understood: use a program of the service's version",
                self.path.display()
            );
            Error::new(ErrorKind::Io, message).with_source(error)
        })
    }
}

impl Iterator for Answers {
    type Item = Result<Answer, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let answer = match self.read() {
            Ok(Answer::Error(trouble)) => Err(Error::from(&trouble)),
            read => read,
        };
        self.is_over = matches!(answer, Err(_) | Ok(Answer::End { .. }));
        Some(answer)
    }
}

/// The path by which the socket can be reached: as it was given, or with links resolved, as the
/// service has it. None where both are too long, and no service can have it either.
fn reachable(directory: &Path) -> io::Result<Option<PathBuf>> {
    let given = socket::path_in(directory);
    if !socket::is_too_long(&given) {
        return Ok(Some(given));
    }
    let resolved = socket::path_in(&fs::canonicalize(directory)?);
    Ok(Some(resolved).filter(|path| !socket::is_too_long(path)))
}

fn is_unanswered(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
