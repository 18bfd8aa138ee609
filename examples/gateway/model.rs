//! A model server to try the gateway with: slow and faulty as it is told, and it counts.
//!
//! It honours `Idempotency-Key` as a good upstream would: a key is generated for once, and whoever
//! asks again meanwhile waits for it. `GET /calls` shows, for each key, how often it was called and
//! how often it generated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::arguments::Arguments;

struct Model {
    latency: Duration,
    fail_every: u64,
    calls: AtomicU64,
    keys: Mutex<HashMap<String, Arc<Key>>>,
}

#[derive(Default)]
struct Key {
    calls: AtomicU64,
    generations: AtomicU64,
    completion: OnceCell<Value>,
}

pub(crate) fn router(arguments: &Arguments) -> Router {
    let model = Arc::new(Model {
        latency: arguments.latency,
        fail_every: arguments.fail_every,
        calls: AtomicU64::new(0),
        keys: Mutex::default(),
    });
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/calls", get(calls))
        .with_state(model)
}

async fn complete(
    State(model): State<Arc<Model>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let call = model.calls.fetch_add(1, Ordering::SeqCst) + 1;
    let given = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let name = given.map_or_else(|| format!("call {call}"), |key| key.trim_matches('"').to_owned());
    let key = Arc::clone(model.keys.lock().entry(name).or_default());
    key.calls.fetch_add(1, Ordering::SeqCst);
    if model.fail_every > 0 && call.is_multiple_of(model.fail_every) {
        let error = json!({"error": {"message": "overloaded", "type": "server_error"}});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    }
    // A task of its own: a model goes on generating for a client that has hung up.
    let generating = tokio::spawn(async move {
        let generation = async {
            let number = key.generations.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(model.latency).await;
            completion(call, number, &request)
        };
        key.completion.get_or_init(|| generation).await.clone()
    });
    match generating.await {
        Ok(completion) => Json(completion).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn completion(call: u64, generation: u64, request: &Value) -> Value {
    let prompt = request["messages"].as_array().and_then(|messages| messages.last());
    let prompt = prompt.and_then(|message| message["content"].as_str()).unwrap_or_default();
    let words = prompt.split_whitespace().count();
    let content = format!("{generation}: you said {prompt:?}");
    json!({
        "id": format!("chatcmpl-{call}"),
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request["model"],
        "choices": [{
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content},
        }],
        "usage": {"prompt_tokens": words, "completion_tokens": 3, "total_tokens": words + 3},
    })
}

async fn calls(State(model): State<Arc<Model>>) -> Json<Value> {
    let keys = model.keys.lock();
    let counts = keys.iter().map(|(name, key)| {
        let (calls, generations) = (&key.calls, &key.generations);
        let counts = json!({
            "calls": calls.load(Ordering::SeqCst),
            "generations": generations.load(Ordering::SeqCst),
        });
        (name.clone(), counts)
    });
    Json(Value::Object(counts.collect()))
}
