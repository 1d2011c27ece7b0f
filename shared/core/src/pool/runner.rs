//! Runners: their part of a row, their secrets and their processes.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::{Pool, PoolKey};
use crate::{id::SubmissionId, rules::Timers, time::Timestamp};

/// The prefix of runner IDs. Callers may not use it.
pub const RUNNER_PREFIX: &str = "runner-";

/// The random ID of a process of the runner program. The process creates it when it starts, so a restarted container has
/// another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(String);

/// A text that is not a valid [`Incarnation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incarnation must be 8 to 64 characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidIncarnation;

impl TryFrom<String> for Incarnation {
    type Error = InvalidIncarnation;

    fn try_from(text: String) -> Result<Self, InvalidIncarnation> {
        let is_valid = (8..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if is_valid { Ok(Self(text)) } else { Err(InvalidIncarnation) }
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0
    }
}

/// A runner's token, as its row holds it: the SHA-256, in base64url, of the 256 random bits that its container received
/// through RunTask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Hashes a token. Only hashes are compared, so the time of a comparison reveals nothing.
    pub fn of(token: &str) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token)))
    }
}

/// A process of a runner, which has claimed a submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The runner.
    pub runner_id: SubmissionId,
    /// The process.
    pub incarnation: Incarnation,
}

/// The part of a row that only pooled submissions have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pooled {
    /// The pool key of its profile at the time of submission.
    pub key: PoolKey,
    /// The process that has claimed it. Set once per attempt, by the write after which the command may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Process>,
}

/// The part of a row that only runners have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Runner {
    /// The pool key for which it was created.
    pub key: PoolKey,
    /// The hash of its token.
    pub token: TokenHash,
    /// The number of commands that it runs before it ends.
    pub commands: u32,
    /// The time in milliseconds after which it polls again if there is no command.
    pub interval_ms: u32,
    /// The process that polled first. Any other process is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The submission that it is claiming or has claimed. This is a hint, and the submission's own row decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<SubmissionId>,
    /// The number of its commands that have ended.
    #[serde(default)]
    pub served: u32,
    /// It gets no more work.
    #[serde(default)]
    pub closing: bool,
    /// The time of its last poll, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_at: Option<Timestamp>,
    /// The time since which it has been idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
}

impl Runner {
    /// Creates a runner that is not launched yet.
    pub fn new(key: PoolKey, token: TokenHash, pool: &Pool) -> Self {
        Self {
            key,
            token,
            commands: pool.commands_per_container,
            interval_ms: pool.poll_interval_ms,
            incarnation: None,
            serves: None,
            served: 0,
            closing: false,
            polled_at: None,
            idle_since: None,
        }
    }
}

/// Returns true if an ID is that of a runner.
pub fn is_runner(id: &SubmissionId) -> bool {
    id.as_str().starts_with(RUNNER_PREFIX)
}

/// The phase of a runner, according to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not launched, or has not polled yet.
    Starting,
    /// It serves no submission and has polled recently.
    Idle,
    /// It serves a submission.
    Busy,
    /// It gets no more work, or has stopped polling.
    Closing,
}

impl Runner {
    /// Returns the phase of a runner that has not ended.
    pub fn phase(&self, now: Timestamp, timers: &Timers) -> Phase {
        // The time `polled_at` is updated every third of `silent_after`.
        let counts_for = timers.silent_after * 2 / 3;
        match (&self.serves, self.polled_at) {
            _ if self.closing => Phase::Closing,
            (Some(_), _) => Phase::Busy,
            (None, None) => Phase::Starting,
            (None, Some(polled_at)) if now.since(polled_at) <= counts_for => Phase::Idle,
            (None, Some(_)) => Phase::Closing,
        }
    }
}
