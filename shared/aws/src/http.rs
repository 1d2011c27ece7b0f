//! Requests and responses of a function URL.

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde_json::json;

/// The failure of a whole call. No message quotes the request.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: i64,
    /// The error code, for programs.
    pub code: &'static str,
    /// The error message, for people: the problem and its correction.
    pub message: String,
    /// The method that the path accepts, for 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// Creates a failure with this status.
    pub fn new(status: i64, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allow: None }
    }

    /// Returns a 503 for an unavailable DynamoDB.
    pub fn unavailable() -> Self {
        Self::new(503, "unavailable", "DynamoDB is unavailable; retry the request")
    }

    /// Returns the HTTP response.
    pub fn answer(&self, request_id: &str) -> LambdaFunctionUrlResponse {
        let body = json!({"error": {"code": self.code, "message": self.message}, "request_id": request_id});
        let mut answer = json_answer(self.status, &body);
        if let Some(allow) = self.allow {
            answer.headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

/// Returns a response with a JSON body.
pub fn json_answer(status: i64, body: &impl Serialize) -> LambdaFunctionUrlResponse {
    // Serialization cannot fail because the bodies are our own types with string keys.
    text_answer(status, serde_json::to_string(body).unwrap_or_default())
}

/// Returns a response with a body that is already JSON.
pub fn text_answer(status: i64, body: String) -> LambdaFunctionUrlResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut answer = LambdaFunctionUrlResponse::default();
    answer.status_code = status;
    answer.headers = headers;
    answer.body = Some(body);
    answer
}

/// Returns the bytes of a JSON body.
///
/// # Errors
/// 413 above `limit` bytes, 415 for another content type, 400 for invalid base64.
pub fn json_body(request: &LambdaFunctionUrlRequest, limit: usize) -> Result<Vec<u8>, Refusal> {
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if media_type.is_some_and(|media_type| !media_type.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::new(415, "unsupported_media_type", "the body must be application/json"));
    }
    let body = request.body.as_deref().unwrap_or_default();
    let bytes = if request.is_base64_encoded {
        let decoded = BASE64_STANDARD.decode(body);
        decoded.map_err(|_| Refusal::new(400, "bad_request", "the body is not valid base64"))?
    } else {
        body.as_bytes().to_vec()
    };
    if bytes.len() > limit {
        let message = format!("the body has {} bytes; at most {limit} are accepted", bytes.len());
        return Err(Refusal::new(413, "too_large", message));
    }
    Ok(bytes)
}
