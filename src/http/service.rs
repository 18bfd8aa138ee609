//! The service: the layer around another one.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::ask::{ask, concerns};
use super::body::{BoxError, RequestBody, ResponseBody};
use super::future::ResponseFuture;
use super::layer::Settings;

/// A service each of whose requests with an idempotency key is done once. Made by
/// [`IdempotencyLayer`](super::IdempotencyLayer).
#[derive(Clone)]
pub struct IdempotencyService<S> {
    service: S,
    settings: Arc<Settings>,
}

impl<S> IdempotencyService<S> {
    pub(super) fn new(service: S, settings: Arc<Settings>) -> Self {
        IdempotencyService { service, settings }
    }
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was found ready is the one to be called, later; its clone is not ready yet.
        let clone = self.service.clone();
        let mut ready = std::mem::replace(&mut self.service, clone);
        let (parts, body) = request.into_parts();
        if !concerns(&self.settings, &parts) {
            let request = Request::from_parts(parts, RequestBody::passed(body));
            return ResponseFuture::passed(ready.call(request));
        }
        let asking = ask(Arc::clone(&self.settings), parts, body);
        ResponseFuture::asking(Box::pin(asking), ready, Arc::clone(&self.settings))
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyService").field("service", &self.service).finish_non_exhaustive()
    }
}
