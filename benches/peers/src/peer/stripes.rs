//! Locks by key, for stores that cannot insert what is not there in one step.

use parking_lot::{Mutex, MutexGuard};

use super::Id;

const STRIPES: usize = 256;

pub(super) struct Stripes(Box<[Mutex<()>]>);

impl Stripes {
    pub(super) fn new() -> Self {
        Stripes((0..STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Nobody else claims or completes an operation of this stripe meanwhile.
    pub(super) fn of(&self, id: &Id) -> MutexGuard<'_, ()> {
        self.0[usize::from(id[0])].lock()
    }
}
