//! Errors in the format of ECS's JSON protocol.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http;

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An error response.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    /// Set only in a ConflictException.
    pub(super) resource_ids: Vec<String>,
}

impl ApiError {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        let status =
            if code == "ServerException" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
        Self { status, code: code.to_owned(), message: message.into(), resource_ids: Vec::new() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut body = json!({"__type": self.code, "message": self.message});
        if let (false, Some(fields)) = (self.resource_ids.is_empty(), body.as_object_mut()) {
            fields.insert("resourceIds".into(), json!(self.resource_ids));
        }
        let mut response = http::bytes(self.status, CONTENT_TYPE, body.to_string().into());
        http::set_header(&mut response, "x-amzn-errortype", &self.code);
        response
    }
}

/// The error of the protocol for a member of the wrong type.
pub(super) fn parse<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    T::deserialize(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}
