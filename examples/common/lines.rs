//! What a worker tells, line by line; for examples that start themselves again.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, channel};

/// The lines of a worker, read by a thread of their own: a pipe cannot be waited on for a while.
pub(crate) fn lines_of(output: ChildStdout) -> std::io::Result<Receiver<std::io::Result<String>>> {
    let (sender, lines) = channel();
    std::thread::Builder::new().name("facts".to_owned()).spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}
