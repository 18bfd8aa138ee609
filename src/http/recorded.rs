//! A streamed answer on its way to the client: passed on as it comes, stored when it ends.
//!
//! The client is shown the end once the answer is stored. Where the client goes away, the rest is
//! read and stored by a task.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::body::Whole;
use super::layer::Settings;
use super::owned::{BROKE_OFF, Owned, PANICKED};
use super::problem::Problem;
use super::reply::Head;

/// What a body is polled to.
type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// The body of a streamed answer, which is stored when it ends.
pub(super) struct Recorded<R: Body<Data = Bytes> + Send + 'static> {
    state: Recording<R>,
    settings: Arc<Settings>,
    /// Whether it is a task of its own already.
    detached: bool,
}

enum Recording<R> {
    Streaming(Box<Streaming<R>>),
    /// With the trailers, which the client takes for the end.
    Storing(Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>, Option<HeaderMap>),
    Over,
}

/// Why a body ended before its end.
pub(super) enum Cut<E> {
    BrokeOff(E),
    NotStored,
}

struct Streaming<R> {
    head: Head,
    body: Pin<Box<R>>,
    kept: Kept,
    owned: Owned,
}

impl<R> Recorded<R>
where
    R: Body<Data = Bytes> + Send + 'static,
{
    pub(super) fn new(head: Head, body: R, owned: Owned) -> Self {
        let settings = Arc::clone(owned.settings());
        let kept = Kept::new(settings.max_reply_bytes);
        let streaming = Box::new(Streaming { head, body: Box::pin(body), kept, owned });
        Recorded { state: Recording::Streaming(streaming), settings, detached: false }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, Recording::Over)
    }

    /// The next frame of the body; the end once it is stored, or an error where it is not.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Cut<R::Error>> {
        loop {
            // What is not put back is over: so is a body that panics.
            match std::mem::replace(&mut self.state, Recording::Over) {
                Recording::Over => return Poll::Ready(None),
                Recording::Streaming(mut streaming) => {
                    let frame = match streaming.poll_body(context) {
                        Ok(Poll::Pending) => {
                            streaming.owned.beat(context);
                            self.state = Recording::Streaming(streaming);
                            return Poll::Pending;
                        }
                        Ok(Poll::Ready(frame)) => frame,
                        Err(panic) => {
                            streaming.owned.release_now(PANICKED);
                            resume_unwind(panic)
                        }
                    };
                    match frame {
                        Some(Ok(frame)) => {
                            streaming.kept.push(&frame);
                            match frame.into_trailers() {
                                Ok(trailers) => self.state = streaming.store(Some(trailers)),
                                Err(frame) => {
                                    self.state = Recording::Streaming(streaming);
                                    return Poll::Ready(Some(Ok(frame)));
                                }
                            }
                        }
                        Some(Err(error)) => {
                            streaming.owned.release_now(BROKE_OFF);
                            return Poll::Ready(Some(Err(Cut::BrokeOff(error))));
                        }
                        None => self.state = streaming.store(None),
                    }
                }
                Recording::Storing(mut storing, trailers) => {
                    return match storing.as_mut().poll(context) {
                        Poll::Pending => {
                            self.state = Recording::Storing(storing, trailers);
                            Poll::Pending
                        }
                        Poll::Ready(Ok(())) => {
                            Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
                        }
                        Poll::Ready(Err(_)) => Poll::Ready(Some(Err(Cut::NotStored))),
                    };
                }
            }
        }
    }
}

impl<R: Body<Data = Bytes> + Send + 'static> Streaming<R> {
    fn poll_body(&mut self, context: &mut Context<'_>) -> std::thread::Result<Polled<R::Error>> {
        catch_unwind(AssertUnwindSafe(|| self.body.as_mut().poll_frame(context)))
    }

    fn store(self, trailers: Option<HeaderMap>) -> Recording<R> {
        let Streaming { head, kept, owned, .. } = self;
        let whole = kept.whole();
        let storing = async move { owned.complete(&head, whole.as_ref()).await };
        Recording::Storing(Box::pin(storing), trailers)
    }
}

impl<R: Body<Data = Bytes> + Send + 'static> Drop for Recorded<R> {
    fn drop(&mut self) {
        if self.is_over() || self.detached || self.settings.cancels {
            return;
        }
        let state = std::mem::replace(&mut self.state, Recording::Over);
        let mut rest = Recorded { state, settings: Arc::clone(&self.settings), detached: true };
        let task = async move {
            while let Some(Ok(_)) = poll_fn(|context| rest.poll_frame(context)).await {}
        };
        self.settings.runtime.spawn(Box::pin(task));
    }
}

/// What was seen of an answer's body, within a limit.
pub(super) struct Kept {
    data: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
    max: usize,
}

impl Kept {
    pub(super) fn new(max: usize) -> Self {
        Kept { data: Some(Vec::new()), trailers: None, max }
    }

    pub(super) fn push(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(bytes) = frame.data_ref() else { return };
        if let Some(data) = &mut self.data {
            if bytes.len() > self.max - data.len() {
                self.data = None;
            } else {
                data.extend_from_slice(bytes);
            }
        }
    }

    /// All of it; `None` where it was too large.
    pub(super) fn whole(self) -> Option<Whole> {
        self.data.map(|data| Whole { data: data.into(), trailers: self.trailers })
    }
}
