//! A store whose files were changed in some places is opened and asked: each answer is right or a
//! typed error, and what has a reply is never new.

#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use justonce::{Claim, Durability, ErrorKind, ManualClock, Operation, Options, Verify};
use justonce_fuzz::Disk;
use libfuzzer_sys::fuzz_target;

const KEYS: usize = 24;
const PAGE: usize = 4096;

#[derive(Debug, Arbitrary)]
enum Change {
    Xor { file: u8, at: u32, with: u8 },
    Put { file: u8, at: u32, bytes: [u8; 4] },
    Zero { file: u8, page: u16 },
    Copy { file: u8, page: u16, from_file: u8, from: u16 },
    Cut { file: u8, to: u32 },
    Remove { file: u8 },
}

struct Sound {
    clock: ManualClock,
    files: BTreeMap<String, Vec<u8>>,
}

static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    // What redb says of a damaged file by a panic is caught.
    std::panic::set_hook(Box::new(|_| {}));
    let (clock, disk) = (ManualClock::new(), Disk::default());
    let store = options(&clock).open_in(Arc::new(disk.clone())).expect("it is empty");
    for key in 0..KEYS {
        let Ok(Claim::New(ticket)) = store.claim(operation(key)).wait() else { panic!("{key}") };
        ticket.complete(reply(key)).wait().expect("nothing fails");
    }
    while store.stats().sealed_generations < 2 {
        std::thread::yield_now();
    }
    store.close().wait().expect("nothing fails");
    Sound { clock, files: disk.files() }
});

fn options(clock: &ManualClock) -> Options {
    Options::new()
        .clock(clock)
        .durability(Durability::Strict)
        .generation_bytes(4 << 10)
        .cache_bytes(0)
}

fn operation(key: usize) -> Operation {
    Operation::new("acme", key.to_string())
}

fn reply(key: usize) -> Vec<u8> {
    vec![key as u8; 20 * key]
}

fn name(file: u8) -> &'static str {
    let number = usize::from(file) % SOUND.files.len();
    SOUND.files.keys().nth(number).map_or("", String::as_str)
}

fn change(files: &mut BTreeMap<String, Vec<u8>>, change: &Change) -> Option<()> {
    let page = |number: u16, bytes: &[u8]| usize::from(number) % (bytes.len() / PAGE).max(1) * PAGE;
    match *change {
        Change::Xor { file, at, with } => {
            let bytes = files.get_mut(name(file))?;
            let at = at as usize % bytes.len().max(1);
            *bytes.get_mut(at)? ^= with;
        }
        Change::Put { file, at, bytes: new } => {
            let bytes = files.get_mut(name(file))?;
            let at = at as usize % bytes.len().max(1);
            bytes.get_mut(at..at + 4)?.copy_from_slice(&new);
        }
        Change::Zero { file, page: number } => {
            let bytes = files.get_mut(name(file))?;
            let at = page(number, bytes);
            bytes.get_mut(at..at + PAGE)?.fill(0);
        }
        Change::Copy { file, page: number, from_file, from } => {
            let source = files.get(name(from_file))?;
            let at = page(from, source);
            let copy = source.get(at..at + PAGE)?.to_vec();
            let bytes = files.get_mut(name(file))?;
            let at = page(number, bytes);
            bytes.get_mut(at..at + PAGE)?.copy_from_slice(&copy);
        }
        Change::Cut { file, to } => {
            let bytes = files.get_mut(name(file))?;
            bytes.truncate(to as usize % bytes.len().max(1));
        }
        Change::Remove { file } => drop(files.remove(name(file))?),
    }
    Some(())
}

fn is_of_damage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Corrupt
            | ErrorKind::Io
            | ErrorKind::Incompatible { .. }
            | ErrorKind::Unknown
            | ErrorKind::Poisoned
    )
}

fuzz_target!(|changes: Vec<Change>| {
    let mut files = SOUND.files.clone();
    for of in changes.iter().take(4) {
        let _ = change(&mut files, of);
    }
    if !files.contains_key("store.redb") {
        return;
    }
    let store = match options(&SOUND.clock).open_in(Arc::new(Disk::with(&files))) {
        Ok(store) => store,
        Err(error) => {
            assert!(is_of_damage(error.kind()), "{error:?}");
            return;
        }
    };
    for key in 0..KEYS {
        match store.claim(operation(key)).wait() {
            Ok(Claim::Completed(found)) => assert_eq!(found.body(), reply(key), "{key}"),
            Ok(other) => panic!("{key} answers {other:?}"),
            Err(error) => assert!(is_of_damage(error.kind()), "{error:?}"),
        }
    }
    if let Ok(verified) = store.verify(Verify::new()) {
        assert!(verified.damages().iter().all(|damage| damage.kind() == ErrorKind::Corrupt));
    }
});
