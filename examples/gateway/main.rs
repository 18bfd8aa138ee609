//! An OpenAI-compatible gateway in front of a model server: each request is worked on once, however
//! often its client sends it.
//!
//! ```text
//! cargo run --release --example gateway
//!
//!   client ── POST /v1/chat/completions ──► api ── claim ──► the store on disk
//!          ◄── completion, or rr_… ───────   │ won
//!   client ── GET /v1/requests/rr_… ──────►  └─► work ── Idempotency-Key: rr_… ──► upstream
//!   browser ─ GET / and /events ──────────►  shown          (default: a model server of our own)
//! ```
//!
//! * The **project** is a hash of the bearer key. The key itself is stored nowhere and not sent on:
//!   upstream gets `UPSTREAM_API_KEY` of the environment, if there is one.
//! * The **key** of an operation is `idempotency_key` in the body, or the header `Idempotency-Key`.
//!   The Python SDK's own retries send neither (they carry `x-stainless-retry-count` alone), but
//!   repeat what the caller gave in `extra_body` or `extra_headers`. Without a key, each request is
//!   an operation of its own.
//! * `"wait": false`, or a number of seconds, has a request answered with a
//!   `chat.completion.async` object that carries its id, where its completion is not there by then.
//! * **An upstream error** that may pass (429, 5xx, no connection) is tried again by its owner.
//!   When its tries are used up, the operation has failed for a minute, so that a storm of
//!   duplicates is answered and not sent on; then it can be tried anew.
//! * **After a crash**, interrupted requests are resumed when the gateway starts, if their body was
//!   short enough to be kept in the record's note (4 KiB); others are resumed by the client's next
//!   try. Upstream gets the request id as its `Idempotency-Key` each time, so that one that honours
//!   it works once. For one that does not, `--at-most-once` fails what may have been sent.

mod api;
mod arguments;
mod model;
mod shown;
mod upstream;
mod work;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use arguments::Arguments;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long work under way may take to finish when the gateway is told to stop.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::main]
#[expect(clippy::print_stderr, reason = "where a program says what went wrong")]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "says where it listens")]
async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    let address = listener.local_addr()?;
    if arguments.model_server {
        println!("model server on http://{address}");
        return Ok(axum::serve(listener, model::router(&arguments)).await?);
    }
    let upstream = match &arguments.upstream {
        Some(upstream) => upstream.clone(),
        None => own_model_server(&arguments).await?,
    };
    let temporary = tempfile::tempdir()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().join("store"));
    let store = justonce::Options::new().open(&directory)?;
    let (stop, stopped) = watch::channel(false);
    let gateway = work::Gateway::new(store.clone(), &upstream, &arguments);
    let resumed = gateway.recover().await?;
    println!("gateway on http://{address}, upstream {upstream}, store in {}", directory.display());
    println!(
        "{} interrupted requests resumed, {} left to their clients, {} failed",
        resumed.resumed, resumed.left, resumed.failed
    );
    let router = api::router(gateway.clone(), stopped);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            told_to_stop().await;
            let _ = stop.send(true);
        })
        .await?;
    if tokio::time::timeout(GRACE, gateway.idle()).await.is_err() {
        println!("some requests are left for the next start");
    }
    store.close().await?;
    println!("stopped");
    Ok(())
}

/// A model server in this process, on a port of its own.
async fn own_model_server(arguments: &Arguments) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let upstream = format!("http://{}", listener.local_addr()?);
    let router = model::router(arguments);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(upstream)
}

async fn told_to_stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
