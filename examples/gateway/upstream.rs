//! One call of the model server, and what its answer means for whoever made it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use justonce::RequestId;

/// Longest answer that is taken.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Longest a call may take: that of stock OpenAI clients.
const TIMEOUT: Duration = Duration::from_mins(10);

pub(crate) struct Upstream {
    client: Client<HttpConnector, Full<Bytes>>,
    completions: String,
    /// The gateway's own, from the environment; its clients' go no further than the gateway.
    key: Option<String>,
}

/// What a call came to.
pub(crate) enum Answer {
    /// The answer, for good: a completion, or an error that the same request will get again.
    Final { status: u16, body: Bytes },
    /// Worth another try, after this pause if upstream said so.
    Passing { what: String, pause: Option<Duration> },
}

impl Upstream {
    pub(crate) fn new(url: &str, key: Option<String>) -> Self {
        Upstream {
            client: Client::builder(TokioExecutor::new()).build_http(),
            completions: format!("{url}/v1/chat/completions"),
            key,
        }
    }

    /// Asks for the completion of a request.
    pub(crate) async fn complete(&self, id: RequestId, body: &str) -> Answer {
        match tokio::time::timeout(TIMEOUT, self.call(id, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Passing { what: error.to_string(), pause: None },
            Err(_) => Answer::Passing { what: "upstream timed out".to_owned(), pause: None },
        }
    }

    async fn call(
        &self,
        id: RequestId,
        body: &str,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::post(&self.completions)
            .header("content-type", "application/json")
            .header("idempotency-key", format!("\"{id}\""));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Full::from(body.to_owned()))?;
        let response = self.client.request(request).await?;
        let status = response.status().as_u16();
        if matches!(status, 408 | 409 | 425 | 429 | 500..) {
            let pause = response
                .headers()
                .get("retry-after")
                .and_then(|value| Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?)));
            return Ok(Answer::Passing { what: format!("upstream answered {status}"), pause });
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?;
        Ok(Answer::Final { status, body: body.to_bytes() })
    }
}
