//! What a power cut may leave of a disk: rebuilt from the journal of its changes.
//!
//! What was synced is there. Of each file's changes since its last sync any part may be, in any
//! order, cut at sectors; a length is kept or not like a write, and a write that is kept behind the
//! end of the file is not seen. Each name leads where it led when the names were last made durable,
//! or at any moment since.

use std::collections::BTreeSet;

use super::journal::{Change, Content, Image, Names, rename};
use super::random::Random;

const SECTOR: usize = 512;

/// What becomes of changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Kept,
    /// Each is kept or lost, by chance.
    Some,
    /// Those up to some point are lost, all after it are kept.
    Late,
    /// Each is kept, lost, or kept in some of its sectors.
    Torn,
    /// Each file has a fate of its own.
    Mixed,
}

impl Fate {
    pub const ALL: [Fate; 6] =
        [Fate::Lost, Fate::Kept, Fate::Some, Fate::Late, Fate::Torn, Fate::Mixed];
}

/// A disk as it was after some of the changes of a journal.
#[derive(Debug)]
pub struct Replay<'l> {
    log: &'l [Change],
    at: usize,
    /// Each file as it was last synced.
    synced: Vec<Content>,
    /// The changes of each file since.
    unsynced: Vec<Vec<&'l Change>>,
    /// The names as they were last synced, and after each change of them since.
    names: Vec<Names>,
}

impl<'l> Replay<'l> {
    /// Of a journal that began on `image`.
    pub fn of(image: &Image, log: &'l [Change]) -> Self {
        Replay {
            log,
            at: 0,
            synced: image.values().cloned().collect(),
            unsynced: vec![Vec::new(); image.len()],
            names: vec![image.keys().cloned().zip(0..).collect()],
        }
    }

    /// Goes on until so many changes were made, no fewer than before.
    pub fn advance_to(&mut self, position: usize) {
        assert!(position >= self.at, "a replay does not go back");
        for change in &self.log[self.at..position] {
            self.make(change);
        }
        self.at = position;
    }

    fn make(&mut self, change: &'l Change) {
        match change {
            Change::Write { file, .. } | Change::SetLen { file, .. } => {
                self.unsynced[*file].push(change);
            }
            Change::Sync { file } => {
                for change in self.unsynced[*file].drain(..) {
                    apply(&mut self.synced[*file], change);
                }
            }
            Change::SyncNames => drop(self.names.drain(..self.names.len() - 1)),
            Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. } => {
                if let Change::Create { .. } = change {
                    self.synced.push(Content::default());
                    self.unsynced.push(Vec::new());
                }
                let mut names = self.names[self.names.len() - 1].clone();
                rename(&mut names, change, self.synced.len());
                self.names.push(names);
            }
        }
    }

    /// What a power cut leaves now.
    pub fn image(&self, fate: Fate, random: &mut Random) -> Image {
        let names = self.names_left(fate, random);
        let left = |(name, file)| (name, self.file_left(file, fate, random));
        names.into_iter().map(left).collect()
    }

    fn names_left(&self, fate: Fate, random: &mut Random) -> Names {
        let (synced, last) = (&self.names[0], &self.names[self.names.len() - 1]);
        let fate = match fate {
            Fate::Lost | Fate::Kept => fate,
            _ => random.pick(&[Fate::Lost, Fate::Kept, Fate::Some]),
        };
        match fate {
            Fate::Lost => synced.clone(),
            Fate::Kept => last.clone(),
            _ => {
                let all: BTreeSet<&String> = self.names.iter().flat_map(Names::keys).collect();
                let left = all.into_iter().filter_map(|name| {
                    let moment = &self.names[random.below(self.names.len())];
                    Some((name.clone(), *moment.get(name)?))
                });
                left.collect()
            }
        }
    }

    fn file_left(&self, file: usize, fate: Fate, random: &mut Random) -> Content {
        let mut content = self.synced[file].clone();
        let changes = &self.unsynced[file];
        let fate = match fate {
            Fate::Mixed => random.pick(&Fate::ALL[..Fate::ALL.len() - 1]),
            fate => fate,
        };
        let late = random.below(changes.len() + 1);
        for (number, change) in changes.iter().enumerate() {
            let is_kept = match fate {
                Fate::Lost => false,
                Fate::Kept => true,
                Fate::Late => number >= late,
                Fate::Some | Fate::Torn | Fate::Mixed => random.coin(),
            };
            match change {
                Change::Write { offset, data, .. } if fate == Fate::Torn && random.coin() => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if random.coin() {
                            content.write(offset + number * SECTOR, sector);
                        }
                    }
                }
                change if is_kept => apply(&mut content, change),
                _ => {}
            }
        }
        content
    }
}

fn apply(content: &mut Content, change: &Change) {
    match change {
        Change::Write { offset, data, .. } => content.write(*offset, data),
        Change::SetLen { len, .. } => content.set_len(*len),
        _ => {}
    }
}
