//! The states of a submission, and which may follow which.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a submission stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Recorded; RunTask is to be called (first, again after a refusal for now, or for the next attempt).
    Queued,
    /// A RunTask call was claimed, and its outcome is not known yet.
    Launching,
    /// ECS has a task for the current attempt.
    Launched,
    /// The task or its named container was seen RUNNING.
    Running,
    /// The named container exited with 0.
    Succeeded,
    /// It ran, or may have run, and did not succeed; also when all attempts are used up.
    Failed,
    /// Never started: ECS refused it for good.
    Rejected,
    /// Never started: its launch deadline passed.
    Expired,
    /// A stop was asked for, and it did not succeed all the same.
    Cancelled,
    /// ECS no longer knows of a task, and no exit code was ever seen.
    Lost,
}

impl State {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Launching,
        Self::Launched,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
        Self::Lost,
    ];

    /// As the table and the API spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Launching => "launching",
            Self::Launched => "launched",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// Whether it is an end. An end never changes.
    pub const fn is_terminal(self) -> bool {
        self.successors().is_empty()
    }

    /// Returns `next`, the state after this one; the same state is no change.
    ///
    /// # Errors
    /// If `next` is none of the [successors](Self::successors).
    pub fn change_to(self, next: Self) -> Result<Self, IllegalChange> {
        let is_legal = self == next || self.successors().contains(&next);
        if is_legal { Ok(next) } else { Err(IllegalChange { from: self, to: next }) }
    }

    /// The states that may follow this one; the whole table of changes.
    pub const fn successors(self) -> &'static [Self] {
        use State::*;
        match self {
            Queued => &[Launching, Launched, Running, Succeeded, Failed, Rejected, Expired, Cancelled],
            Launching => &[Queued, Launched, Running, Succeeded, Failed, Rejected, Cancelled, Lost],
            Launched => &[Queued, Running, Succeeded, Failed, Cancelled, Lost],
            Running => &[Queued, Succeeded, Failed, Cancelled, Lost],
            Succeeded | Failed | Rejected | Expired | Cancelled | Lost => &[],
        }
    }
}

/// A change of state that the table of changes does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a submission cannot change from {from} to {to}")]
pub struct IllegalChange {
    /// The state of the record.
    pub from: State,
    /// The state that was to follow.
    pub to: State,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_states_are_terminal() {
        let ends: Vec<_> = State::ALL.into_iter().filter(|state| state.is_terminal()).map(State::as_str).collect();
        assert_eq!(ends, ["succeeded", "failed", "rejected", "expired", "cancelled", "lost"]);
    }

    #[test]
    fn change_to_state_outside_table_names_both() {
        assert_eq!(State::Running.change_to(State::Running), Ok(State::Running));
        assert_eq!(State::Running.change_to(State::Failed), Ok(State::Failed));
        let error = State::Succeeded.change_to(State::Queued).unwrap_err();
        assert_eq!(error.to_string(), "a submission cannot change from succeeded to queued");
    }

    #[test]
    fn a_state_is_spelt_the_same_in_json() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }
}
