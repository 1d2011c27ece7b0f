//! The real decision, changed by the seeded bug of a scenario.

use ecs_bridge_core::{
    Action, Call, Decision, Input, LaunchAnswer, LaunchBlocker, Record, State, Task, Timestamp, decide,
};

use crate::{
    mutation::{Mutation, in_state},
    scenario::Scenario,
};

impl Scenario {
    /// Returns the real decision, changed by the seeded bug if the bug concerns decisions.
    pub(super) fn decide(&self, record: &Record, input: &Input, now: Timestamp) -> Decision {
        let mut rules = Self::rules();
        let Some(mutation) = self.mutation else { return decide(record, input, now, &rules) };
        let (mut record, mut input) = (record.clone(), input.clone());
        match mutation {
            Mutation::RefusedRepeatIsProof => {
                if let Input::Launch(call, LaunchAnswer::RefusedForNow(..) | LaunchAnswer::RefusedForGood(_)) =
                    &mut input
                    && record.attempt.calls.launch_calls == call.nth
                {
                    (record.attempt.calls.launch_calls, *call) = (1, Call { nth: 1, ..*call });
                }
            }
            Mutation::UnansweredExpires if input == Input::Due && record.is_past_deadline(now) => {
                if record.state() == State::Launching {
                    record.change_to(State::Queued).unwrap_or_else(|_| unreachable!());
                }
            }
            Mutation::TerminalStateChanges if record.state().is_terminal() && matches!(input, Input::Seen(_)) => {
                record = in_state(&record, State::Running);
                record.check_at = Some(now);
            }
            Mutation::AbsentExitCodeIsZero => {
                if let Some(task) = stopped_task(&mut input) {
                    task.containers.iter_mut().for_each(|container| _ = container.exit_code.get_or_insert(0));
                }
            }
            Mutation::RepeatedForTooLong => {
                rules.timers.repeat_for *= 3;
                // With a longer lease, fewer repeats are needed.
                rules.timers.lease *= 3;
            }
            Mutation::RelaunchWithoutEvidence => {
                if let Some(task) = stopped_task(&mut input) {
                    record.attempt.seen_running = false;
                    let unproven = task.containers.iter_mut().filter(|container| container.reason.is_none());
                    unproven.for_each(|container| container.reason = Some("CannotStartContainerError".to_owned()));
                }
            }
            Mutation::FailedLookupIgnored => {
                if matches!(input, Input::LookupFailed { .. }) {
                    return Decision::default();
                }
            }
            Mutation::FallbackAfterNoAnswer => {
                if let Input::Launch(_, answer @ LaunchAnswer::Unanswered(_)) = &mut input {
                    *answer = LaunchAnswer::RefusedForNow(LaunchBlocker::Capacity, "timeout".to_owned());
                }
            }
            Mutation::StopNotConfirmed => {
                if let Some(task) = stopped_task(&mut input) {
                    task.runs_on = Some("FARGATE".to_owned());
                }
            }
            Mutation::StopIgnoredByRepeat if input == Input::Due && record.state() == State::Launching => {
                record.stop_requested = None;
            }
            Mutation::UnansweredCountsAsDelivered => {
                if let Input::Delivered(delivery) = &mut input {
                    delivery.event_bus = true;
                }
            }
            Mutation::NotificationsDroppedAtClaim
            | Mutation::NotifiedWithoutClaim
            | Mutation::RunTaskBeforeRecord
            | Mutation::NoVersionCheck
            | Mutation::NewToken
            | Mutation::UnansweredExpires
            | Mutation::VersionNotReset
            | Mutation::StopOfUnknownIgnored
            | Mutation::TerminalStateChanges
            | Mutation::SentLate
            | Mutation::NeverDescribed
            | Mutation::OrphanTaskKept
            | Mutation::StopIgnoredByRepeat => {}
        }
        let mut decision = decide(&record, &input, now, &rules);
        let describes = input == Input::Due && record.state() == State::Launched;
        let drops_action = mutation == Mutation::NeverDescribed && describes
            || mutation == Mutation::OrphanTaskKept && record.state().is_terminal();
        if drops_action {
            decision.action = None;
        }
        if let (Mutation::VersionNotReset, Input::Seen(task), Some(next)) = (mutation, &input, &mut decision.record)
            && next.attempt.number > record.attempt.number
        {
            next.attempt.ecs_version = task.version;
        }
        if let (Some(next), Some(Action::Notify(_))) = (&mut decision.record, &decision.action) {
            match mutation {
                Mutation::NotificationsDroppedAtClaim => {
                    (next.pending_notifications, next.due, next.check_at) = (None, None, None)
                }
                Mutation::NotifiedWithoutClaim => next.check_at = Some(now),
                _ => {}
            }
        }
        decision
    }

    /// Returns true if RunTask is sent for this call, because its claim is recent enough.
    pub(super) fn is_sent(&self, call: Call, now: u8) -> bool {
        Self::at(now).since(call.claimed_at) <= Self::rules().timers.send_within
            || matches!(self.mutation, Some(Mutation::SentLate | Mutation::OrphanTaskKept))
    }

    /// Returns the client token of a call, as a number. Without a bug, it depends on the capacity option alone.
    pub(super) fn token(&self, call: Call) -> u32 {
        const CALLS: u32 = 1_000;
        CALLS * u32::from(call.choice) + if self.has(Mutation::NewToken) { call.nth } else { 1 }
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
