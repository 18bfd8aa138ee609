//! Bodies: as they come, whole, and recorded on the way.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Limited};
use pin_project_lite::pin_project;

use super::problem::Code;
use super::recorded::{Cut, Recorded};

/// The error of a body, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is all there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(super) fn of(data: Bytes) -> Self {
        Whole { data, trailers: None }
    }

    /// Reads a body of at most `max` bytes.
    pub(super) async fn read<B>(body: B, max: usize) -> Result<Self, Code>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if body.size_hint().lower() > max as u64 {
            return Err(Code::BodyTooLarge);
        }
        match Limited::new(body, max).collect().await {
            Ok(body) => {
                let trailers = body.trailers().cloned();
                Ok(Whole { data: body.to_bytes(), trailers })
            }
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Code::BodyTooLarge),
            Err(_) => Err(Code::BodyUnreadable),
        }
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = std::mem::take(&mut self.data);
        let frame = if data.is_empty() {
            self.trailers.take().map(Frame::trailers)
        } else {
            Some(Frame::data(data))
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

pin_project! {
    /// The body that the service gets: the client's as it comes, or all of it at once where the
    /// layer has read it.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        body: Either<B, Whole>,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn passed(body: B) -> Self {
        RequestBody { body: Either::Left(body) }
    }

    pub(super) fn whole(body: Whole) -> Self {
        RequestBody { body: Either::Right(body) }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// The body that the client gets: the service's, the layer's own, or the service's while it is
    /// recorded.
    ///
    /// Dropping one that is being recorded hands the rest of the work to the
    /// [`Runtime`](super::Runtime), unless the layer
    /// [cancels](super::IdempotencyLayer::cancel_on_disconnect).
    pub struct ResponseBody<B>
    where
        B: Body<Data = Bytes>,
        B: Send,
        B: 'static,
    {
        #[pin]
        body: Answer<B>,
    }
}

pin_project! {
    #[project = AnswerAt]
    enum Answer<B>
    where
        B: Body<Data = Bytes>,
        B: Send,
        B: 'static,
    {
        Passed { #[pin] body: B },
        Whole { body: Whole },
        Recorded { body: Recorded<B> },
        Broken { error: Option<BoxError> },
    }
}

impl<B: Body<Data = Bytes> + Send + 'static> ResponseBody<B> {
    pub(super) fn passed(body: B) -> Self {
        ResponseBody { body: Answer::Passed { body } }
    }

    pub(super) fn whole(body: Whole) -> Self {
        ResponseBody { body: Answer::Whole { body } }
    }

    pub(super) fn recorded(body: Recorded<B>) -> Self {
        ResponseBody { body: Answer::Recorded { body } }
    }

    /// A body that broke off before the client was shown any of it.
    pub(super) fn broken(error: BoxError) -> Self {
        ResponseBody { body: Answer::Broken { error: Some(error) } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().body.project() {
            AnswerAt::Passed { body } => {
                body.poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            AnswerAt::Whole { body } => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            AnswerAt::Recorded { body } => body.poll_frame(context).map(|frame| {
                frame.map(|frame| {
                    frame.map_err(|cut| match cut {
                        Cut::BrokeOff(error) => error.into(),
                        Cut::NotStored => "the answer could not be stored".into(),
                    })
                })
            }),
            AnswerAt::Broken { error } => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Answer::Passed { body } => body.is_end_stream(),
            Answer::Whole { body } => body.is_end_stream(),
            Answer::Recorded { body } => body.is_over(),
            Answer::Broken { error } => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Answer::Passed { body } => body.size_hint(),
            Answer::Whole { body } => body.size_hint(),
            Answer::Recorded { .. } | Answer::Broken { .. } => SizeHint::default(),
        }
    }
}

impl<B: Body<Data = Bytes> + Send + 'static> std::fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.body {
            Answer::Passed { .. } => "passed",
            Answer::Whole { .. } => "whole",
            Answer::Recorded { .. } => "recorded",
            Answer::Broken { .. } => "broken",
        };
        f.debug_tuple("ResponseBody").field(&kind).finish()
    }
}
