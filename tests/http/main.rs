//! The HTTP layer, by its behaviour: what a client and a service see of it.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod going_away;
mod keys;
mod leases;
mod problems;
mod replay;
mod stack;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use justonce::http::{IdempotencyLayer, RequestBody, ResponseBody};
use justonce::{Options, Store};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

type Given = Request<Full<Bytes>>;
type Seen = Request<RequestBody<Full<Bytes>>>;
type Answered = Response<ResponseBody<Body>>;
type Guarded = BoxCloneSyncService<Given, Answered, Infallible>;

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The member `code` of problem details, whose other members are as they should be.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem["code"].as_str().unwrap().to_owned()
    }
}

fn memory() -> Store {
    Options::new().in_memory().unwrap()
}

/// A layer whose project is the header `project`.
fn layer(store: &Store) -> IdempotencyLayer {
    IdempotencyLayer::new(store.clone(), |parts| {
        parts.headers.get("project").map(|value| value.as_bytes().to_vec())
    })
}

fn guarded<F, A>(layer: &IdempotencyLayer, handler: F) -> Guarded
where
    F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    BoxCloneSyncService::new(layer.layer(service))
}

/// A service that answers with how often it was called, and that number.
fn counting(layer: &IdempotencyLayer) -> (Guarded, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = guarded(layer, move |_| {
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Response::new(Body::from(format!("call {call}"))) }
    });
    (service, calls)
}

/// `POST /charges` of the project `acme`.
fn post(key: &str, body: &str) -> Given {
    let mut request = keyless(body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

fn keyless(body: &str) -> Given {
    Request::post("/charges?currency=eur")
        .header("project", "acme")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

async fn begin(service: &Guarded, request: Given) -> Answered {
    service.clone().oneshot(request).await.unwrap()
}

async fn send(service: &Guarded, request: Given) -> Answer {
    read(begin(service, request).await).await
}

async fn read(answered: Answered) -> Answer {
    let (parts, body) = answered.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
}
