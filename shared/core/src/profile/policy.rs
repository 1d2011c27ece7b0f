//! A profile's policy: what is retried, and what ends a submission.

use serde::{Deserialize, Serialize};

use crate::id::AttemptNumber;

/// What is retried, and what ends a submission. Each record keeps the policy that it was accepted with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// The number of attempts of a submission, the first included.
    pub max_attempts: AttemptNumber,
    /// After what a container that may have run is launched again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relaunch_on: Vec<Relaunch>,
    /// The number of fallbacks: the choices of a launch are 0, the profile's own `run_task`, and 1 to this.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fallbacks: u8,
    /// What ends a submission.
    #[serde(default, skip_serializing_if = "CompleteOn::is_default")]
    pub complete_on: CompleteOn,
    /// The seconds from launched to running after which the task is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_timeout: Option<u32>,
    /// The seconds from running to the end after which the task is stopped.
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
    /// Whether it equals the default, so that the row can omit it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A stop code after which a container that may have run is launched again. In JSON just the code where the rest is as by
/// default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "RelaunchForm", into = "RelaunchForm")]
pub struct Relaunch {
    /// The task's `stopCode`.
    pub stop_code: String,
    /// The choice that the next attempt, and any after it, begins with; none leaves it as it is.
    pub fallback: Option<u8>,
    /// Whether the next attempt counts towards `max_attempts`; by default it does.
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
    /// The end of the task: for containers with a restart policy, which may exit more than once.
    TaskStopped,
}

impl CompleteOn {
    /// Whether it equals the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
