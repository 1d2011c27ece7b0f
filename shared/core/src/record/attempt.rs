//! The current attempt of a submission: the attributes that a next attempt starts without.

use serde::{Deserialize, Serialize};

use crate::{id::AttemptNumber, record::LaunchCalls, time::Timestamp};

/// The current attempt. The row holds its attributes beside those of the submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number; the first attempt is 1.
    #[serde(rename = "attempt")]
    pub number: AttemptNumber,
    /// The capacity option that launches it: 0 is the profile's own `run_task`, n is its n-th fallback.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub fallback: u8,
    /// The RunTask calls that ECS has not answered yet.
    #[serde(flatten)]
    pub calls: LaunchCalls,
    /// The number of retryable failures of its launch, not counting those that led to the next capacity option.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub refusals: u32,
    /// The time since which ECS has denied access to RunTask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_since: Option<Timestamp>,
    /// ECS rejected a request of this attempt in `failures[]`, and other capacity options are tried. AWS does not promise
    /// that nothing was launched, and the other requests have other client tokens.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub was_refused: bool,
    /// The time since which ECS has had no capacity. It is kept until the task runs, because a capacity provider may give
    /// up after the launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_capacity_since: Option<Timestamp>,
    /// The bridge's explanation of the state, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// The ARN of its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// The task's version in the last accepted event or description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_version: Option<u64>,
    /// The task's `lastStatus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<String>,
    /// The task's `desiredStatus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_status: Option<String>,
    /// The task's capacity provider, or its launch type if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_on: Option<String>,
    /// The task's CPU units; 1,024 units are one vCPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// The task's memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// A likely cause of the container's end, without proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// The exit code of the named container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The task's `stopCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<String>,
    /// The task's `stoppedReason`, shortened and redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    /// The task or its container was reported as RUNNING.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub seen_running: bool,
    /// An event reported the end of the task. ECS is queried again before the next attempt.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub asked_again: bool,
    /// The time since which ECS has failed to describe the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup_failed_since: Option<Timestamp>,
    /// The number of counted MISSING responses in a row.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub missing_count: u32,
    /// The time of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_at: Option<Timestamp>,

    /// The time at which the bridge first knew that ECS has a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
    /// The task's `startedAt`, or the time at which it was first reported as RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The time at which the named container ended, as precisely as ECS reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_exited_at: Option<Timestamp>,
    /// The task's `stoppedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
}

/// A likely cause of a container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// Out of memory: ECS reports `OutOfMemoryError`, or the container was killed and nothing else explains that.
    OutOfMemory,
}

impl Attempt {
    /// Creates an attempt that is launched through this capacity option, with every other attribute unset.
    pub(crate) fn new(number: AttemptNumber, choice: u8) -> Self {
        Self {
            number,
            fallback: choice,
            calls: LaunchCalls::default(),
            refusals: 0,
            denied_since: None,
            was_refused: false,
            no_capacity_since: None,
            reason: None,
            task_arn: None,
            ecs_version: None,
            last_status: None,
            desired_status: None,
            runs_on: None,
            cpu: None,
            memory: None,
            hint: None,
            exit_code: None,
            stop_code: None,
            stopped_reason: None,
            seen_running: false,
            asked_again: false,
            lookup_failed_since: None,
            missing_count: 0,
            missing_at: None,
            launched_at: None,
            started_at: None,
            container_exited_at: None,
            stopped_at: None,
        }
    }

    /// Clears the attributes that matter only until the launch succeeds.
    pub(crate) fn clear_refusals(&mut self) {
        (self.refusals, self.denied_since, self.was_refused) = (0, None, false);
    }

    /// Clears the attributes that count failed descriptions of the task.
    pub(crate) fn clear_failed_lookups(&mut self) {
        (self.missing_count, self.missing_at, self.lookup_failed_since) = (0, None, None);
    }
}
