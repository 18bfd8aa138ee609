//! What clients call: completions, the state of their requests, and the page for people.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use justonce::{Claim, Entry, EntryState, Error, ErrorKind, Operation, Reply, RequestId};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::shown;
use crate::work::{Gateway, Outcome};

/// How often the page gets news.
const NEWS_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Api {
    gateway: Gateway,
    stopped: watch::Receiver<bool>,
}

pub(crate) fn router(gateway: Gateway, stopped: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/requests/{id}", get(request))
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/events", get(events))
        .with_state(Api { gateway, stopped })
}

/// An answer in the form that OpenAI's clients read.
struct Refused(StatusCode, &'static str, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(status, code, message) = self;
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error = json!({"error": {"message": message, "type": kind, "code": code}});
        (status, Json(error)).into_response()
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused(status, "store", error.to_string())
    }
}

fn bad(code: &'static str, message: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, code, message.to_owned())
}

/// Whose a request is: a hash of its bearer key, which itself goes no further.
fn project(headers: &HeaderMap) -> Result<String, Refused> {
    const CONTEXT: &str = "justonce gateway 2026 project of a bearer key";
    let value = headers.get("authorization").and_then(|value| value.to_str().ok());
    let bearer = value.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let Some(bearer) = bearer.filter(|bearer| !bearer.is_empty()) else {
        let message = "Give your key as `Authorization: Bearer …`.".to_owned();
        return Err(Refused(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    };
    let hash = blake3::derive_key(CONTEXT, bearer.as_bytes());
    Ok(blake3::Hash::from_bytes(hash).to_hex().chars().take(32).collect())
}

async fn complete(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let gateway = &api.gateway;
    let project = project(&headers)?;
    let mut body: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|error| bad("invalid_json", &error.to_string()))?;
    if body.get("stream").is_some_and(|stream| stream != &Value::Bool(false)) {
        return Err(bad("stream", "This gateway does not stream: leave `stream` out."));
    }
    let key = key(&headers, body.remove("idempotency_key"))?;
    let wait = wait(body.remove("wait"), gateway.longest_wait())?;
    let body = Value::Object(body).to_string();
    let operation = Operation::new(&project, key).fingerprint(&body);
    let deadline = Instant::now() + wait;
    let mut is_duplicate = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let claim = gateway.store().claim_or_wait(operation.clone(), left);
        let claim = claim.await?;
        let id = claim.request_id();
        let is_first = matches!(claim, Claim::New(_) | Claim::Resumed(..));
        if is_duplicate.is_none() {
            is_duplicate = Some(!is_first);
            gateway.shown().asked(id, &project, !is_first);
        }
        match claim {
            Claim::New(ticket) => gateway.start(ticket, None, body.clone()),
            Claim::Resumed(ticket, prior) => gateway.start(ticket, Some(&prior), body.clone()),
            Claim::Completed(reply) | Claim::Failed(reply) => {
                return Ok(settled(id, &reply, is_duplicate == Some(true)));
            }
            Claim::Mismatch(_) => {
                let message = format!("{id} has this idempotency key with another body.");
                return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message));
            }
            _ => return Ok(unsettled(id)),
        }
    }
}

/// The key a client chose: in the body, in the header, or none, and then it is one of its own.
fn key(headers: &HeaderMap, in_body: Option<Value>) -> Result<String, Refused> {
    let in_header = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            let value =
                value.to_str().map_err(|_| bad("idempotency_key", "The key is no text."))?;
            Some(value.trim().trim_matches('"').to_owned())
        }
    };
    match (in_body, in_header) {
        (None | Some(Value::Null), None) => Ok(format!("once {:032x}", shown::unique())),
        (None | Some(Value::Null), Some(key)) => Ok(format!("key {key}")),
        (Some(Value::String(key)), header) if header.as_ref().is_none_or(|it| *it == key) => {
            Ok(format!("key {key}"))
        }
        (Some(Value::String(_)), _) => {
            Err(bad("idempotency_key", "The header and the body have different keys."))
        }
        (Some(_), _) => Err(bad("idempotency_key", "`idempotency_key` must be a string.")),
    }
}

/// How long the client waits: `true` or nothing for as long as may be, `false`, or seconds.
fn wait(given: Option<Value>, longest: Duration) -> Result<Duration, Refused> {
    match given {
        None | Some(Value::Null | Value::Bool(true)) => Ok(longest),
        Some(Value::Bool(false)) => Ok(Duration::ZERO),
        Some(value) => match value.as_f64().map(Duration::try_from_secs_f64) {
            Some(Ok(time)) => Ok(time.min(longest)),
            _ => Err(bad("wait", "`wait` must be true, false or a number of seconds.")),
        },
    }
}

fn settled(id: RequestId, reply: &Reply, is_replayed: bool) -> Response {
    let outcome = Outcome::of(reply);
    let Some((outcome, status)) =
        outcome.and_then(|it| StatusCode::from_u16(it.status).ok().map(|status| (it, status)))
    else {
        let message = format!("{id} was not settled by this gateway.");
        return Refused(StatusCode::INTERNAL_SERVER_ERROR, "foreign", message).into_response();
    };
    let mut response = (status, outcome.body).into_response();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if !status.is_success() {
        // Final, as far as the store remembers: OpenAI's SDKs then do not try again.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    if is_replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    with_id(id, response)
}

fn unsettled(id: RequestId) -> Response {
    let body = json!({
        "id": id.to_string(),
        "object": "chat.completion.async",
        "status": "in_progress",
        "url": format!("/v1/requests/{id}"),
    });
    with_id(id, Json(body).into_response())
}

fn with_id(id: RequestId, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

async fn request(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let project = project(&headers)?;
    let store = api.gateway.store();
    let entry = match id.parse::<RequestId>() {
        Ok(id) => store.lookup_request(id).await?,
        Err(_) => None,
    };
    // Another project's request is as good as none.
    let Some(entry) = entry.filter(|entry| entry.is_of(store, &project)) else {
        return Err(Refused(StatusCode::NOT_FOUND, "not_found", "No such request.".to_owned()));
    };
    Ok(Json(described(&entry)))
}

fn described(entry: &Entry) -> Value {
    let outcome = entry.reply().and_then(Outcome::of);
    let (calls, result) = match &outcome {
        Some(outcome) => (Some(outcome.calls), serde_json::from_slice(&outcome.body).ok()),
        None => (None, None::<Value>),
    };
    json!({
        "id": entry.request_id().to_string(),
        "object": "request",
        "status": shown::state_name(entry.state()),
        "attempts": entry.attempt(),
        "upstream_calls": calls,
        "created": shown::unix_seconds(entry.claimed_at()),
        "changed": shown::unix_seconds(entry.changed_at()),
        "http_status": outcome.as_ref().map(|outcome| outcome.status),
        "result": result,
        "is_final": matches!(entry.state(), EntryState::Completed | EntryState::Failed),
    })
}

/// News for the page, until the gateway stops.
async fn events(State(api): State<Api>) -> impl IntoResponse {
    let state = (api.gateway, api.stopped, Duration::ZERO);
    Sse::new(futures_lite::stream::unfold(state, async |(gateway, mut stopped, pause)| {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return None,
            () = tokio::time::sleep(pause) => {}
        }
        let counted = gateway.clone();
        // A scan reads the disk.
        let news = tokio::task::spawn_blocking(move || counted.shown().news(counted.store()));
        let event = Event::default().json_data(news.await.ok()?);
        Some((event, (gateway, stopped, NEWS_EVERY)))
    }))
}
