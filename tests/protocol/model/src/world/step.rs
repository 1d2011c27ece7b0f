//! The steps of the world, and the outcomes of calls.

use crate::ecs::Change;

/// A step of the world. Indexes refer to the lists of the state before the step. `stalls`: the function reads and decides,
/// and writes later or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the comment of the enum explains the fields")]
pub enum Step {
    /// Ends the steps of a submission in this tick. After the last submission, time passes.
    Wait,
    /// An outage of ECS and EventBridge begins. It does not end.
    Outage,
    /// The caller submits. A launch token is available or not.
    Submit { submission: usize, token: bool },
    /// The caller submits the same submission again.
    Resubmit { submission: usize },
    /// The caller requests a stop.
    Stop { submission: usize, stalls: bool },
    /// reconcile handles a record that is due.
    Reconcile { submission: usize, stalls: bool },
    /// The profile has no capacity, so the submission waits.
    NoCapacity { submission: usize },
    /// reconcile launches a submission that waits for capacity or is due, by this capacity option.
    LaunchBy { submission: usize, choice: u8, stalls: bool },
    /// An event reaches task-state. It can arrive `again`, or without a valid version.
    Deliver { submission: usize, event: usize, again: bool, stalls: bool, versioned: bool },
    /// An event is delayed or lost.
    Delay { submission: usize, event: usize },
    /// A task changes.
    Task { submission: usize, task: usize, change: Change },
    /// A function performs its action.
    Act { submission: usize, process: usize, outcome: Outcome },
    /// A function decides on the outcome of its call.
    Decide { submission: usize, process: usize, stalls: bool },
    /// A function writes an earlier decision.
    Write { submission: usize, process: usize },
    /// A function stalls or dies.
    Pause { submission: usize, process: usize },
}

/// The outcome of a call to ECS or to the event bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The call succeeds.
    Answered,
    /// ECS returns a failure because capacity is unavailable.
    NoCapacity {
        /// ECS launched a task all the same.
        launched: bool,
    },
    /// ECS refuses the call.
    Refused {
        /// The refusal is permanent. Otherwise, it is retryable.
        permanent: bool,
    },
    /// No response arrives.
    Unanswered {
        /// The call took effect.
        arrived: bool,
    },
    /// ECS does not return a new task yet.
    Stale,
    /// Access is denied.
    Denied,
}
