//! Requests and answers as a function URL has them.

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde_json::json;

/// The largest body, in bytes: 100 submissions of all that ECS takes, and as much again.
pub const BODY_BYTES: usize = 2 * 1024 * 1024;

/// A call that is answered with an error as a whole. Neither text quotes what was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: i64,
    /// For programs.
    pub code: &'static str,
    /// For people: what was wrong, and what would be right.
    pub message: String,
    /// The methods that the path takes, for 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// An error with this status.
    pub fn new(status: i64, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allow: None }
    }

    /// 503: the table does not answer.
    pub fn unavailable() -> Self {
        Self::new(503, "unavailable", "the table does not answer; send the request again")
    }

    /// The answer that tells it.
    pub fn answer(&self, request_id: &str) -> LambdaFunctionUrlResponse {
        let body = json!({"error": {"code": self.code, "message": self.message}, "request_id": request_id});
        let mut answer = json_answer(self.status, &body);
        if let Some(allow) = self.allow {
            answer.headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

/// An answer with a JSON body.
pub fn json_answer(status: i64, body: &impl Serialize) -> LambdaFunctionUrlResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut answer = LambdaFunctionUrlResponse::default();
    answer.status_code = status;
    answer.headers = headers;
    // What is answered are our own types, whose keys are strings: they serialise.
    answer.body = Some(serde_json::to_string(body).unwrap_or_default());
    answer
}

/// The bytes of a JSON body.
///
/// # Errors
/// 413 where there are too many, 415 where they are said to be something else, 400 where they are not the base64 that
/// they should be.
pub fn json_body(request: &LambdaFunctionUrlRequest) -> Result<Vec<u8>, Refusal> {
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if media_type.is_some_and(|media_type| !media_type.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::new(415, "unsupported_media_type", "the body must be application/json"));
    }
    let body = request.body.as_deref().unwrap_or_default();
    let bytes = if request.is_base64_encoded {
        let decoded = BASE64_STANDARD.decode(body);
        decoded.map_err(|_| Refusal::new(400, "bad_request", "the body is not the base64 that it is said to be"))?
    } else {
        body.as_bytes().to_vec()
    };
    if bytes.len() > BODY_BYTES {
        let message = format!("the body has {} bytes; at most {BODY_BYTES} are taken", bytes.len());
        return Err(Refusal::new(413, "too_large", message));
    }
    Ok(bytes)
}
