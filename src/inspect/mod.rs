//! Looking into an open store from outside: questions at a socket in its directory.
//!
//! One process has a store open, and what it knows is partly in its memory. So whoever looks from
//! outside asks that process. A service opts in with one line:
//!
//! ```no_run
//! # use justonce::Store;
//! let store = Store::open("dedupe")?;
//! let _inspector = justonce::inspect::serve(&store)?;
//! # Ok::<(), justonce::Error>(())
//! ```
//!
//! and `justonce --store dedupe stats` answers beside it (the program of the feature `cli`), or
//! [`ask`].
//! [`answer`] answers the same questions of any store at hand.
//!
//! # What a service lets in
//!
//! Questions are read-only: nothing that is asked changes the store. The socket, `inspect.sock`, is
//! for the user that runs the service alone (mode 0600); whoever can ask can read all replies.
//! At most [`MAX_ASKERS`] are answered at once, on a thread each; none waits in the way of a
//! claim. What an answer reads, a look-up or a scan or a verification reads, at their cost. An
//! asker that takes nothing for 5 seconds, or goes away, is let go. Without a question there is one
//! thread, asleep.
//!
//! # The protocol
//!
//! A line of JSON each way, the question ([`Question`]) with the protocol's version, and as many
//! answers ([`Answer`]) as there are, of which the last is `end` or `error`:
//!
//! ```text
//! > {"version":1,"ask":"lookup","project":"acme","key":"k"}
//! < {"entry":{"request_id":"rr_…","state":"completed","attempt":1,…}}
//! < {"end":{"count":1}}
//! ```
//!
//! Times are milliseconds since the Unix epoch. Bytes are a string where they are UTF-8, and
//! otherwise `{"hex":"…"}`.

mod answer;
mod client;
mod protocol;
mod server;
mod socket;
mod views;

pub use answer::{Asker, answer};
pub use client::{Answers, ask};
pub use protocol::{Answer, MAX_BODY_BYTES, Octets, Question, Trouble, VERSION};
pub use server::{Inspector, MAX_ASKERS, serve};
pub use views::{
    ClaimsView, CommitsView, EntryView, GenerationStateView, GenerationView, ProgressView,
    ReplyView, StateView, StatsView, WhyView,
};
