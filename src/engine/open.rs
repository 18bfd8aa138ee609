//! Opening: lock, manifest, logs, clock, epoch, threads — in that order, and nothing before the
//! one before it.

use std::collections::BTreeMap;

use super::Engine;
use super::close::Closing;
use super::keeper::Keeper;
use crate::clock::{Source, StoreClock, Timers, instant};
use crate::commit::{BatchCell, Committer, Durability, Hooks, Limits, Reopened, Start};
use crate::error::{Error, ErrorKind};
use crate::generation::{Generation, Generations};
use crate::identity::SHARDS;
use crate::observe::{Event, Observer, Opened, Span};
use crate::operation::Defaults;
use crate::storage::{Contents, Directory, Listed, LogFile, Marks, Opening, Place, Storage};
use crate::sync::{self, Arc, Mutex};
use crate::table::{IndexLimits, Shards, Table, replay};

/// Sequence numbers passed over after a crash: more than can have been handed out and lost with
/// what was not on disk yet.
const SEQUENCES_A_CRASH_MAY_LOSE: u64 = 1 << 32;

/// Milliseconds, sequences and numbers of files that no store gets to: what has them is damaged,
/// and counting on from there would begin anew at zero, with fences that were used before.
const OUT_OF_REACH: u64 = 1 << 62;
const GENERATIONS_OUT_OF_REACH: u32 = 1 << 31;

/// Everything that can be chosen, checked.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) defaults: Defaults,
    pub(crate) durability: Durability,
    pub(crate) owners_survive_restart: bool,
    pub(crate) max_reply_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) limits: Limits,
    pub(crate) index: IndexLimits,
    pub(crate) clock: Source,
    /// Whether sealed files are compared with their hashes.
    pub(crate) verify: bool,
    pub(crate) observer: Observer,
}

pub(crate) fn open(directory: Arc<dyn Directory>, options: Options) -> Result<Arc<Engine>, Error> {
    let began = instant();
    let _span = options.observer.span(Span::Open);
    let (storage, contents) = Storage::open(directory, options.cache_bytes)?;
    let shards = Shards::new(options.index);
    let generations = Arc::new(Generations::default());
    if options.verify {
        verify_sealed(&storage.place, &contents)?;
    }
    let found = open_generations(&storage, &contents, &shards, &generations)?;
    let logs: Vec<_> = found.iter().map(|found| Arc::clone(&found.generation)).collect();
    let replayed = replay(&shards, &generations, &logs)?;

    let all = generations.all();
    let reached = reached(&storage.place, &contents, &all)?;
    let clock = Arc::new(StoreClock::start(options.clock, reached.clock));
    let epoch = contents.epoch.checked_add(1).ok_or_else(|| {
        Error::new(
            ErrorKind::Incompatible { found: u32::MAX, supported: u32::MAX },
            "epochs ran out",
        )
    })?;
    let lost = if contents.clean { 0 } else { SEQUENCES_A_CRASH_MAY_LOSE };
    let next_sequence = reached.sequence + lost;
    let marks = Marks { clock: clock.now_millis(), sequence: next_sequence };
    storage.manifest.begin_epoch(epoch, marks)?;

    let storage = Arc::new(storage);
    let (lanes, spares) = sort_out(found, &replayed.bytes, clock.now_millis());
    let start = Start {
        next_generation: contents.first_free_generation(),
        next_sequence,
        lanes,
        spares,
        limits: options.limits,
        durability: options.durability,
    };
    let committer = Committer::new(
        start,
        Arc::clone(&storage),
        Arc::clone(&generations),
        Arc::clone(&clock),
        options.observer,
    );
    let table = Arc::new(Table::new(shards, Arc::clone(&committer)));
    table.displace_older(&logs, &replayed, &generations)?;
    let keeper = Arc::new(Keeper::default());
    committer.hook(Hooks {
        stopped: {
            // Weak: the table has the committer.
            let table = Arc::downgrade(&table);
            Box::new(move || {
                if let Some(table) = table.upgrade() {
                    table.wake_everyone();
                }
            })
        },
        begun: Arc::clone(&keeper).into(),
    });
    let (timers, timer_thread) = Timers::start(&clock).map_err(no_thread)?;
    let engine = Arc::new(Engine {
        store: contents.id,
        secret: contents.secret,
        epoch,
        owners_survive_restart: options.owners_survive_restart,
        defaults: options.defaults,
        max_reply_bytes: options.max_reply_bytes,
        clock,
        timers,
        storage,
        generations,
        committer,
        table,
        keeper,
        closing: Mutex::new(Closing {
            own_threads: vec![timer_thread.thread().id()],
            helpers: vec![timer_thread],
            guest: None,
        }),
        closed: Arc::new(BatchCell::default()),
    });
    engine.start_threads().inspect_err(|_| engine.finish_close())?;
    engine.committer.observer.tell(Event::Opened(Opened {
        epoch,
        clean: contents.clean,
        generations: all.len(),
        replayed_records: logs.iter().map(|of| u64::from(of.durable_rows())).sum(),
        unanswered: all.iter().map(|of| of.unanswered_count()).sum(),
        skew: engine.clock.skew(),
        took: began.elapsed(),
    }));
    Ok(engine)
}

/// The last time that the manifest or any record shows, and a sequence that none has reached.
fn reached(place: &Place, contents: &Contents, all: &[Arc<Generation>]) -> Result<Marks, Error> {
    if all.iter().any(|of| of.last_epoch() > contents.epoch) {
        return Err(place.corrupt_manifest("lacks the run that wrote the last records"));
    }
    let last_change = all.iter().map(|of| of.last_change()).max().unwrap_or(0);
    let last_sequence = all.iter().map(|of| of.last_sequence()).max().unwrap_or(0);
    let Marks { clock, sequence } = contents.marks;
    let reached = Marks {
        clock: clock.max(last_change),
        sequence: sequence.max(last_sequence.saturating_add(1)).max(1),
    };
    if reached.clock.max(reached.sequence) >= OUT_OF_REACH
        || contents.first_free_generation() >= GENERATIONS_OUT_OF_REACH
    {
        let why = "has, or lists a record with, a time or a number that no store gets to";
        return Err(place.corrupt_manifest(why));
    }
    Ok(reached)
}

impl Engine {
    fn start_threads(self: &Arc<Self>) -> Result<(), Error> {
        let engine = Arc::clone(self);
        let keeper = sync::spawn("justonce-keeper", move || engine.keep_house());
        let keeper = keeper.map_err(no_thread)?;
        {
            let mut closing = self.closing.lock();
            closing.own_threads.push(keeper.thread().id());
            closing.helpers.push(keeper);
        }
        let engine = Arc::clone(self);
        let background = sync::spawn("justonce-commit", move || {
            engine.committer.run_background();
            engine.finish_close();
        });
        let background = background.map_err(no_thread)?;
        self.closing.lock().own_threads.push(background.thread().id());
        Ok(())
    }
}

/// An unsealed generation that was listed, and the lane it serves if it has rows.
struct FoundGeneration {
    generation: Arc<Generation>,
    opening: Option<Opening>,
}

/// Opens all files: the sealed ones are found by their summaries from then on, the others are
/// returned, to be replayed.
fn open_generations(
    storage: &Storage,
    contents: &Contents,
    shards: &Shards,
    generations: &Generations,
) -> Result<Vec<FoundGeneration>, Error> {
    let place = &storage.place;
    let (sealed, unsealed): (Vec<_>, Vec<_>) =
        contents.generations.iter().partition(|listed| listed.seal.is_some());
    let share = sealed.len().div_ceil(sync::parallelism()).max(1);
    let reopened = sync::at_once(sealed.chunks(share).collect(), |some| {
        some.iter().try_for_each(|listed| reopen_sealed(place, listed, shards, generations))
    });
    reopened.into_iter().collect::<Result<(), Error>>()?;
    let open = |listed: &Listed| {
        let (file, opening) = LogFile::open(place, listed.id)?;
        let generation = Arc::new(Generation::over(listed.id, file)?);
        if let Some(rows) = listed.rows.filter(|_| !cfg!(planted = "rows-not-counted")) {
            generation.check_rows(rows)?;
        }
        generations.insert(Arc::clone(&generation));
        Ok(FoundGeneration { generation, opening })
    };
    unsealed.into_iter().map(open).collect()
}

/// Compares the sealed files with what they were when they were sealed.
fn verify_sealed(place: &Place, contents: &Contents) -> Result<(), Error> {
    let share = contents.generations.len().div_ceil(sync::parallelism()).max(1);
    let verified = sync::at_once(contents.generations.chunks(share).collect(), |some| {
        let sealed = some.iter().filter_map(|listed| Some((listed.id, listed.seal?)));
        sealed.into_iter().try_for_each(|(id, seal)| place.verify(id, &seal))
    });
    verified.into_iter().collect()
}

fn reopen_sealed(
    place: &Place,
    listed: &Listed,
    shards: &Shards,
    generations: &Generations,
) -> Result<(), Error> {
    let mut summaries = Vec::with_capacity(SHARDS);
    let generation = Generation::reopen(place, listed, |shard, summary| {
        summaries.push((shard, summary));
    })?;
    let generation = Arc::new(generation);
    for (shard, summary) in summaries {
        shards.seal(shard, &generation, summary);
    }
    generations.insert(generation);
    Ok(())
}

/// Which generation each lane goes on with, and which are spares. The others take no more records.
fn sort_out(
    found: Vec<FoundGeneration>,
    bytes: &[u64],
    now: u64,
) -> (Vec<Reopened>, Vec<Arc<Generation>>) {
    let mut lanes = BTreeMap::new();
    let mut spares = Vec::new();
    for (FoundGeneration { generation, opening }, &bytes) in found.into_iter().zip(bytes) {
        match opening {
            // Of two in a lane the later was begun because the earlier was full.
            Some(opening) => {
                let later = lanes.get(&opening.lane).is_none_or(|other: &Reopened| {
                    let begun = (other.opening.opened_at, other.generation.id);
                    begun < (opening.opened_at, generation.id)
                });
                if later {
                    lanes.insert(opening.lane, Reopened { opening, generation, bytes });
                }
            }
            None => spares.push(generation),
        }
    }
    let lanes = lanes.into_values().filter(|lane| !lane.opening.is_over(now)).collect();
    (lanes, spares)
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "the system starts no more threads: raise its limit")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Memory;

    /// The next sequence wrapped in a release build: fences that were used before came again.
    #[test]
    fn a_store_whose_numbers_are_at_their_end_is_not_counted_on_from_zero() {
        let ends = [(u64::MAX, 1), (1, u64::MAX), (OUT_OF_REACH, 1), (1, OUT_OF_REACH)];
        for (clock, sequence) in ends {
            is_corrupt(|storage| storage.manifest.begin_epoch(1, Marks { clock, sequence }));
        }
        for id in [u32::MAX, GENERATIONS_OUT_OF_REACH - 1] {
            is_corrupt(|storage| {
                let marks = Marks { clock: 1, sequence: 1 };
                storage.create_generation(id, marks).and_then(|file| file.close())
            });
        }
    }

    fn is_corrupt(damage: impl FnOnce(&Storage) -> Result<(), Error>) {
        let directory: Arc<dyn Directory> = Arc::new(Memory::default());
        let (storage, _) = Storage::open(Arc::clone(&directory), 1 << 20).unwrap();
        damage(&storage).unwrap();
        storage.unlock();
        drop(storage);
        let error = crate::options::Options::new().open_in(directory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
