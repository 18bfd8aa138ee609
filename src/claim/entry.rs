//! What the store remembers of an operation, for those who look and do not claim.

use std::time::SystemTime;

use super::{Prior, Reply};
use crate::clock::system_time;
use crate::identity::RequestId;
use crate::operation::Operation;
use crate::record::transition::{LapseCause, Standing};
use crate::record::{Record, State};
use crate::store::Store;

/// Most entries that [`Store::history`] gives.
pub const MAX_HISTORY_ENTRIES: usize = 1000;

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryState {
    /// It has a live owner.
    InFlight,
    /// It had one; whoever claims it next takes it over.
    Lapsed,
    /// Its owner gave it back; whoever claims it next takes it over.
    Released,
    /// Its reply is stored.
    Completed,
    /// Its error reply is stored.
    Failed,
}

impl EntryState {
    pub(crate) fn of(standing: Standing) -> Option<Self> {
        match standing {
            Standing::Absent => None,
            Standing::InFlight { .. } => Some(EntryState::InFlight),
            Standing::Lapsed(_) => Some(EntryState::Lapsed),
            Standing::Released => Some(EntryState::Released),
            Standing::Completed => Some(EntryState::Completed),
            Standing::Failed => Some(EntryState::Failed),
        }
    }
}

/// One operation as it is remembered, at the moment it was looked at.
#[derive(Debug, Clone)]
pub struct Entry {
    record: Record,
    state: EntryState,
    lapse: Option<LapseCause>,
    reply: Option<Reply>,
}

impl Entry {
    pub(crate) fn new(record: Record, standing: Standing) -> Option<Self> {
        let state = EntryState::of(standing)?;
        let lapse = match standing {
            Standing::Lapsed(cause) => Some(cause),
            _ => None,
        };
        let reply = Reply::of(&record);
        Some(Entry { record, state, lapse, reply })
    }

    /// What has become of it.
    #[must_use]
    pub fn state(&self) -> EntryState {
        self.state
    }

    /// The id of the request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.record.request_id()
    }

    /// The number of the latest attempt; 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.record.attempt
    }

    /// The fence of the latest owner.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.record.fence
    }

    /// The stored reply of a completed or failed operation.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }

    /// Why it has no owner: of a lapsed or released operation.
    #[must_use]
    pub fn prior(&self) -> Option<Prior> {
        match self.state {
            EntryState::Lapsed | EntryState::Released => Some(Prior::new(&self.record, self.lapse)),
            _ => None,
        }
    }

    /// Whether an attempt said that its work may have been sent.
    #[must_use]
    pub fn dispatched(&self) -> bool {
        self.record.dispatched
    }

    /// The last note an attempt left.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.record.checkpoint.as_deref()
    }

    /// The label it was claimed with.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.record.label.as_deref()
    }

    /// Its project, where the store keeps them ([`Options::keep_keys`](crate::Options::keep_keys)).
    #[must_use]
    pub fn project(&self) -> Option<&[u8]> {
        self.record.names.as_ref().map(|names| &*names.project)
    }

    /// Its key, where the store keeps them ([`Options::keep_keys`](crate::Options::keep_keys)).
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.record.names.as_ref().map(|names| &*names.key)
    }

    /// When it was first claimed.
    #[must_use]
    pub fn claimed_at(&self) -> SystemTime {
        system_time(self.record.claimed_at)
    }

    /// When it last changed.
    #[must_use]
    pub fn changed_at(&self) -> SystemTime {
        system_time(self.record.changed_at)
    }

    /// When the lease of its latest owner is over; of an operation in flight or lapsed.
    #[must_use]
    pub fn lease_until(&self) -> Option<SystemTime> {
        match self.record.state {
            State::InFlight { lease_until } => Some(system_time(lease_until)),
            _ => None,
        }
    }

    /// When it is forgotten, if nothing changes before.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        system_time(self.record.expires_at())
    }

    /// Whether it belongs to a project of the store it came from: to be asked before what a request
    /// id led to is shown to a tenant.
    #[must_use]
    pub fn is_of(&self, store: &Store, project: impl AsRef<[u8]>) -> bool {
        store.project_id(project.as_ref()) == self.record.project
    }

    /// The operation, to be claimed: for interrupted work whose key is not at hand any more.
    pub fn operation(&self) -> Operation {
        Operation::known(self.record.operation, self.record.project)
    }
}
