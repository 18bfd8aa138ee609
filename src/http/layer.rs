//! The layer, and all that can be set of it.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, Method, StatusCode};
use tower_layer::Layer;

use super::IDEMPOTENCY_KEY;
use super::problem::Problem;
use super::runtime::{Runtime, Tokio};
use super::service::IdempotencyService;
use crate::error::Error;
use crate::operation::Operation;
use crate::record::transition::OnLapsed;
use crate::store::Store;

/// Longest body of a request that is read, unless another limit is set: 2 MiB.
const MAX_BODY_BYTES: usize = 2 << 20;

/// Longest body of an answer that is stored, unless another limit is set: 8 MiB.
const MAX_REPLY_BYTES: usize = 8 << 20;

/// Does each request with an idempotency key once. See the [module](super) for what it answers.
///
/// | setting | default |
/// |---|---|
/// | [`guards`](IdempotencyLayer::guards) | `POST` and `PATCH` |
/// | [`header`](IdempotencyLayer::header) | `Idempotency-Key` |
/// | [`key_from`](IdempotencyLayer::key_from) | the header alone |
/// | [`required`](IdempotencyLayer::required) | no: without a key, a request is passed on |
/// | [`max_body_bytes`](IdempotencyLayer::max_body_bytes) | 2 MiB |
/// | [`max_reply_bytes`](IdempotencyLayer::max_reply_bytes) | 8 MiB |
/// | [`stores`](IdempotencyLayer::stores) | 200 to 499 but 408, 409, 425, 429 |
/// | [`wait`](IdempotencyLayer::wait) | no: 409 at once |
/// | [`retry_after`](IdempotencyLayer::retry_after) | 1 s |
/// | [`lease`](IdempotencyLayer::lease) | 10 min, renewed each third of it |
/// | [`window`](IdempotencyLayer::window) | the store's |
/// | [`on_lapsed`](IdempotencyLayer::on_lapsed) | take over |
/// | [`cancel_on_disconnect`](IdempotencyLayer::cancel_on_disconnect) | no |
/// | [`runtime`](IdempotencyLayer::runtime) | [`Tokio`] |
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct IdempotencyLayer {
    settings: Arc<Settings>,
}

type ProjectOf = Arc<dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync>;
type Guards = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
type KeyOf = Arc<dyn Fn(&Parts, &[u8]) -> Option<Vec<u8>> + Send + Sync>;
type Stores = Arc<dyn Fn(StatusCode) -> bool + Send + Sync>;

/// What a layer and its services share.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) store: Store,
    pub(super) project: ProjectOf,
    pub(super) guards: Guards,
    pub(super) header: HeaderName,
    pub(super) key_from: Option<KeyOf>,
    pub(super) required: bool,
    pub(super) max_body_bytes: usize,
    pub(super) max_reply_bytes: usize,
    pub(super) stores: Stores,
    pub(super) wait: Option<Duration>,
    pub(super) retry_after: Duration,
    pub(super) lease: Duration,
    pub(super) window: Option<Duration>,
    pub(super) on_lapsed: OnLapsed,
    pub(super) cancels: bool,
    pub(super) runtime: Arc<dyn Runtime>,
}

impl IdempotencyLayer {
    /// A layer over a store. The closure says whose a request is: an account, a tenant, the caller
    /// by its credentials; 1 to 1,024 bytes. There is no default, since two callers who choose the
    /// same key must not see each other's answers. Where it is `None`, the answer is 400: put
    /// authentication outside of this layer.
    pub fn new<P, N>(store: Store, project: P) -> Self
    where
        P: Fn(&Parts) -> Option<N> + Send + Sync + 'static,
        N: Into<Vec<u8>>,
    {
        IdempotencyLayer {
            settings: Arc::new(Settings {
                store,
                project: Arc::new(move |parts| project(parts).map(Into::into)),
                guards: Arc::new(|parts| matches!(parts.method, Method::POST | Method::PATCH)),
                header: HeaderName::from_static(IDEMPOTENCY_KEY),
                key_from: None,
                required: false,
                max_body_bytes: MAX_BODY_BYTES,
                max_reply_bytes: MAX_REPLY_BYTES,
                stores: Arc::new(stores_by_default),
                wait: None,
                retry_after: Duration::from_secs(1),
                lease: Duration::from_mins(10),
                window: None,
                on_lapsed: OnLapsed::default(),
                cancels: false,
                runtime: Arc::new(Tokio::default()),
            }),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// Which requests are guarded; the others are passed on untouched.
    pub fn guards(self, guards: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.guards = Arc::new(guards))
    }

    /// The header that carries the key.
    pub fn header(self, name: HeaderName) -> Self {
        self.set(|settings| settings.header = name)
    }

    /// Takes the key from the request where it has no such header. The closure gets the whole
    /// body, so each guarded request is read before it is passed on.
    ///
    /// ```
    /// use justonce::Options;
    /// use justonce::http::IdempotencyLayer;
    ///
    /// let store = Options::new().in_memory()?;
    /// let layer = IdempotencyLayer::new(store, |_| Some("acme")).key_from(|_, body| {
    ///     let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    ///     Some(body.get("event_id")?.as_str()?.to_owned())
    /// });
    /// # Ok::<(), justonce::Error>(())
    /// ```
    pub fn key_from<F, K>(self, key: F) -> Self
    where
        F: Fn(&Parts, &[u8]) -> Option<K> + Send + Sync + 'static,
        K: Into<Vec<u8>>,
    {
        let key: KeyOf = Arc::new(move |parts, body| key(parts, body).map(Into::into));
        self.set(|settings| settings.key_from = Some(key))
    }

    /// Whether a guarded request without a key is refused with 400.
    pub fn required(self, required: bool) -> Self {
        self.set(|settings| settings.required = required)
    }

    /// Longest body of a request, in bytes; a longer one is refused with 413. Bodies of requests
    /// with a key are held in memory while their work goes on.
    pub fn max_body_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_body_bytes = bytes)
    }

    /// Longest body of an answer that is stored, in bytes. A longer one is passed on, and it is
    /// stored that there was one: later requests with the key get 409 `reply_not_kept`, since
    /// the work was done. The store's own limit
    /// ([`Options::max_reply_bytes`](crate::Options::max_reply_bytes)) holds besides, and counts
    /// the headers too.
    pub fn max_reply_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_reply_bytes = bytes)
    }

    /// Which answers are stored, by status; the others release the key, so that the next request
    /// with it calls the service again.
    pub fn stores(self, stores: impl Fn(StatusCode) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.stores = Arc::new(stores))
    }

    /// Has a request with a key in flight wait for its answer, at most this long; then 409. Costs
    /// no thread. At most 1,048,576 wait in a store; more are answered 503.
    pub fn wait(self, at_most: Duration) -> Self {
        self.set(|settings| settings.wait = Some(at_most))
    }

    /// What `Retry-After` says where a key is in flight, in whole seconds, rounded up; less where
    /// the rest of the lease is less.
    pub fn retry_after(self, time: Duration) -> Self {
        self.set(|settings| settings.retry_after = time)
    }

    /// How long an owner is trusted without a sign of life; as [`Operation::lease`]. It is renewed
    /// each third of it while the work goes on, so it only bounds how long a process that hangs
    /// holds its keys: one that dies or drops its work loses them at once.
    pub fn lease(self, lease: Duration) -> Self {
        self.set(|settings| settings.lease = lease)
    }

    /// How long an answer is remembered; as [`Operation::window`].
    pub fn window(self, window: Duration) -> Self {
        self.set(|settings| settings.window = Some(window))
    }

    /// What to do where the owner of a key is gone, and may have done its work: take over, which
    /// calls the service again, or report, which answers 409 `interrupted` until the window is
    /// over or the key is forgotten. A key that was released is taken over in any case.
    pub fn on_lapsed(self, on_lapsed: OnLapsed) -> Self {
        self.set(|settings| settings.on_lapsed = on_lapsed)
    }

    /// Whether work whose client goes away is dropped. Its key lapses then, and is taken over by
    /// the next request with it.
    pub fn cancel_on_disconnect(self, cancel: bool) -> Self {
        self.set(|settings| settings.cancels = cancel)
    }

    /// The async runtime that work goes on in.
    pub fn runtime(self, runtime: impl Runtime) -> Self {
        self.set(|settings| settings.runtime = Arc::new(runtime))
    }
}

fn stores_by_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=499) && !matches!(status.as_u16(), 408 | 409 | 425 | 429)
}

impl Settings {
    /// The operation of a request.
    pub(super) fn operation(&self, project: &[u8], key: &[u8], fingerprint: &[u8]) -> Operation {
        let operation = Operation::new(project, key)
            .fingerprint(fingerprint)
            .lease(self.lease)
            .on_lapsed(self.on_lapsed);
        match self.window {
            Some(window) => operation.window(window),
            None => operation,
        }
    }

    /// What a client is told of an error of the store.
    pub(super) fn problem(&self, error: &Error) -> Problem {
        Problem::of_error(error, self.retry_after)
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, service: S) -> IdempotencyService<S> {
        IdempotencyService::new(service, Arc::clone(&self.settings))
    }
}

impl std::fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("header", &self.settings.header)
            .field("required", &self.settings.required)
            .field("wait", &self.settings.wait)
            .field("lease", &self.settings.lease)
            .finish_non_exhaustive()
    }
}
