//! Runners: their part of a row, their secrets and their processes.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::{Pool, PoolKey};
use crate::{id::SubmissionId, rules::Timers, time::Timestamp};

/// What the ids of runners begin with. Callers may not use it.
pub const RUNNER_PREFIX: &str = "runner-";

/// One process of the runner program: random, made as it starts. A container that is restarted has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(String);

/// Why a text is no [`Incarnation`].
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

/// A runner's secret, as its row keeps it: base64url of the SHA-256 of the 256 random bits that RunTask gave to its
/// container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token. Hashes are compared, never tokens, so that the time of a comparison reveals nothing.
    pub fn of(token: &str) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token)))
    }
}

/// A process of a runner: who took a submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The runner.
    pub runner_id: SubmissionId,
    /// The process.
    pub incarnation: Incarnation,
}

/// A pooled submission's part of its row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pooled {
    /// The key that was in force when it was submitted.
    pub key: PoolKey,
    /// Which process took it; set once per attempt, by the one write that lets the command start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Process>,
}

/// A runner's part of its row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Runner {
    /// The key that was in force when it was made.
    pub key: PoolKey,
    /// SHA-256 of its token.
    pub token: TokenHash,
    /// How many commands it runs before it ends.
    pub commands: u32,
    /// Milliseconds after which it asks again where there is nothing to do.
    pub interval_ms: u32,
    /// The process that asked first; any other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The submission that it takes, or has taken. A hint: the submission's own row decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<SubmissionId>,
    /// How many of its commands are over.
    #[serde(default)]
    pub served: u32,
    /// It gets no more work.
    #[serde(default)]
    pub closing: bool,
    /// When it last asked for work, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_at: Option<Timestamp>,
    /// Since when it has had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
}

impl Runner {
    /// A runner that has not been launched.
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

/// Whether an id is a runner's.
pub fn is_runner(id: &SubmissionId) -> bool {
    id.as_str().starts_with(RUNNER_PREFIX)
}

/// A runner, by its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not launched, or has not asked for work yet.
    Starting,
    /// It serves nothing, and asked lately.
    Idle,
    /// It serves a submission.
    Busy,
    /// It gets no more work, or has stopped asking.
    Closing,
}

impl Runner {
    /// The runner of a row, if it has not ended.
    pub fn phase(&self, now: Timestamp, timers: &Timers) -> Phase {
        // `polled_at` is noted every third of `silent_after`.
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
