//! Signed calls to AWS, over one blocking connection.

use std::time::{Duration, Instant, SystemTime};

use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::Deserialize;
use thiserror::Error;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::credentials::{Provider, Source};

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// The maximum response size, which is Lambda's limit.
const RESPONSE_LIMIT: u64 = 6 << 20;
/// The connect timeout.
const CONNECT: Duration = Duration::from_secs(3);
/// AWS accepts signatures from clocks that differ by up to 5 minutes. A difference below this value is not the cause
/// of a rejection.
const SKEW: i64 = 60;

/// The cause of a call without a response.
#[derive(Debug, Error)]
pub enum CallError {
    /// AWS rejects signatures made with this clock. Later calls are signed with AWS's time.
    #[error(
        "the clock of this container is {} s {} AWS's, so its signature was rejected; signing with AWS's time from now on",
        seconds.abs(), if *seconds > 0 { "behind" } else { "ahead of" }
    )]
    ClockSkew {
        /// The seconds by which AWS's clock is ahead of this one.
        seconds: i64,
    },
    /// The credentials endpoint returned no credentials.
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    /// The network failed, or the response is not HTTP.
    #[error(transparent)]
    Unavailable(Boxed),
}

/// A response with any status.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns a header's value if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The address of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL to post to.
    pub url: String,
    /// The Region of the signature.
    pub region: String,
    /// The service of the signature.
    pub service: &'static str,
}

/// An AWS client.
pub struct Aws {
    credentials: Provider,
    agent: ureq::Agent,
    /// The seconds by which AWS's clock is ahead of this one, set after AWS rejected a signature because of the
    /// clock.
    clock_offset: i64,
}

impl Aws {
    /// Creates a client whose calls take up to `timeout`. `ca_bundle` is a PEM file of trusted certificates that
    /// replace Mozilla's.
    ///
    /// # Errors
    /// If the certificate file cannot be used.
    pub fn new(credentials: Source, ca_bundle: Option<&str>, timeout: Duration) -> Result<Self, String> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = ca_bundle {
            let pem = std::fs::read(path).map_err(|error| format!("AWS_CA_BUNDLE {path}: {error}"))?;
            tls = tls.root_certs(roots(&pem).ok_or_else(|| format!("AWS_CA_BUNDLE {path}: no certificate in it"))?);
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(timeout))
            // A network without a route to an address often does not refuse the connection, and a runner must not
            // wait long.
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("ecs-bridge-runner/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        Ok(Self { credentials: Provider::new(credentials), agent: config.build().new_agent(), clock_offset: 0 })
    }

    /// Posts a signed request.
    ///
    /// # Errors
    /// If there is no response. The call may still have had its effect. A rejection is a response, unless the clock
    /// caused it.
    pub fn post(&mut self, target: &Target, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Response, CallError> {
        let request = self.signed(target, headers, body)?;
        let mut response = self.agent.run(request).map_err(unavailable)?;
        let body = response.body_mut().with_config().limit(RESPONSE_LIMIT).read_to_vec().map_err(unavailable)?;
        let headers = std::mem::take(response.headers_mut());
        let response = Response { status: response.status().as_u16(), headers, body };
        if response.status != 200
            && is_about_the_signature(&response.body)
            && let Some(seconds) = response.header("date").and_then(|date| ahead(date, SystemTime::now()))
            && (seconds - self.clock_offset).abs() > SKEW
        {
            self.clock_offset = seconds;
            return Err(CallError::ClockSkew { seconds });
        }
        Ok(response)
    }

    /// Makes the next call fetch credentials again, because the current ones may have expired or been replaced.
    pub fn forget_credentials(&mut self) {
        self.credentials.forget();
    }

    fn signed(
        &mut self,
        target: &Target,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Request<Vec<u8>>, CallError> {
        let identity = self.credentials.credentials(Instant::now()).map_err(CallError::Credentials)?.into();
        let Target { url, region, service } = target;
        let now = SystemTime::now();
        let offset = Duration::from_secs(self.clock_offset.unsigned_abs());
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(if self.clock_offset < 0 { now - offset } else { now + offset })
            .settings(settings)
            .build()
            .map_err(unavailable)?
            .into();
        let request = headers.iter().fold(Request::post(url), |request, (name, value)| request.header(*name, *value));
        let mut request = request.body(body).map_err(unavailable)?;
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(request.body()));
        let signed = signable.and_then(|signable| sign(signable, &parameters)).map_err(unavailable)?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// Returns the message of a rejection by AWS.
pub fn message_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Rejection {
        #[serde(alias = "Message")]
        message: String,
    }
    serde_json::from_slice(body).ok().map(|Rejection { message }| message)
}

fn is_about_the_signature(body: &[u8]) -> bool {
    // "Signature expired: …", "Signature not yet current: …", "The request signature we calculated does not match …"
    message_of(body).is_some_and(|message| message.to_ascii_lowercase().contains("signature"))
}

/// Parses an HTTP date into seconds since the epoch.
pub fn http_date(date: &str) -> Option<i64> {
    seconds(httpdate::parse_http_date(date).ok()?)
}

/// Returns the seconds by which an HTTP date is ahead of this clock.
fn ahead(date: &str, now: SystemTime) -> Option<i64> {
    Some(http_date(date)? - seconds(now)?)
}

fn seconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn roots(pem: &[u8]) -> Option<RootCerts> {
    let certificates: Vec<Certificate<'static>> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
}

fn unavailable(error: impl Into<Boxed>) -> CallError {
    CallError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_is_reported_with_its_size_and_direction() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let seconds = ahead("Sun, 09 Sep 2001 01:56:40 GMT", now).unwrap();
        assert!(CallError::ClockSkew { seconds }.to_string().contains("is 600 s behind AWS's"));
    }

    #[test]
    fn rejected_signature_is_detected_in_either_spelling() {
        for body in [r#"{"message": "Signature expired: x"}"#, r#"{"Message": "The request signature we calculated"}"#]
        {
            assert!(is_about_the_signature(body.as_bytes()), "{body}");
        }
        assert!(!is_about_the_signature(br#"{"error": {"message": "signature"}}"#));
    }
}
