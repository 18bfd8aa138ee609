//! Feature `http`: a tower layer that does each request with an idempotency key once.
//!
//! It follows the IETF draft of the `Idempotency-Key` header. A client that sends the same key
//! again gets the stored answer, byte for byte, with `Idempotent-Replayed: true`; while the first
//! request is being worked on, it is told so, or waits.
//!
//! ```
//! use axum::Router;
//! use axum::routing::post;
//! use justonce::Options;
//! use justonce::http::IdempotencyLayer;
//!
//! let store = Options::new().in_memory()?;
//! // Whose key it is: two tenants may choose the same.
//! let layer = IdempotencyLayer::new(store, |request| {
//!     request.headers.get("authorization").map(|value| value.as_bytes().to_vec())
//! });
//! let service: Router = Router::new().route("/charges", post(async || "charged")).layer(layer);
//! # Ok::<(), justonce::Error>(())
//! ```
//!
//! # What a request is answered with
//!
//! | request | answer |
//! |---|---|
//! | not guarded, or without a key where none is required | the service's, untouched |
//! | a new key, or one whose owner is gone or gave it back | the service's; stored, if its status says so, before the client sees its end |
//! | a key whose answer is stored | that answer, with `Idempotent-Replayed: true` |
//! | a key whose answer could not be kept (too long) | 409; the service is not called again |
//! | a key that is being worked on | 409 with `Retry-After`, or what the wait brings |
//! | a key with another method, path, query or body | 422 |
//! | no key where one is required, a malformed key, no project | 400 |
//! | a body over the limit | 413 |
//! | the store refuses or fails | 503; the service is not called. If it was, its answer is not shown |
//!
//! The layer's own answers are `application/problem+json` (RFC 9457), with a member `code` for
//! programs ([`Code`]) and, where there is a request, its `request_id`.
//!
//! # At the worst moment
//!
//! * **The client goes away**: once the key is won, the work goes on as a task of the [`Runtime`],
//!   and its answer is stored. [`IdempotencyLayer::cancel_on_disconnect`] drops it instead;
//!   the next request with the key then resumes.
//! * **The service panics**: the key is released, and the panic goes on its way.
//! * **The process dies**: the operation is lapsed, and the next request with the key calls the
//!   service again, which finds a [`Claimed`] with [`Claimed::prior`] among the extensions.
//!   [`IdempotencyLayer::on_lapsed`] has it refused in place of that.
//! * **The work takes longer than the lease**: the lease is renewed as long as the work goes on,
//!   each third of it. A service that may hang needs a time-out inside of this layer.
//!   It is not while a client leaves a streamed answer unread: that keeps its key for a lease.
//! * **A streamed answer** (of no known length) is passed on as it comes. Its end is held back
//!   until all of it is stored; where that fails, the body ends in an error.
//!
//! # Where it belongs
//!
//! Outside of what the answer should be made by once (the handler, its time-out), inside of what
//! is to happen on each request: authentication, rate limits, compression, logs.
//!
//! The service below gets a [`RequestBody`], and must be [`Clone`]. The bytes that are stored are
//! those of `docs/http.md`.

mod ask;
mod body;
mod future;
mod key;
mod layer;
mod owned;
mod problem;
mod recorded;
mod reply;
mod runtime;
mod service;
mod work;

pub use body::{BoxError, RequestBody, ResponseBody};
pub use future::ResponseFuture;
pub use layer::IdempotencyLayer;
pub use owned::Claimed;
pub use problem::Code;
pub use runtime::{Runtime, Task, Tokio};
pub use service::IdempotencyService;

/// The name of the header that marks a replayed answer.
pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// The name of the header that carries the key, unless another is given.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
