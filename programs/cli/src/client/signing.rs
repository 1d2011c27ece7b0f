//! Signed HTTP requests, to the addresses for which no SDK is used.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::http::{HttpError, Request};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::connection::Client;
use super::error::{Boxed, ClientError};

/// The timeout of a call. It is some seconds longer than that of the function.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// An HTTP response.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The time of its `date` header, in epoch milliseconds.
    pub date: Option<i64>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Client {
    /// Sends a request to `url`.
    pub async fn send(&self, request: Request, url: &str) -> Result<Response, ClientError> {
        let unreachable = |source: Boxed| ClientError::Unreachable { url: url.to_owned(), source };
        let answer = async {
            let answer = self.connector.call(request).await.map_err(|error| unreachable(error.into()))?;
            let status = answer.status().as_u16();
            let date = answer.headers().get("date").and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
            let date = date.map(|date| date.unix_timestamp().saturating_mul(1_000));
            let body =
                ByteStream::new(answer.into_body()).collect().await.map_err(|error| unreachable(error.into()))?;
            Ok(Response { status, date, body: body.to_vec() })
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
        answer.map_err(|_| ClientError::TimedOut(url.to_owned()))?
    }

    /// Returns a request that is signed with the credentials of the caller.
    pub async fn signed(&self, method: &str, url: &str, body: String, service: &str) -> Result<Request, ClientError> {
        self.signed_as(self.credentials().await?, method, url, body, service)
    }

    /// Returns a request that is signed with these credentials.
    pub fn signed_as(
        &self,
        credentials: Credentials,
        method: &str,
        url: &str,
        body: String,
        service: &str,
    ) -> Result<Request, ClientError> {
        let unreachable = |source: Boxed| ClientError::Unreachable { url: url.to_owned(), source };
        let identity = credentials.into();
        let unknown = ClientError::Missing { what: "the AWS Region", flag: "--region REGION", variable: "AWS_REGION" };
        let region = self.config.region().ok_or(unknown)?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name(service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unreachable(error.into()))?
            .into();
        let signable =
            SignableRequest::new(method, url, headers(service).into_iter(), SignableBody::Bytes(body.as_bytes()));
        let signed =
            signable.and_then(|request| sign(request, &parameters)).map_err(|error| unreachable(error.into()))?;
        let mut request = plain_request(method, url, body, service).map_err(|error| unreachable(error.into()))?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        request.try_into().map_err(|error: HttpError| unreachable(error.into()))
    }
}

/// Returns the signed headers of a call.
fn headers(service: &str) -> [(&'static str, &'static str); 1] {
    [("content-type", if service == "ec2" { "application/x-www-form-urlencoded" } else { "application/json" })]
}

fn plain_request(method: &str, url: &str, body: String, service: &str) -> Result<http::Request<SdkBody>, http::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers(service) {
        request = request.header(name, value);
    }
    request.body(SdkBody::from(body))
}

/// Returns a request without a signature.
pub fn unsigned(method: &str, url: &str, body: String) -> Result<Request, Boxed> {
    Ok(plain_request(method, url, body, "lambda")?.try_into()?)
}
