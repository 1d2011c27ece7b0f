//! The runner API's client: one signed call, and the meaning of each response.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::aws::{self, Aws, CallError, Response, Target};

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// The timeout of a call. It is shorter than the 30 s that ECS gives a container by default between SIGTERM and
/// SIGKILL. A runner that is stopped while it waits for a response can thus still report it.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The address of the runner API.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The function URL, with the path.
    FunctionUrl(Target),
    /// Lambda's Invoke API. The payload is the same JSON, and the result is the response of the function URL:
    /// `{"statusCode", "body"}`.
    Invoke(Target),
}

/// The request.
#[derive(Clone, Copy, Serialize)]
struct Poll<'a> {
    runner_id: &'a str,
    token: &'a str,
    incarnation: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'a Completion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rung_for: Option<&'a str>,
}

/// The completion of a command.
#[derive(Clone, Debug, Serialize)]
pub struct Completion {
    /// The submission.
    pub submission_id: String,
    /// The exit code as a shell reports it: 128 plus the signal's number after a signal, 126 or 127 if the command
    /// could not be started.
    pub exit_code: i32,
}

/// A command to run. It may hold secrets, so it has no `Debug`.
#[derive(Deserialize)]
pub struct Run {
    /// The submission.
    pub submission_id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Overrides for the container's environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// An environment variable in ECS's format.
#[derive(Deserialize, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The instruction of the runner API.
#[derive(Deserialize)]
#[serde(try_from = "Body")]
pub enum Instruction {
    /// Run this command.
    Run(Run),
    /// No command: poll again after `poll_after`.
    Wait {
        /// The wait if nothing else announces a new submission.
        poll_after: Duration,
        /// The wait of a runner with a doorbell, if no submission is waiting. It polls again when the doorbell rings,
        /// or after this time.
        rest: Option<Duration>,
    },
    /// Exit.
    Close,
}

#[derive(Deserialize)]
struct Body {
    run: Option<Run>,
    wait_ms: Option<u64>,
    rest_ms: Option<u64>,
    close: Option<bool>,
}

impl TryFrom<Body> for Instruction {
    type Error = &'static str;

    fn try_from(body: Body) -> Result<Self, Self::Error> {
        match (body.run, body.wait_ms, body.close) {
            (Some(run), None, None) => Ok(Self::Run(run)),
            (None, Some(wait), None) => {
                let rest = body.rest_ms.map(Duration::from_millis);
                Ok(Self::Wait { poll_after: Duration::from_millis(wait), rest })
            }
            (None, None, Some(true)) => Ok(Self::Close),
            _ => Err("expected one of run, wait_ms, close"),
        }
    }
}

/// The cause of a missing or unusable response.
#[derive(Debug, Error)]
pub enum PollError {
    /// The runner API rejects this runner permanently.
    #[error("the runner API rejected this runner: {0}; the log of the function runner-api has the event")]
    RunnerRejected(String),
    /// Another process polled as this runner before. Permanent.
    #[error(
        "another process already runs as this runner: {0}; start the program once per container, without a restart policy"
    )]
    OtherIncarnation(String),
    /// Lambda or the function rejects the call because of permissions, address or signature.
    #[error(
        "the call to the runner API was rejected with {status}: {message}; attach the policy RunnerPolicyArn of the stack to \
         the task role"
    )]
    CallRejected {
        /// The HTTP status.
        status: u16,
        /// AWS's message.
        message: String,
    },
    /// AWS rejects signatures made with this clock. Later calls are signed with AWS's time.
    #[error("{0}")]
    ClockSkew(CallError),
    /// The credentials endpoint returned no credentials.
    #[error("{0}")]
    Credentials(CallError),
    /// The call was throttled, failed, timed out or could not connect, or its response was unexpected.
    #[error("cannot reach the runner API: {0}")]
    Unavailable(#[source] Boxed),
}

impl From<CallError> for PollError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::ClockSkew { .. } => Self::ClockSkew(error),
            CallError::Credentials(_) => Self::Credentials(error),
            CallError::Unavailable(source) => Self::Unavailable(source),
        }
    }
}

/// The runner API, for one runner.
pub struct RunnerApi {
    endpoint: Endpoint,
    runner_id: String,
    token: String,
    incarnation: String,
    aws: Aws,
}

impl RunnerApi {
    /// Creates a client for the runner `runner_id`.
    pub fn new(endpoint: Endpoint, runner_id: String, token: String, aws: Aws) -> Self {
        Self { endpoint, runner_id, token, incarnation: uuid::Uuid::new_v4().to_string(), aws }
    }

    /// Polls for a command, and reports the completion of a command or of this runner. `rung_for` is the submission
    /// that the doorbell announced.
    ///
    /// # Errors
    /// If there is no usable response. The call may still have had its effect.
    pub fn poll(
        &mut self,
        done: Option<&Completion>,
        stopping: bool,
        rung_for: Option<&str>,
    ) -> Result<Instruction, PollError> {
        let Self { runner_id, token, incarnation, .. } = self;
        let request = Poll { runner_id, token, incarnation, stopping, done, rung_for };
        let body = serde_json::to_vec(&request).map_err(unavailable)?;
        let (Endpoint::FunctionUrl(target) | Endpoint::Invoke(target)) = &self.endpoint;
        let response = self.aws.post(target, &[("content-type", "application/json")], body)?;
        let outcome = self.interpret(&response);
        if let Err(PollError::CallRejected { .. }) = outcome {
            self.aws.forget_credentials();
        }
        outcome
    }

    fn interpret(&self, response: &Response) -> Result<Instruction, PollError> {
        if response.status != 200 {
            return interpret(response.status, &response.body);
        }
        match self.endpoint {
            Endpoint::FunctionUrl(_) => interpret(response.status, &response.body),
            Endpoint::Invoke(_) if response.header("x-amz-function-error").is_some() => {
                Err(PollError::Unavailable("the function runner-api failed; see its log".into()))
            }
            Endpoint::Invoke(_) => {
                let embedded: Embedded = serde_json::from_slice(&response.body).map_err(unavailable)?;
                interpret(embedded.status_code, embedded.body.as_bytes())
            }
        }
    }
}

/// A response of the function inside a response of Lambda.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Embedded {
    status_code: u16,
    #[serde(default)]
    body: String,
}

/// Interprets a response of the function or of Lambda.
fn interpret(status: u16, body: &[u8]) -> Result<Instruction, PollError> {
    if status == 200 {
        return serde_json::from_slice(body).map_err(unavailable);
    }
    let (own, message) = message_of(body);
    Err(match status {
        // Lambda has its own 403 and 409, which can be temporary.
        403 if own => PollError::RunnerRejected(message),
        409 if own => PollError::OtherIncarnation(message),
        408 | 409 | 429 | 500.. => PollError::Unavailable(format!("{status}: {message}").into()),
        _ => PollError::CallRejected { status, message },
    })
}

/// Returns the message of a rejection, and `true` if the function itself sent it: `{"error": {"message"}}`.
fn message_of(body: &[u8]) -> (bool, String) {
    #[derive(Deserialize)]
    struct Rejection {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Rejection { error: Error { message } }) => (true, message),
        Err(_) => (false, aws::message_of(body).unwrap_or_else(|| "no message".to_owned())),
    }
}

fn unavailable(error: impl Into<Boxed>) -> PollError {
    PollError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejection_is_final_only_from_the_function() {
        let own = br#"{"error": {"code": "forbidden", "message": "another task"}, "request_id": "r"}"#;
        assert!(matches!(interpret(403, own), Err(PollError::RunnerRejected(message)) if message == "another task"));
        assert!(matches!(interpret(409, own), Err(PollError::OtherIncarnation(_))));
        let lambdas = br#"{"Message": "Forbidden"}"#;
        assert!(matches!(interpret(403, lambdas), Err(PollError::CallRejected { status: 403, .. })));
        assert!(matches!(interpret(409, lambdas), Err(PollError::Unavailable(_))));
    }

    #[test]
    fn contradictory_response_is_not_used() {
        assert!(matches!(interpret(200, br#"{"wait_ms": 5, "close": true}"#), Err(PollError::Unavailable(_))));
        assert!(matches!(interpret(200, br#"{"close": false}"#), Err(PollError::Unavailable(_))));
        assert!(matches!(interpret(200, br#"{"close": true, "new": 1}"#), Ok(Instruction::Close)));
    }

    #[test]
    fn wait_response_may_omit_rest() {
        let rest = |body| match interpret(200, body) {
            Ok(Instruction::Wait { poll_after, rest }) => {
                Some((poll_after.as_millis(), rest.map(|rest| rest.as_millis())))
            }
            _ => None,
        };
        assert_eq!(rest(br#"{"wait_ms": 5}"#), Some((5, None)));
        assert_eq!(rest(br#"{"wait_ms": 5, "rest_ms": 90}"#), Some((5, Some(90))));
    }
}
