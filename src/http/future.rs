//! The future of an answer: asks, then works, and hands the work on where it is dropped.
//!
//! Dropped while it asks, nothing has happened: a claim that was won unseen is given back. From the
//! moment the key is won there is work, and work is finished whether or not someone waits for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::ask::Asked;
use super::body::{BoxError, RequestBody, ResponseBody};
use super::layer::Settings;
use super::work::work;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The answer to come of an [`IdempotencyService`](super::IdempotencyService).
    ///
    /// Dropping it once the key is won hands the work to the [`Runtime`](super::Runtime), unless
    /// the layer [cancels](super::IdempotencyLayer::cancel_on_disconnect).
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
        S::Error: 'static,
        R: Body<Data = Bytes>,
        R: Send,
        R: 'static,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateAt]
    enum State<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
        S::Error: 'static,
        R: Body<Data = Bytes>,
        R: Send,
        R: 'static,
    {
        Passed { #[pin] future: S::Future },
        Asking { asking: Boxed<Asked<B>>, service: Option<S>, settings: Arc<Settings> },
        Working { work: Work<Result<Response<ResponseBody<R>>, S::Error>> },
    }
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
    S::Error: 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    pub(super) fn passed(future: S::Future) -> Self {
        ResponseFuture { state: State::Passed { future } }
    }

    pub(super) fn asking(asking: Boxed<Asked<B>>, service: S, settings: Arc<Settings>) -> Self {
        ResponseFuture { state: State::Asking { asking, service: Some(service), settings } }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateAt::Passed { future } => {
                    let response = ready!(future.poll(context));
                    return Poll::Ready(response.map(|it| it.map(ResponseBody::passed)));
                }
                StateAt::Working { work } => return work.poll(context),
                StateAt::Asking { asking, service, settings } => {
                    match (ready!(asking.as_mut().poll(context)), service.take()) {
                        (Asked::Won(owned, request), Some(service)) => {
                            let work = Box::pin(work(service, request, owned));
                            State::Working { work: Work::new(work, Arc::clone(settings)) }
                        }
                        (Asked::Passed(request), Some(mut service)) => {
                            State::Passed { future: service.call(request) }
                        }
                        (Asked::Answered(response), _) => {
                            return Poll::Ready(Ok(response.map(ResponseBody::whole)));
                        }
                        // Polled after its end, which a future may answer as it likes.
                        (_, None) => return Poll::Pending,
                    }
                }
            };
            state.set(next);
        }
    }
}

/// Work under way, that someone is to finish.
struct Work<T: 'static> {
    work: Option<Boxed<T>>,
    settings: Arc<Settings>,
}

impl<T: 'static> Work<T> {
    fn new(work: Boxed<T>, settings: Arc<Settings>) -> Self {
        Work { work: Some(work), settings }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        // Out of reach while it is polled: work that panics is not to be handed on.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: 'static> Drop for Work<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| !self.settings.cancels) {
            self.settings.runtime.spawn(Box::pin(async move { drop(work.await) }));
        }
    }
}

impl<S, B, R> std::fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
    S::Error: 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Passed { .. } => "passed",
            State::Asking { .. } => "asking",
            State::Working { .. } => "working",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
