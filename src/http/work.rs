//! The work of a request whose key was won: the call of the service, and what becomes of it.
//!
//! Whatever happens to the service, its operation is settled, released or given up: none of the
//! ways out of here leaves a ticket behind.

use std::panic::resume_unwind;
use std::pin::pin;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower_service::Service;

use super::body::{BoxError, RequestBody, ResponseBody, Whole};
use super::owned::{BROKE_OFF, Owned, PANICKED};
use super::recorded::{Kept, Recorded};
use super::reply::Head;

/// Calls the service, and stores or releases what comes of it.
pub(super) async fn work<S, B, R>(
    mut service: S,
    request: Request<RequestBody<B>>,
    mut owned: Owned,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let calling = pin!(async { service.call(request).await });
    let response = match owned.during(calling).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            owned.release("the service failed").await;
            return Err(error);
        }
        Err(panic) => {
            owned.release(PANICKED).await;
            resume_unwind(panic)
        }
    };
    if !(owned.settings().stores)(response.status()) {
        owned.release(format!("answered {}", response.status())).await;
        return Ok(response.map(ResponseBody::passed));
    }
    let (parts, body) = response.into_parts();
    Ok(match length(&parts, &body) {
        Some(length) if length <= owned.settings().max_reply_bytes as u64 => {
            kept(parts, body, owned).await
        }
        Some(_) => match owned.complete(&Head::of(&parts), None).await {
            Ok(()) => Response::from_parts(parts, ResponseBody::passed(body)),
            Err(problem) => problem.response().map(ResponseBody::whole),
        },
        None => {
            let recorded = Recorded::new(Head::of(&parts), body, owned);
            Response::from_parts(parts, ResponseBody::recorded(recorded))
        }
    })
}

/// The length of an answer, where it is known before its end.
fn length(parts: &Parts, body: &impl Body) -> Option<u64> {
    let stated = || parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    body.size_hint().exact().or_else(stated)
}

/// Stores an answer before the client is shown any of it.
async fn kept<R>(parts: Parts, body: R, mut owned: Owned) -> Response<ResponseBody<R>>
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let reading = pin!(read(body, owned.settings().max_reply_bytes));
    let whole = match owned.during(reading).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(error)) => {
            owned.release(BROKE_OFF).await;
            return Response::from_parts(parts, ResponseBody::broken(error));
        }
        Err(panic) => {
            owned.release(PANICKED).await;
            resume_unwind(panic)
        }
    };
    match owned.complete(&Head::of(&parts), Some(&whole)).await {
        Ok(()) => Response::from_parts(parts, ResponseBody::whole(whole)),
        Err(problem) => problem.response().map(ResponseBody::whole),
    }
}

async fn read<R>(body: R, max: usize) -> Result<Whole, BoxError>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut kept = Kept::new(max);
    while let Some(frame) = body.frame().await {
        kept.push(&frame.map_err(Into::into)?);
    }
    kept.whole().ok_or_else(|| "the answer is longer than its Content-Length".into())
}
