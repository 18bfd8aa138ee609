//! The layer where it is used: below axum and hyper, on a socket, around services that are not
//! always ready.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::post as route;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tower::Service;

use super::*;

async fn serve(router: Router) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    TcpStream::connect(address).await.unwrap()
}

const REQUEST: &str = "POST /charges HTTP/1.1\r\nhost: test\r\nproject: acme\r\n\
    idempotency-key: \"k\"\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";

async fn exchange(mut socket: TcpStream) -> String {
    socket.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_axum_service_replays_over_a_socket() {
    let store = memory();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = async move |body: String| {
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        format!("call {call} with {body}")
    };
    let router = Router::new().route("/charges", route(handler)).layer(layer(&store));
    let first = exchange(serve(router.clone()).await).await;
    let second = exchange(serve(router).await).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    assert!(first.ends_with("\r\n\r\ncall 1 with hi"), "{first}");
    assert!(!first.contains("idempotent-replayed"), "{first}");
    assert!(second.ends_with("\r\n\r\ncall 1 with hi"), "{second}");
    assert!(second.contains("\r\nidempotent-replayed: true\r\n"), "{second}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_gets_its_answer_later() {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let finish = Arc::new(Notify::new());
    let finished = Arc::clone(&finish);
    let (left, mut leaving) = mpsc::unbounded_channel();
    let handler = async move || {
        entered.send(()).unwrap();
        finished.notified().await;
        "done"
    };
    let guarding = layer(&memory()).wait(Duration::from_mins(1));
    let router = Router::new().route("/charges", route(handler)).layer(guarding);
    let noticing =
        router.layer(tower::layer::layer_fn(move |inner| Noticing { inner, left: left.clone() }));
    let mut socket = serve(noticing.clone()).await;
    socket.write_all(REQUEST.as_bytes()).await.unwrap();
    entries.recv().await.unwrap();
    drop(socket);
    leaving.recv().await.unwrap();
    finish.notify_one();
    let answer = exchange(serve(noticing).await).await;
    assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    assert!(answer.contains("\r\nidempotent-replayed: true\r\n"), "{answer}");
    assert!(entries.try_recv().is_err(), "called once");
}

/// Tells when the future of an answer is dropped.
#[derive(Clone)]
struct Noticing<S> {
    inner: S,
    left: mpsc::UnboundedSender<()>,
}

struct Leaving(mpsc::UnboundedSender<()>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl<S: Service<axum::extract::Request>> Service<axum::extract::Request> for Noticing<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: axum::extract::Request) -> Self::Future {
        let (future, leaving) = (self.inner.call(request), Leaving(self.left.clone()));
        Box::pin(async move {
            let answer = future.await;
            drop(leaving);
            answer
        })
    }
}

/// A service that insists on being found ready before each call, as tower's contract has it.
struct Insisting {
    ready: AtomicBool,
}

impl Clone for Insisting {
    fn clone(&self) -> Self {
        Insisting { ready: AtomicBool::new(false) }
    }
}

impl Service<Seen> for Insisting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready.store(true, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Seen) -> Self::Future {
        assert!(self.ready.swap(false, Ordering::SeqCst), "called without being found ready");
        std::future::ready(Ok(Response::new(Body::from("ok"))))
    }
}

#[tokio::test]
async fn the_service_that_was_found_ready_is_the_one_that_is_called() {
    let mut service = layer(&memory()).layer(Insisting { ready: AtomicBool::new(false) });
    for key in ["a", "b"] {
        let answer = service.ready().await.unwrap().call(post(key, "x")).await.unwrap();
        assert_eq!(read(answer).await.body, "ok");
        let answer = service.ready().await.unwrap().call(keyless("x")).await.unwrap();
        assert_eq!(read(answer).await.body, "ok");
    }
}
