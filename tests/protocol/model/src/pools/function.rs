//! The functions at work in the world of pools, and what each does next.

use std::sync::Arc;

use ecs_bridge_core::{AttemptNumber, Input, Record, SubmissionId, Task};

/// A version of a row.
pub(super) type Row = Arc<Record>;

/// A function at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Function {
    /// runner-api, which handles one poll.
    RunnerApi(Poll, PollStep),
    /// The function has read a row, and writes the decision on an input. If the row has changed, it decides on the newer version.
    Apply { row: usize, read: Row, input: Input },
    /// The function has read a runner's row and seen its task. `is_reported`: the served submission has been updated.
    Seen { runner: usize, read: Row, task: Task, is_reported: bool },
    /// The function performs the action that its write of a row requires.
    Act { row: usize, action: EcsAction },
}

/// An action that follows a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum EcsAction {
    /// Describes the runner's task.
    Describe,
    /// Closes the runner if it serves this submission.
    Close { describes: bool },
    /// Calls StopTask.
    StopTask { runner: usize, describes: bool },
}

/// A poll of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Poll {
    pub(super) runner: usize,
    pub(super) incarnation: u8,
    pub(super) stopping: bool,
    /// A command that has exited, and its exit code.
    pub(super) done: Option<(usize, i32)>,
    /// The program still waits for the response.
    pub(super) is_awaited: bool,
}

/// The next step of runner-api. The last number counts the claims that were begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PollStep {
    /// runner-api has read the runner's row, and records the result of a command.
    RecordResult(Row),
    /// Records the contact.
    RecordContact(Row),
    /// Chooses a command by the runner's row.
    Choose(Row, u8),
    /// Records in the runner's row that it serves this submission, whose row was read before.
    RecordServes(Row, usize, Row, u8),
    /// Claims the submission.
    Claim(Row, usize, Row, u8),
    /// Removes the submission from the runner's row.
    ClearServes(Row, SubmissionId, bool, u8),
    /// Reads the runner's row again.
    Reread(u8),
    /// Responds.
    Respond(Reply),
}

/// The response to a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Run(usize, AttemptNumber),
    Wait,
    Close,
    Conflict,
}
