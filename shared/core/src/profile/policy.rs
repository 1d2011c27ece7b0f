//! A profile's policy: what is retried, and what ends a submission.

use serde::{Deserialize, Serialize};

use crate::id::AttemptNumber;

/// What is retried, and what ends a submission. Each record keeps the policy at its acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// The maximum number of attempts of a submission, including the first.
    pub max_attempts: AttemptNumber,
    /// The stop codes after which a container that may have run is launched again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relaunch_on: Vec<Relaunch>,
    /// The number of fallbacks. The capacity options of a launch are 0, the profile's own `run_task`, and 1 to this number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fallbacks: u8,
    /// What ends a submission.
    #[serde(default, skip_serializing_if = "CompleteOn::is_default")]
    pub complete_on: CompleteOn,
    /// The time in seconds from launch to RUNNING after which the task is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_timeout: Option<u32>,
    /// The time in seconds in RUNNING after which the task is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: AttemptNumber::FIRST.next().and_then(AttemptNumber::next).unwrap_or(AttemptNumber::FIRST),
            relaunch_on: Vec::new(),
            fallbacks: 0,
            complete_on: CompleteOn::ContainerExit,
            launch_timeout: None,
            run_timeout: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Policy {
    /// Returns true if it equals the default, so that the row omits it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A stop code after which a container that may have run is launched again. In JSON it is only the code if the other
/// members have their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "RelaunchForm", into = "RelaunchForm")]
pub struct Relaunch {
    /// The task's `stopCode`.
    pub stop_code: String,
    /// The first capacity option of the next attempts. None leaves it unchanged.
    pub fallback: Option<u8>,
    /// True if the next attempt counts towards `max_attempts`, which is the default.
    pub counts: bool,
}

impl From<&str> for Relaunch {
    fn from(stop_code: &str) -> Self {
        Self { stop_code: stop_code.to_owned(), fallback: None, counts: true }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum RelaunchForm {
    Code(String),
    Full(RelaunchFields),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelaunchFields {
    stop_code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback: Option<u8>,
    #[serde(default = "yes", rename = "counts_as_attempt", skip_serializing_if = "is_true")]
    counts: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

impl From<RelaunchForm> for Relaunch {
    fn from(form: RelaunchForm) -> Self {
        match form {
            RelaunchForm::Code(stop_code) => Self { stop_code, fallback: None, counts: true },
            RelaunchForm::Full(RelaunchFields { stop_code, fallback, counts }) => Self { stop_code, fallback, counts },
        }
    }
}

impl From<Relaunch> for RelaunchForm {
    fn from(Relaunch { stop_code, fallback, counts }: Relaunch) -> Self {
        if fallback.is_none() && counts {
            return Self::Code(stop_code);
        }
        Self::Full(RelaunchFields { stop_code, fallback, counts })
    }
}

/// What ends a submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompleteOn {
    /// The exit of the named container, even if its task is not STOPPED yet.
    #[default]
    ContainerExit,
    /// The end of the task. For containers with a restart policy, which may exit more than once.
    TaskStopped,
}

impl CompleteOn {
    /// Returns true if it equals the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
