//! The work function's client: one signed call, and what each answer means.

use std::time::{Duration, Instant, SystemTime};

use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::credentials::{Provider, Source};

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Shorter than the 30 s that ECS gives a container between SIGTERM and SIGKILL by default: a runner that is stopped
/// while it waits for an answer still says so.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Lambda's limit of an answer.
const ANSWER_LIMIT: u64 = 6 << 20;
/// AWS accepts signatures of clocks that differ by 5 minutes; a smaller difference is not why it refused one.
const SKEW: i64 = 60;

/// How the work function is called.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Its function URL, with the path.
    FunctionUrl {
        /// Where to post.
        url: String,
        /// The region to sign for.
        region: String,
    },
    /// Lambda's Invoke API. The payload is the same JSON; what comes back is the answer that the function URL would
    /// have given: `{"statusCode", "body"}`.
    Invoke {
        /// Where to post.
        url: String,
        /// The region to sign for.
        region: String,
    },
}

/// The request.
#[derive(Clone, Copy, Serialize)]
struct Ask<'a> {
    runner_id: &'a str,
    token: &'a str,
    incarnation: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'a Done>,
}

/// The end of a command.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// The submission.
    pub submission_id: String,
    /// As a shell reports it: 128 and the signal's number after a signal, 126 or 127 if it could not be started.
    pub exit_code: i32,
}

/// A command to run. It may hold secrets, so it has no `Debug`.
#[derive(Deserialize)]
pub struct Run {
    /// The submission.
    pub submission_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Set over the container's own environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// An environment variable, as ECS writes them.
#[derive(Deserialize, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The instruction of the work function.
#[derive(Deserialize)]
#[serde(try_from = "AnswerBody")]
pub enum Answer {
    /// Run this.
    Run(Run),
    /// Nothing to do: ask again after this.
    Wait(Duration),
    /// End.
    Close,
}

#[derive(Deserialize)]
struct AnswerBody {
    run: Option<Run>,
    wait_ms: Option<u64>,
    close: Option<bool>,
}

impl TryFrom<AnswerBody> for Answer {
    type Error = &'static str;

    fn try_from(body: AnswerBody) -> Result<Self, Self::Error> {
        match body {
            AnswerBody { run: Some(run), wait_ms: None, close: None } => Ok(Self::Run(run)),
            AnswerBody { run: None, wait_ms: Some(wait), close: None } => Ok(Self::Wait(Duration::from_millis(wait))),
            AnswerBody { run: None, wait_ms: None, close: Some(true) } => Ok(Self::Close),
            _ => Err("expected one of run, wait_ms, close"),
        }
    }
}

/// Why there was no answer to act on.
#[derive(Debug, Error)]
pub enum AskError {
    /// The work function does not accept this runner. Final.
    #[error("the work function refuses this runner: {0}")]
    Refused(String),
    /// Another process asked for work as this runner before. Final.
    #[error("another process already runs as this runner: {0}")]
    OtherIncarnation(String),
    /// Lambda or the function does not accept the call: rights, address, signature.
    #[error("the call was rejected with {status}: {message}")]
    Rejected {
        /// HTTP's.
        status: u16,
        /// In AWS's words.
        message: String,
    },
    /// AWS rejects signatures of this clock. Later calls are signed with AWS's time.
    #[error(
        "the clock of this container is {} s {} AWS's, so its signature was rejected; signing with AWS's time from now on",
        seconds.abs(), if *seconds > 0 { "behind" } else { "ahead of" }
    )]
    ClockSkew {
        /// How far AWS's clock is ahead of this one, in seconds.
        seconds: i64,
    },
    /// The endpoint gave no credentials.
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    /// Throttled, failed, unreachable, too slow, or not understood.
    #[error("the work function cannot be reached: {0}")]
    Unavailable(#[source] Boxed),
}

/// The work function, as one runner calls it.
pub struct Work {
    endpoint: Endpoint,
    runner_id: String,
    token: String,
    incarnation: String,
    credentials: Provider,
    agent: ureq::Agent,
    /// Seconds by which AWS's clock is ahead of this one, where a signature was rejected for it.
    clock_offset: i64,
}

impl Work {
    /// A client for the runner `runner_id`. `ca_bundle` is a PEM file of the certificates to trust in place of Mozilla's.
    ///
    /// # Errors
    /// Why the file of certificates cannot be used.
    pub fn new(
        endpoint: Endpoint,
        runner_id: String,
        token: String,
        credentials: Source,
        ca_bundle: Option<&str>,
    ) -> Result<Self, String> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = ca_bundle {
            let pem = std::fs::read(path).map_err(|error| format!("AWS_CA_BUNDLE {path}: {error}"))?;
            tls = tls.root_certs(roots(&pem).ok_or_else(|| format!("AWS_CA_BUNDLE {path}: no certificate in it"))?);
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("ecs-bridge-runner/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        Ok(Self {
            endpoint,
            runner_id,
            token,
            incarnation: uuid::Uuid::new_v4().to_string(),
            credentials: Provider::new(credentials),
            agent: config.build().new_agent(),
            clock_offset: 0,
        })
    }

    /// Asks for work, and reports the end of a command or of this runner with it.
    ///
    /// # Errors
    /// Why there was no answer to act on, which says nothing of whether the call had its effect.
    pub fn ask(&mut self, done: Option<&Done>, stopping: bool) -> Result<Answer, AskError> {
        let ask =
            Ask { runner_id: &self.runner_id, token: &self.token, incarnation: &self.incarnation, stopping, done };
        let body = serde_json::to_vec(&ask).map_err(unavailable)?;
        let request = self.signed(body)?;
        let mut response = self.agent.run(request).map_err(unavailable)?;
        let body = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec().map_err(unavailable)?;
        let outcome = self.understand(&response, &body);
        if let Err(AskError::Rejected { .. }) = outcome {
            // They may have expired, or have been replaced.
            self.credentials.forget();
        }
        outcome
    }

    fn signed(&mut self, body: Vec<u8>) -> Result<Request<Vec<u8>>, AskError> {
        let identity = self.credentials.credentials(Instant::now()).map_err(AskError::Credentials)?.into();
        let (Endpoint::FunctionUrl { url, region } | Endpoint::Invoke { url, region }) = &self.endpoint;
        let now = SystemTime::now();
        let offset = Duration::from_secs(self.clock_offset.unsigned_abs());
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("lambda")
            .time(if self.clock_offset < 0 { now - offset } else { now + offset })
            .settings(settings)
            .build()
            .map_err(unavailable)?
            .into();
        let mut request =
            Request::post(url).header("content-type", "application/json").body(body).map_err(unavailable)?;
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(request.body()));
        let signed = signable.and_then(|signable| sign(signable, &parameters)).map_err(unavailable)?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    fn understand(&mut self, response: &Response<ureq::Body>, body: &[u8]) -> Result<Answer, AskError> {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if status == 200 {
            return match self.endpoint {
                Endpoint::FunctionUrl { .. } => answer(status, body),
                Endpoint::Invoke { .. } if header("x-amz-function-error").is_some() => {
                    Err(AskError::Unavailable("the function failed; its log says why".into()))
                }
                Endpoint::Invoke { .. } => {
                    let embedded: Embedded = serde_json::from_slice(body).map_err(unavailable)?;
                    answer(embedded.status_code, embedded.body.as_bytes())
                }
            };
        }
        if is_about_the_signature(body)
            && let Some(date) = header("date")
            && let Some(seconds) = ahead(date, SystemTime::now())
            && (seconds - self.clock_offset).abs() > SKEW
        {
            self.clock_offset = seconds;
            return Err(AskError::ClockSkew { seconds });
        }
        answer(status, body)
    }
}

/// An answer of the function inside one of Lambda's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Embedded {
    status_code: u16,
    #[serde(default)]
    body: String,
}

/// What the function, or Lambda before it, means by an answer.
fn answer(status: u16, body: &[u8]) -> Result<Answer, AskError> {
    if status == 200 {
        return serde_json::from_slice(body).map_err(unavailable);
    }
    let (own, message) = message_of(body);
    Err(match status {
        // Lambda has a 403 and a 409 of its own, which may pass.
        403 if own => AskError::Refused(message),
        409 if own => AskError::OtherIncarnation(message),
        408 | 409 | 429 | 500.. => AskError::Unavailable(format!("{status}: {message}").into()),
        _ => AskError::Rejected { status, message },
    })
}

/// The message of a refusal, and whether it is the function's own: `{"error": {"message"}}`.
fn message_of(body: &[u8]) -> (bool, String) {
    #[derive(Default, Deserialize)]
    struct Refusal {
        error: Option<Words>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    match (refusal.error, refusal.message) {
        (Some(Words { message }), _) => (true, message),
        (None, Some(message)) => (false, message),
        (None, None) => (false, "no reason was given".into()),
    }
}

fn is_about_the_signature(body: &[u8]) -> bool {
    let (own, message) = message_of(body);
    // "Signature expired: …", "Signature not yet current: …", "The request signature we calculated does not match …"
    !own && message.to_ascii_lowercase().contains("signature")
}

/// Seconds by which an HTTP date is ahead of this clock.
fn ahead(date: &str, now: SystemTime) -> Option<i64> {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs().try_into().ok();
    let (theirs, ours): (i64, i64) = (seconds(httpdate::parse_http_date(date).ok()?)?, seconds(now)?);
    Some(theirs - ours)
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

fn unavailable(error: impl Into<Boxed>) -> AskError {
    AskError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_functions_own_refusals_are_final() {
        let own = br#"{"error": {"code": "forbidden", "message": "another task"}, "request_id": "r"}"#;
        assert!(matches!(answer(403, own), Err(AskError::Refused(message)) if message == "another task"));
        assert!(matches!(answer(409, own), Err(AskError::OtherIncarnation(_))));
        let lambdas = br#"{"Message": "Forbidden"}"#;
        assert!(matches!(answer(403, lambdas), Err(AskError::Rejected { status: 403, .. })));
        assert!(matches!(answer(409, lambdas), Err(AskError::Unavailable(_))));
    }

    #[test]
    fn an_answer_that_says_two_things_is_not_acted_on() {
        assert!(matches!(answer(200, br#"{"wait_ms": 5, "close": true}"#), Err(AskError::Unavailable(_))));
        assert!(matches!(answer(200, br#"{"close": false}"#), Err(AskError::Unavailable(_))));
        assert!(matches!(answer(200, br#"{"close": true, "new": 1}"#), Ok(Answer::Close)));
    }

    #[test]
    fn clock_skew_is_reported_with_its_size_and_direction() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let seconds = ahead("Sun, 09 Sep 2001 01:56:40 GMT", now).unwrap();
        assert!(AskError::ClockSkew { seconds }.to_string().contains("is 600 s behind AWS's"));
    }
}
