//! Bugs, put in to see that they are found.

use ecs_bridge_core::{Call, Decision, Input, LaunchAnswer, Record, State, Task, Timestamp, decide};

use crate::scenario::Scenario;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// RunTask is called first, and its submission recorded afterwards.
    RunTaskBeforeRecord,
    /// Records are written whatever `rev` has become.
    NoVersionCheck,
    /// An unanswered RunTask is repeated under a new client token.
    NewToken,
    /// A refused repeat is taken for proof that nothing was launched.
    RefusedRepeatIsProof,
    /// A launch deadline ends what was launched without an answer.
    UnansweredExpires,
    /// A new attempt keeps the version of the task before.
    VersionKept,
    /// A stop for an unknown id leaves nothing.
    StopForgotten,
    /// An event can change what is over.
    EndChanges,
    /// A container that stopped without an exit code counts as one that exited with 0.
    AbsentIsZero,
    /// RunTask is sent however long ago it was claimed.
    SentLate,
    /// An unanswered RunTask is repeated for longer than ECS keeps its token.
    RepeatedForTooLong,
    /// What failed to start is launched again without evidence that its container never ran.
    NoEvidence,
    /// A lost event is not made up for: nobody looks after a launched task.
    NobodyLooks,
    /// A live task of a submission that is over is left alone. One comes about by a RunTask that is sent late.
    OrphanLeft,
    /// A stop does not keep an unanswered RunTask from being repeated.
    StopIgnoredByRepeat,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::RunTaskBeforeRecord,
        Self::NoVersionCheck,
        Self::NewToken,
        Self::RefusedRepeatIsProof,
        Self::UnansweredExpires,
        Self::VersionKept,
        Self::StopForgotten,
        Self::EndChanges,
        Self::AbsentIsZero,
        Self::SentLate,
        Self::RepeatedForTooLong,
        Self::NoEvidence,
        Self::NobodyLooks,
        Self::OrphanLeft,
        Self::StopIgnoredByRepeat,
    ];
}

impl Scenario {
    /// The real decision, with the bug around it if it is one of deciding.
    pub(crate) fn decide(&self, record: &Record, input: &Input, now: Timestamp) -> Decision {
        let mut rules = Self::rules();
        let mut record = record.clone();
        let mut input = input.clone();
        match self.mutation {
            Some(Mutation::RefusedRepeatIsProof) => {
                if let Input::Launch(call, LaunchAnswer::RefusedForNow(_) | LaunchAnswer::RefusedForGood(_)) =
                    &mut input
                    && record.launch_calls == call.nth
                {
                    (record.launch_calls, *call) = (1, Call { nth: 1, ..*call });
                }
            }
            Some(Mutation::UnansweredExpires) => {
                let overdue = record.state == State::Launching && record.is_past_deadline(now);
                if overdue && input == Input::Due {
                    record.state = State::Queued;
                }
            }
            Some(Mutation::EndChanges) => {
                if record.state.is_terminal() && matches!(input, Input::Seen(_)) {
                    (record.state, record.check_at) = (State::Running, Some(now));
                }
            }
            Some(Mutation::AbsentIsZero) => {
                if let Input::Seen(task) = &mut input
                    && task.is_stopped()
                {
                    task.containers.iter_mut().for_each(|container| _ = container.exit_code.get_or_insert(0));
                }
            }
            Some(Mutation::RepeatedForTooLong) => {
                rules.timers.repeat_for *= 3;
                // So that it takes few repeats to come there.
                rules.timers.lease *= 3;
            }
            Some(Mutation::NoEvidence) => {
                if let Input::Seen(task) = &mut input
                    && failed_to_start(task)
                {
                    record.seen_running = false;
                    let unproven = task.containers.iter_mut().filter(|container| container.reason.is_none());
                    unproven.for_each(|container| container.reason = Some("CannotStartContainerError".to_owned()));
                }
            }
            Some(Mutation::StopIgnoredByRepeat) => {
                if record.state == State::Launching && input == Input::Due {
                    record.stop_requested = None;
                }
            }
            _ => {}
        }
        let mut decision = decide(&record, &input, now, &rules);
        match self.mutation {
            Some(Mutation::VersionKept) => {
                if let Some(next) = decision.record.as_mut().filter(|next| next.attempt > record.attempt) {
                    next.ecs_version = match input {
                        Input::Seen(task) => Some(task.version),
                        _ => None,
                    };
                }
            }
            Some(Mutation::NobodyLooks) if input == Input::Due && record.state == State::Launched => {
                decision.action = None;
            }
            Some(Mutation::OrphanLeft) if record.state.is_terminal() => decision.action = None,
            _ => {}
        }
        decision
    }
}

fn failed_to_start(task: &Task) -> bool {
    task.is_stopped() && task.stop_code.as_deref() == Some("TaskFailedToStart")
}
