//! What is asked before any work: does the request have a key, whose is it, and is it new?
//!
//! Nothing here outlives the request: a client that goes away meanwhile has asked nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body;

use super::IDEMPOTENT_REPLAYED;
use super::body::{BoxError, RequestBody, Whole};
use super::key;
use super::layer::Settings;
use super::owned::{Claimed, Owned};
use super::problem::{Code, Problem};
use super::reply;
use crate::claim::{Claim, Prior, Reply, Ticket};
use crate::identity::MAX_NAME_BYTES;

/// What comes of asking.
pub(super) enum Asked<B> {
    /// Nothing is to be done.
    Answered(Response<Whole>),
    /// It has no key, and needs none.
    Passed(Request<RequestBody<B>>),
    /// The work is this request's.
    Won(Owned, Request<RequestBody<B>>),
}

/// Whether a request is to be looked into at all.
pub(super) fn concerns(settings: &Settings, parts: &Parts) -> bool {
    let may_have_key = settings.required || settings.key_from.is_some();
    (settings.guards)(parts) && (may_have_key || parts.headers.contains_key(&settings.header))
}

pub(super) async fn ask<B>(settings: Arc<Settings>, parts: Parts, body: B) -> Asked<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match claimed(&settings, parts, body).await {
        Ok(asked) => asked,
        Err(problem) => Asked::Answered(problem.response()),
    }
}

async fn claimed<B>(settings: &Arc<Settings>, parts: Parts, body: B) -> Result<Asked<B>, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let in_header = key::of_header(&parts.headers, &settings.header);
    let in_header = in_header.map_err(|key::Malformed| Code::KeyMalformed)?;
    if in_header.is_none() && settings.key_from.is_none() {
        return Err(Code::KeyMissing.into());
    }
    let body = Whole::read(body, settings.max_body_bytes).await?;
    let in_body = || settings.key_from.as_ref().and_then(|key| key(&parts, &body.data));
    let Some(key) = in_header.or_else(in_body) else {
        if settings.required {
            return Err(Code::KeyMissing.into());
        }
        return Ok(Asked::Passed(Request::from_parts(parts, RequestBody::whole(body))));
    };
    if !(1..=MAX_NAME_BYTES).contains(&key.len()) {
        return Err(Code::KeyMalformed.into());
    }
    let project = (settings.project)(&parts).ok_or(Code::ProjectUnknown)?;
    let operation = settings.operation(&project, &key, &fingerprint(&parts, &body.data));
    let claim = match settings.wait {
        Some(wait) => settings.store.claim_or_wait(operation, wait).await,
        None => settings.store.claim(operation).await,
    };
    let claim = claim.map_err(|error| settings.problem(&error))?;
    let request = Request::from_parts(parts, RequestBody::whole(body));
    answered(settings, claim, request)
}

fn answered<B>(
    settings: &Arc<Settings>,
    claim: Claim,
    request: Request<RequestBody<B>>,
) -> Result<Asked<B>, Problem> {
    let request_id = claim.request_id();
    let of_request = |code: Code| Problem::from(code).of_request(request_id);
    match claim {
        Claim::New(ticket) => Ok(won(settings, ticket, None, request)),
        Claim::Resumed(ticket, prior) => Ok(won(settings, ticket, Some(prior), request)),
        Claim::Completed(reply) | Claim::Failed(reply) => {
            replayed(reply).map(Asked::Answered).map_err(of_request)
        }
        Claim::InFlight(flight) => {
            let time = settings.retry_after.min(flight.retry_after());
            Err(of_request(Code::InFlight).retry_after(time))
        }
        Claim::Mismatch(_) => Err(of_request(Code::KeyReused)),
        Claim::Lapsed(_) => Err(of_request(Code::Interrupted)),
    }
}

fn won<B>(
    settings: &Arc<Settings>,
    ticket: Ticket,
    prior: Option<Prior>,
    mut request: Request<RequestBody<B>>,
) -> Asked<B> {
    request.extensions_mut().insert(Claimed::new(&ticket, prior));
    Asked::Won(Owned::new(ticket, Arc::clone(settings)), request)
}

fn replayed(reply: Reply) -> Result<Response<Whole>, Code> {
    let mut response = reply::decode(reply)?;
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// A hash of method, path, query and body, each with its length before it, so that none can be
/// taken for a part of another.
fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut hasher = blake3::Hasher::new();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}
