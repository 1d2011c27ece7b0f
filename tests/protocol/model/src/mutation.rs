//! Seeded bugs, to show that the model finds them.

use ecs_bridge_core::{
    Action, Call, Decision, Input, LaunchAnswer, LaunchBlocker, Record, State, Task, Timestamp, decide,
};

use crate::scenario::Scenario;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// RunTask is called before its submission is recorded.
    RunTaskBeforeRecord,
    /// Records are written without the condition on `rev`.
    NoVersionCheck,
    /// An unanswered RunTask is repeated under a new client token.
    NewToken,
    /// A refused repeat counts as proof that nothing was launched.
    RefusedRepeatIsProof,
    /// A launch deadline ends an unanswered launch as `expired`.
    UnansweredExpires,
    /// A new attempt keeps the version of the previous task.
    VersionKept,
    /// A stop for an unknown id leaves no record.
    StopForgotten,
    /// An event can change a terminal record.
    EndChanges,
    /// A container that stopped without an exit code counts as one that exited with 0.
    AbsentIsZero,
    /// RunTask is sent however old its claim is.
    SentLate,
    /// An unanswered RunTask is repeated for longer than ECS keeps its token.
    RepeatedForTooLong,
    /// A task that failed to start is launched again without evidence that its container never ran.
    NoEvidence,
    /// A launched task is never described, so that a lost event goes unnoticed.
    NobodyLooks,
    /// A live task of an ended submission is not stopped. A RunTask that is sent late launches one.
    OrphanLeft,
    /// An unanswered RunTask is repeated despite a stop.
    StopIgnoredByRepeat,
    /// A lookup or a description that ECS refuses is ignored.
    RefusedLookupForgotten,
    /// A fallback follows a call that was not answered.
    FallbackAfterNoAnswer,
    /// Where a host reports that a task has stopped, ECS is not asked once more before the next attempt.
    NotAskedAgain,
    /// The pending notifications are dropped with the claim to deliver them.
    ForgottenAtTheClaim,
    /// A notification without an answer counts as delivered.
    UnansweredIsNotified,
    /// A notification is sent without a claim: others find it due at the same time.
    NotifiedWithoutAClaim,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 21] = [
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
        Self::RefusedLookupForgotten,
        Self::FallbackAfterNoAnswer,
        Self::NotAskedAgain,
        Self::ForgottenAtTheClaim,
        Self::UnansweredIsNotified,
        Self::NotifiedWithoutAClaim,
    ];
}

impl Scenario {
    /// The real decision, changed by the seeded bug if that is one of decisions.
    pub(crate) fn decide(&self, record: &Record, input: &Input, now: Timestamp) -> Decision {
        let mut rules = Self::rules();
        let Some(mutation) = self.mutation else { return decide(record, input, now, &rules) };
        let (mut record, mut input) = (record.clone(), input.clone());
        match mutation {
            Mutation::RefusedRepeatIsProof => {
                if let Input::Launch(call, LaunchAnswer::RefusedForNow(..) | LaunchAnswer::RefusedForGood(_)) =
                    &mut input
                    && record.launch_calls == call.nth
                {
                    (record.launch_calls, *call) = (1, Call { nth: 1, ..*call });
                }
            }
            Mutation::UnansweredExpires if input == Input::Due && record.is_past_deadline(now) => {
                if record.state == State::Launching {
                    record.state = State::Queued;
                }
            }
            Mutation::EndChanges if record.state.is_terminal() && matches!(input, Input::Seen(_)) => {
                (record.state, record.check_at) = (State::Running, Some(now));
            }
            Mutation::AbsentIsZero => {
                if let Some(task) = stopped_task(&mut input) {
                    task.containers.iter_mut().for_each(|container| _ = container.exit_code.get_or_insert(0));
                }
            }
            Mutation::RepeatedForTooLong => {
                rules.timers.repeat_for *= 3;
                // So that few repeats are enough.
                rules.timers.lease *= 3;
            }
            Mutation::NoEvidence => {
                if let Some(task) = stopped_task(&mut input) {
                    record.seen_running = false;
                    let unproven = task.containers.iter_mut().filter(|container| container.reason.is_none());
                    unproven.for_each(|container| container.reason = Some("CannotStartContainerError".to_owned()));
                }
            }
            Mutation::RefusedLookupForgotten => {
                if matches!(input, Input::LookupFailed { .. }) {
                    return Decision::default();
                }
            }
            Mutation::FallbackAfterNoAnswer => {
                if let Input::Launch(_, answer @ LaunchAnswer::Unanswered(_)) = &mut input {
                    *answer = LaunchAnswer::RefusedForNow(LaunchBlocker::Capacity, "timeout".to_owned());
                }
            }
            Mutation::NotAskedAgain => {
                if let Some(task) = stopped_task(&mut input) {
                    task.runs_on = Some("FARGATE".to_owned());
                }
            }
            Mutation::StopIgnoredByRepeat if input == Input::Due && record.state == State::Launching => {
                record.stop_requested = None;
            }
            Mutation::UnansweredIsNotified => {
                if let Input::Delivered(delivery) = &mut input {
                    delivery.event_bus = true;
                }
            }
            Mutation::ForgottenAtTheClaim
            | Mutation::NotifiedWithoutAClaim
            | Mutation::RunTaskBeforeRecord
            | Mutation::NoVersionCheck
            | Mutation::NewToken
            | Mutation::UnansweredExpires
            | Mutation::VersionKept
            | Mutation::StopForgotten
            | Mutation::EndChanges
            | Mutation::SentLate
            | Mutation::NobodyLooks
            | Mutation::OrphanLeft
            | Mutation::StopIgnoredByRepeat => {}
        }
        let mut decision = decide(&record, &input, now, &rules);
        let looks = input == Input::Due && record.state == State::Launched;
        let forgets_its_action = mutation == Mutation::NobodyLooks && looks
            || mutation == Mutation::OrphanLeft && record.state.is_terminal();
        if forgets_its_action {
            decision.action = None;
        }
        if let (Mutation::VersionKept, Input::Seen(task), Some(next)) = (mutation, &input, &mut decision.record)
            && next.attempt > record.attempt
        {
            next.ecs_version = task.version;
        }
        if let (Some(next), Some(Action::Notify(_))) = (&mut decision.record, &decision.action) {
            match mutation {
                Mutation::ForgottenAtTheClaim => {
                    (next.pending_notifications, next.due, next.check_at) = (None, None, None)
                }
                Mutation::NotifiedWithoutAClaim => next.check_at = Some(now),
                _ => {}
            }
        }
        decision
    }
}

fn stopped_task(input: &mut Input) -> Option<&mut Task> {
    match input {
        Input::Seen(task) if task.is_stopped() => Some(task),
        Input::Seen(_)
        | Input::Due
        | Input::Launch(..)
        | Input::NotFound(..)
        | Input::LookupFailed { .. }
        | Input::Missing { .. }
        | Input::Stop(_)
        | Input::Pool(_)
        | Input::Resubmitted(_)
        | Input::Delivered(_)
        | Input::NoCapacity
        | Input::LaunchBy(_) => None,
    }
}
