//! The runner API's client: one signed call, and what each answer means.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::aws::{self, Aws, CallError, Response, Target};

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// How long a call may take. Shorter than the 30 s that ECS gives a container between SIGTERM and SIGKILL by default: a
/// runner that is stopped while it waits for an answer still says so.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How the runner API is called.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Its function URL, with the path.
    FunctionUrl(Target),
    /// Lambda's Invoke API. The payload is the same JSON; what comes back is the answer that the function URL would
    /// have given: `{"statusCode", "body"}`.
    Invoke(Target),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    rung_for: Option<&'a str>,
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

/// The instruction of the runner API.
#[derive(Deserialize)]
#[serde(try_from = "AnswerBody")]
pub enum Answer {
    /// Run this.
    Run(Run),
    /// Nothing to do: ask again after `ask_after`.
    Wait {
        /// Where nothing else announces a new submission.
        ask_after: Duration,
        /// Nothing waits: a runner with a doorbell asks again when it rings, or after this.
        rest: Option<Duration>,
    },
    /// End.
    Close,
}

#[derive(Deserialize)]
struct AnswerBody {
    run: Option<Run>,
    wait_ms: Option<u64>,
    rest_ms: Option<u64>,
    close: Option<bool>,
}

impl TryFrom<AnswerBody> for Answer {
    type Error = &'static str;

    fn try_from(body: AnswerBody) -> Result<Self, Self::Error> {
        match (body.run, body.wait_ms, body.close) {
            (Some(run), None, None) => Ok(Self::Run(run)),
            (None, Some(wait), None) => {
                let rest = body.rest_ms.map(Duration::from_millis);
                Ok(Self::Wait { ask_after: Duration::from_millis(wait), rest })
            }
            (None, None, Some(true)) => Ok(Self::Close),
            _ => Err("expected one of run, wait_ms, close"),
        }
    }
}

/// Why there was no answer to act on.
#[derive(Debug, Error)]
pub enum AskError {
    /// The runner API does not accept this runner. Final.
    #[error("the runner API refuses this runner: {0}")]
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
    #[error("{0}")]
    ClockSkew(CallError),
    /// The endpoint gave no credentials.
    #[error("{0}")]
    Credentials(CallError),
    /// Throttled, failed, unreachable, too slow, or not understood.
    #[error("the runner API cannot be reached: {0}")]
    Unavailable(#[source] Boxed),
}

impl From<CallError> for AskError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::ClockSkew { .. } => Self::ClockSkew(error),
            CallError::Credentials(_) => Self::Credentials(error),
            CallError::Unavailable(source) => Self::Unavailable(source),
        }
    }
}

/// The runner API, as one runner calls it.
pub struct RunnerApi {
    endpoint: Endpoint,
    runner_id: String,
    token: String,
    incarnation: String,
    aws: Aws,
}

impl RunnerApi {
    /// A client for the runner `runner_id`.
    pub fn new(endpoint: Endpoint, runner_id: String, token: String, aws: Aws) -> Self {
        Self { endpoint, runner_id, token, incarnation: uuid::Uuid::new_v4().to_string(), aws }
    }

    /// Asks for work, and reports the end of a command or of this runner with it. `rung_for` is the submission for which
    /// the doorbell rang.
    ///
    /// # Errors
    /// Why there was no answer to act on, which says nothing of whether the call had its effect.
    pub fn ask(&mut self, done: Option<&Done>, stopping: bool, rung_for: Option<&str>) -> Result<Answer, AskError> {
        let Self { runner_id, token, incarnation, .. } = self;
        let ask = Ask { runner_id, token, incarnation, stopping, done, rung_for };
        let body = serde_json::to_vec(&ask).map_err(unavailable)?;
        let (Endpoint::FunctionUrl(target) | Endpoint::Invoke(target)) = &self.endpoint;
        let response = self.aws.post(target, &[("content-type", "application/json")], body)?;
        let outcome = self.understand(&response);
        if let Err(AskError::Rejected { .. }) = outcome {
            self.aws.forget_credentials();
        }
        outcome
    }

    fn understand(&self, response: &Response) -> Result<Answer, AskError> {
        if response.status != 200 {
            return answer(response.status, &response.body);
        }
        match self.endpoint {
            Endpoint::FunctionUrl(_) => answer(response.status, &response.body),
            Endpoint::Invoke(_) if response.header("x-amz-function-error").is_some() => {
                Err(AskError::Unavailable("the function failed; its log says why".into()))
            }
            Endpoint::Invoke(_) => {
                let embedded: Embedded = serde_json::from_slice(&response.body).map_err(unavailable)?;
                answer(embedded.status_code, embedded.body.as_bytes())
            }
        }
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
    #[derive(Deserialize)]
    struct Refusal {
        error: Words,
    }
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { error: Words { message } }) => (true, message),
        Err(_) => (false, aws::message_of(body).unwrap_or_else(|| "no reason was given".to_owned())),
    }
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
    fn rest_is_optional_beside_the_wait() {
        let rest = |body| match answer(200, body) {
            Ok(Answer::Wait { ask_after, rest }) => Some((ask_after.as_millis(), rest.map(|rest| rest.as_millis()))),
            _ => None,
        };
        assert_eq!(rest(br#"{"wait_ms": 5}"#), Some((5, None)));
        assert_eq!(rest(br#"{"wait_ms": 5, "rest_ms": 90}"#), Some((5, Some(90))));
    }
}
