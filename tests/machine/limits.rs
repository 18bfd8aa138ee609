//! Threads and open files that run out: typed errors, no hang, and the directory opens afterwards.

use std::error::Error as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;

use justonce::{Claim, Error, ErrorKind, Options, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{child, is_root, part_in, plays_to_its_end, run, tell};
use crate::common::{ClaimExt, DAY, HOUR, MINUTE, eventually, op};

/// A user of no rights, whom limits bind.
const NOBODY: u32 = 65_534;

const EMFILE: i32 = 24;
const EAGAIN: i32 = 11;

/// Does something while only so many of a thing may be had.
fn limited<T>(resource: Resource, to: u64, work: impl FnOnce() -> T) -> T {
    let all = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(to), maximum: all.maximum }).unwrap();
    let done = work();
    setrlimit(resource, all).unwrap();
    done
}

/// The number of the system's error at the bottom of one of ours.
fn errno(error: &Error) -> Option<i32> {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return io.raw_os_error();
        }
        cause = source.source();
    }
    None
}

/// A generation for each record: many of them sealed, and several lanes to be replayed.
fn open(place: &Path) -> Result<Store, Error> {
    Options::new().generation_bytes(1).open(place.join("store"))
}

#[test]
fn a_store_whose_threads_cannot_be_started_is_not_opened_and_opens_later() {
    const NAME: &str =
        "limits::a_store_whose_threads_cannot_be_started_is_not_opened_and_opens_later";
    let Some(place) = part_in(NAME) else {
        let place = tempfile::tempdir().unwrap();
        let command = if is_root() {
            // The limit is not for root.
            let program = place.path().join("program");
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            let mut command = run::<&str>(&program, &[], NAME, place.path());
            command.uid(NOBODY).gid(NOBODY).current_dir(place.path());
            command
        } else {
            child(NAME, place.path())
        };
        let told = plays_to_its_end(command);
        assert!(told[0].starts_with("refused "), "{told:?}");
        return;
    };
    let store = open(&place).unwrap();
    for number in 0..12 {
        for window in [MINUTE, HOUR, DAY] {
            let operation = op(&format!("{number}")).window(window);
            store.forget("acme", number.to_string()).wait().unwrap();
            assert!(store.record_once(operation).wait().unwrap());
        }
    }
    eventually("most is sealed", || store.stats().sealed_generations > 20);
    store.close().wait().unwrap();
    drop(store);
    let mut refused = 0;
    for threads in 1..32 {
        match limited(Resource::Nproc, threads, || open(&place)) {
            Ok(store) => {
                assert!(!store.record_once(op("0")).wait().unwrap());
                store.close().wait().unwrap();
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{threads} threads: {error:?}");
                assert_eq!(errno(&error), Some(EAGAIN), "{threads} threads: {error:?}");
                refused += 1;
            }
        }
    }
    let store = open(&place).unwrap();
    for number in 0..12 {
        assert!(!store.record_once(op(&number.to_string())).wait().unwrap());
    }
    assert!(refused > 0);
    tell(&format!("refused {refused} times"));
}

#[test]
fn nothing_is_lost_when_open_files_run_out() {
    const NAME: &str = "limits::nothing_is_lost_when_open_files_run_out";
    let Some(place) = part_in(NAME) else {
        let place = tempfile::tempdir().unwrap();
        plays_to_its_end(child(NAME, place.path()));
        return;
    };
    let (mut done, mut not_opened, mut stopped) = (Vec::new(), 0, 0);
    for files in (3..24).chain([40, 80]) {
        let refused = limited(Resource::Nofile, files, || {
            let store = match open(&place) {
                Ok(store) => store,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{files} files: {error:?}");
                    assert_eq!(errno(&error), Some(EMFILE), "{files} files: {error:?}");
                    not_opened += 1;
                    return None;
                }
            };
            let keys = (0..20).map(|number| format!("{files} {number}"));
            let refused = keys.into_iter().find_map(|key| {
                let claim = store.claim(op(&key)).wait();
                let ended = claim.and_then(|claim| claim.new().complete("done").wait());
                match ended {
                    Ok(()) => done.push(key),
                    Err(error) => return Some((key, error)),
                }
                None
            });
            let _ = store.close().wait();
            refused
        });
        if let Some((key, error)) = &refused {
            let is_typed = matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned);
            assert!(is_typed, "{files} files, {key}: {error:?}");
            assert_eq!(errno(error), Some(EMFILE), "{files} files, {key}: {error:?}");
            stopped += 1;
        }
        let store = open(&place).unwrap();
        for key in &done {
            let reply = store.claim(op(key)).wait().unwrap().completed();
            assert_eq!(reply.body(), b"done", "{files} files: {key}");
        }
        if let Some((key, _)) = refused {
            match store.claim(op(&key)).wait().unwrap() {
                Claim::New(ticket) | Claim::Resumed(ticket, _) => {
                    ticket.complete("done").wait().unwrap();
                }
                Claim::Completed(reply) => assert_eq!(reply.body(), b"done"),
                other => panic!("{files} files: {key}: {other:?}"),
            }
        }
        store.close().wait().unwrap();
    }
    assert!(not_opened > 0 && stopped > 0 && !done.is_empty(), "{not_opened}, {stopped}");
}
