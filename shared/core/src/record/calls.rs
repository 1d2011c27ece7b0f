//! The RunTask calls of one launch, from the first claim until ECS answers.

use serde::{Deserialize, Serialize};

use crate::{id::AttemptNumber, time::Timestamp};

/// The claimed RunTask calls of a launch, and the lookups that follow if none is answered. All are unset as soon as an
/// answer arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchCalls {
    /// The time at which the first call was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_since: Option<Timestamp>,
    /// The number of claimed calls.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub launch_calls: u32,
    /// The time at which the last call was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_call_at: Option<Timestamp>,
    /// The number of counted lookups by `startedBy` that found no task.
    #[serde(default, skip_serializing_if = "super::is_unset")]
    pub lookups: u32,
    /// The time at which the last of them began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_up_at: Option<Timestamp>,
}

/// One claimed RunTask call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The attempt that the call launches.
    pub attempt: AttemptNumber,
    /// The capacity option: 0 is the profile's own `run_task`, n is its n-th fallback.
    #[serde(default)]
    pub choice: u8,
    /// The time at which the first call of this launch was claimed. Together with `nth` it identifies the call.
    pub since: Timestamp,
    /// The number of the call in this launch; the first call is 1.
    pub nth: u32,
    /// The time at which this call was claimed. It is sent soon after, or never.
    pub claimed_at: Timestamp,
}
