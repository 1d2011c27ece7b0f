//! Tests each promise of a single decision.

mod table;

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    pool::{RunnerStatus, Served},
    *,
};
use crate::{
    id::{PlacementHash, ProfileName},
    notify::TaskToken,
    pool::{Pool, PoolKey, Process, Runner, TokenHash},
    priority::Priority,
    profile::{CompleteOn, Policy, Relaunch},
    record::{ATTEMPTS_KEPT, ContentHash, Hint, RECORD_BYTES, REPEAT, StopCause, Submission},
    run_task::FrozenRequest,
    task::{
        Container,
        tests::{container, task},
    },
};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

pub(crate) fn rules() -> Rules {
    Rules {
        deployment: "prod".parse().unwrap(),
        retention: Duration::from_secs(30 * 86_400),
        timers: Timers::default(),
    }
}

pub(crate) fn submission(id: &str) -> Submission {
    let profile = ProfileName::default_profile();
    Submission {
        submission_id: id.parse().unwrap(),
        content_hash: ContentHash::of(&["true".to_owned()], &serde_json::json!({}), &profile),
        placement: None,
        profile,
        container_name: "main".to_owned(),
        cluster: "nightly".to_owned(),
        policy: Policy::default(),
        request: FrozenRequest::freeze(&[serde_json::Map::new()]),
        labels: BTreeMap::new(),
        launch_deadline: None,
        priority: Priority::default(),
        pool: None,
        notify: Default::default(),
    }
}

/// One submission, its clock, and the last decision.
struct Life {
    record: Record,
    now: Timestamp,
    action: Option<Action>,
    alarm: Option<Alarm>,
    wrote: bool,
}

impl Life {
    fn queued() -> Self {
        Self::of(Record::queued(submission("a"), now(), &rules()))
    }

    /// Creates a submission with its first call claimed.
    fn launching() -> (Self, Call) {
        Self::launching_with(Policy::default())
    }

    fn launching_with(policy: Policy) -> (Self, Call) {
        let (record, call) = Record::launching(Submission { policy, ..submission("a") }, now(), &rules());
        (Self::of(record), call.unwrap())
    }

    /// Creates a submission whose task is known from RunTask's response.
    fn launched(policy: Policy) -> Self {
        let (mut life, call) = Self::launching_with(policy);
        life.learn(Input::Launch(call, live_task()));
        life
    }

    fn of(record: Record) -> Self {
        Self { record, now: now(), action: None, alarm: None, wrote: true }
    }

    fn learn(&mut self, input: Input) -> State {
        let Decision { record, action, alarm } = decide(&self.record, &input, self.now, &rules());
        self.wrote = record.is_some();
        if let Some(record) = record {
            assert_eq!(record.rev, self.record.rev + 1);
            assert!(
                record.state() == self.record.state() || self.record.state().successors().contains(&record.state())
            );
            self.record = record;
        }
        (self.action, self.alarm) = (action, alarm);
        self.record.state()
    }

    fn see(&mut self, task: Task) -> State {
        self.learn(Input::Seen(task))
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        self.now = self.now.plus(time);
        self
    }

    /// Waits until the record is due, and applies the timer.
    fn due(&mut self) -> State {
        self.now = self.now.max(self.record.check_at.unwrap());
        self.learn(Input::Due)
    }

    fn call(&self) -> Call {
        match self.action {
            Some(Action::RunTask(call)) => call,
            ref other => panic!("{other:?} is no RunTask"),
        }
    }

    fn stops(&self) -> bool {
        matches!(self.action, Some(Action::Stop { .. }))
    }
}

fn live_task() -> LaunchAnswer {
    LaunchAnswer::Task { arn: task("PENDING").arn, live: true }
}

fn unanswered() -> LaunchAnswer {
    LaunchAnswer::Unanswered("timeout".to_owned())
}

fn refused() -> LaunchAnswer {
    LaunchAnswer::RefusedForNow(LaunchBlocker::Capacity, "RESOURCE:CPU".to_owned())
}

fn at(version: u64, last_status: &str, containers: Vec<Container>) -> Task {
    Task { version: Some(version), containers, ..task(last_status) }
}

#[test]
fn the_timers_are_those_of_the_rules() {
    let mut life = Life::launched(Policy::default());
    life.now = life.record.check_at.unwrap();
    let halved = Rules { timers: Timers::default().scaled(2.0), ..rules() };
    let quick = decide(&life.record, &Input::Due, life.now, &halved).record.unwrap();
    life.learn(Input::Due);
    let wait = |record: &Record| record.check_at.unwrap().since(life.now);
    assert_eq!(wait(&quick) * 2, wait(&life.record));
}

fn running(version: u64) -> Task {
    at(version, "RUNNING", vec![container("RUNNING", None)])
}

fn exited(version: u64, code: i32) -> Task {
    at(version, "DEPROVISIONING", vec![container("STOPPED", Some(code))])
}

fn stopped(version: u64, stop_code: &str, containers: Vec<Container>) -> Task {
    Task {
        stop_code: Some(stop_code.to_owned()),
        desired_status: "STOPPED".to_owned(),
        ..at(version, "STOPPED", containers)
    }
}

fn never_started(version: u64) -> Task {
    let reason = Some("CannotPullContainerError: no such image".to_owned());
    stopped(version, "TaskFailedToStart", vec![Container { reason, ..container("STOPPED", None) }])
}

fn policy(relaunch_on: &[&str]) -> Policy {
    Policy { relaunch_on: relaunch_on.iter().map(|code| Relaunch::from(*code)).collect(), ..Policy::default() }
}

// The following tests cover launches.

#[test]
fn submission_without_faults_succeeds() {
    let (mut life, call) = Life::launching();
    assert_eq!(life.learn(Input::Launch(call, live_task())), State::Launched);
    assert_eq!(life.see(running(3)), State::Running);
    assert_eq!(life.see(exited(4, 0)), State::Succeeded);
    assert_eq!((life.record.attempt.exit_code, life.record.feed.as_deref()), (Some(0), Some("prod")));
    assert!(life.record.check_at.is_none() && life.record.due.is_none() && life.record.request.is_none());
    assert_eq!(life.see(stopped(5, "EssentialContainerExited", vec![container("STOPPED", Some(0))])), State::Succeeded);
    assert_eq!(life.record.attempt.stop_code.as_deref(), Some("EssentialContainerExited"));
}

#[test]
fn an_event_may_come_before_run_tasks_answer() {
    let (mut life, call) = Life::launching();
    assert_eq!(life.see(running(3)), State::Running);
    assert_eq!(life.learn(Input::Launch(call, live_task())), State::Running);
    assert!(!life.wrote, "the answer brings nothing new");
    assert_eq!(life.see(exited(4, 7)), State::Failed);
    assert_eq!(life.learn(Input::Launch(call, live_task())), State::Failed);
    assert!(!life.wrote && life.action.is_none());
}

#[test]
fn retryable_failure_requeues_without_using_attempt() {
    let (mut life, call) = Life::launching();
    assert_eq!(life.learn(Input::Launch(call, refused())), State::Queued);
    assert_eq!(
        (
            life.record.attempt.number,
            life.record.attempt.calls.unanswered_since,
            life.record.attempt.calls.launch_calls
        ),
        (AttemptNumber::FIRST, None, 0)
    );
    let first = life.record.check_at.unwrap().since(life.now);
    assert_eq!(life.due(), State::Launching);
    life.learn(Input::Launch(life.call(), refused()));
    assert!(life.record.check_at.unwrap().since(life.now) > first, "the next wait is longer");
    assert_eq!(life.due(), State::Launching);
    assert_eq!(life.learn(Input::Launch(life.call(), live_task())), State::Launched);
    assert_eq!(life.record.attempt.reason, None);
}

#[test]
fn queued_submission_waits_apart_from_timers() {
    let mut life = Life::queued();
    assert_eq!(life.record.due.as_deref(), Some("queued"));
    life.due();
    assert_ne!(life.record.due.as_deref(), Some("queued"));
    life.learn(Input::Launch(life.call(), refused()));
    assert_eq!(life.record.due.as_deref(), Some(REPEAT), "apart from the head starts of new submissions");
    life.see(running(2));
    assert_ne!(life.record.due.as_deref(), Some(REPEAT));
}

#[test]
fn permanent_failure_rejects_with_reason() {
    let (mut life, call) = Life::launching();
    let reason = "access denied: ecs:RunTask".to_owned();
    assert_eq!(life.learn(Input::Launch(call, LaunchAnswer::RefusedForGood(reason.clone()))), State::Rejected);
    assert_eq!(life.record.attempt.reason, Some(reason));
}

#[test]
fn unanswered_call_is_repeated_for_same_attempt() {
    let (mut life, call) = Life::launching();
    assert_eq!(life.learn(Input::Launch(call, unanswered())), State::Launching);
    assert_eq!(life.due(), State::Launching);
    let repeat = life.call();
    assert_eq!((repeat.attempt, repeat.since, repeat.nth), (call.attempt, call.since, 2));
    assert!(repeat.claimed_at > call.claimed_at);
}

#[test]
fn a_refused_repeat_proves_nothing() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Launch(call, unanswered()));
    life.due();
    let repeat = life.call();
    assert_eq!(life.learn(Input::Launch(repeat, refused())), State::Launching);
    assert_eq!(life.learn(Input::Launch(repeat, LaunchAnswer::RefusedForGood("no".into()))), State::Launching);
}

#[test]
fn the_first_calls_refusal_is_void_once_a_repeat_was_claimed() {
    let (mut life, call) = Life::launching();
    life.due();
    assert_eq!(life.action, None, "it is moved to where launch tokens are, first");
    life.due();
    assert_eq!(life.call().nth, 2);
    assert_eq!(life.learn(Input::Launch(call, refused())), State::Launching);
    assert!(!life.wrote);
}

#[test]
fn a_repeat_waits_for_a_launch_token_apart_from_stops_and_checks() {
    let (mut life, call) = Life::launching();
    let shard = life.record.due.clone();
    life.learn(Input::Launch(call, unanswered()));
    assert_eq!(life.record.due.as_deref(), Some(REPEAT));
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!(life.record.due, shard, "a stop is never repeated: it is looked up");
}

#[test]
fn unrepeatable_launch_is_looked_up_without_token() {
    for launch_deadline in [None, Some(now().plus(MINUTE))] {
        let submission = Submission { launch_deadline, ..submission("a") };
        let (record, call) = Record::launching(submission, now(), &rules());
        let shard = record.due.clone();
        let mut life = Life::of(record);
        life.learn(Input::Launch(call.unwrap(), unanswered()));
        assert_eq!(life.record.due.as_deref(), Some(REPEAT));
        // Other submissions used the launch tokens for that long.
        life.wait(51 * MINUTE).due();
        assert_eq!((life.action.clone(), &life.record.due), (Some(Action::LookUp(AttemptNumber::FIRST)), &shard));
    }
}

// The following tests cover capacity.

#[test]
fn submission_without_capacity_waits_until_deadline() {
    let deadline = now().plus(7 * MINUTE);
    let mut life =
        Life::of(Record::queued(Submission { launch_deadline: Some(deadline), ..submission("a") }, now(), &rules()));
    assert_eq!(life.learn(Input::NoCapacity), State::Queued);
    assert!(life.record.waits_for_capacity());
    assert_eq!(life.record.attempt.reason.as_deref(), Some("ECS has no capacity for profile default"));
    life.wait(MINUTE).learn(Input::NoCapacity);
    assert!(!life.wrote, "it waits already");
    // Its position follows from its priority, and it stays there until its deadline.
    life.now = life.record.check_at.unwrap();
    assert_eq!((life.learn(Input::NoCapacity), life.wrote), (State::Queued, true));
    assert_eq!((life.due(), life.action.clone()), (State::Expired, None));
    assert_eq!(life.now.since(deadline), Duration::from_millis(1));
}

#[test]
fn waiting_submission_without_deadline_is_checked_hourly() {
    let mut life = Life::of(Record::waiting(submission("a"), now(), &rules()));
    for _ in 0..3 {
        let since = life.now;
        life.now = life.record.check_at.unwrap();
        let place = 60 * MINUTE - Priority::default().head_start(&rules().timers);
        assert_eq!((life.learn(Input::NoCapacity), life.now.since(since).as_secs()), (State::Queued, place.as_secs()));
        assert!(life.wrote);
    }
}

#[test]
fn submission_without_deadline_expires_after_a_day_without_capacity() {
    let mut life = Life::of(Record::waiting(submission("a"), now(), &rules()));
    while life.learn(Input::NoCapacity) == State::Queued {
        life.now = life.record.check_at.unwrap();
    }
    assert_eq!((life.record.state(), life.now.since(now()) >= 24 * 60 * MINUTE), (State::Expired, true));
    let reason = life.record.attempt.reason.unwrap();
    assert!(
        reason.starts_with("ECS had no capacity for it for a day; before that: ECS has no capacity for"),
        "{reason}"
    );
}

#[test]
fn day_without_capacity_begins_with_the_first_refusal_and_ends_with_a_launch() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Launch(call, refused()));
    let since = life.record.attempt.no_capacity_since;
    assert_eq!(since, Some(life.now));
    life.wait(MINUTE).due();
    let call = life.call();
    life.learn(Input::Launch(call, refused()));
    assert_eq!(life.record.attempt.no_capacity_since, since, "it has lacked capacity since then");
    life.wait(MINUTE).due();
    let call = life.call();
    life.learn(Input::Launch(call, live_task()));
    assert_eq!(
        (life.record.state(), life.record.attempt.no_capacity_since),
        (State::Launched, since),
        "it may still be given up"
    );
    life.see(running(2));
    assert_eq!(life.record.attempt.no_capacity_since, None);

    let (mut late, call) = Life::launching();
    late.learn(Input::Launch(call, refused()));
    late.now = late.now.plus(rules().timers.no_capacity_for);
    assert_eq!((late.due(), late.action.clone()), (State::Expired, None));
}

#[test]
fn submissions_wait_for_capacity_by_what_they_ask_for_and_begin_with() {
    let lane = |record: &Record| record.due.clone().unwrap();
    let plain = Record::waiting(submission("a"), now(), &rules());
    assert_eq!(lane(&plain), "waiting/default");
    let placement = PlacementHash::of(&json!({"overrides": {"memory": "120000"}}));
    let large = Record::waiting(Submission { placement: placement.clone(), ..submission("a") }, now(), &rules());
    assert_eq!(lane(&large), format!("waiting/default@{}", placement.unwrap()));
    assert!(large.attempt.reason.unwrap().ends_with("with the overrides of this submission"));

    let on_demand = Relaunch { fallback: Some(1), ..Relaunch::from("SpotInterruption") };
    let mut life = Life::launched(Policy { relaunch_on: vec![on_demand], ..with_fallbacks(1) });
    life.see(running(2));
    life.see(stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))]));
    life.wait(MINUTE).learn(Input::NoCapacity);
    assert_eq!(lane(&life.record), "waiting/default/1", "it cannot take the first choice");
}

#[test]
fn task_that_ecs_refused_to_launch_is_adopted_with_an_alarm() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Launch(call, refused()));
    assert_eq!(life.see(running(2)), State::Running);
    assert_eq!(life.alarm, Some(Alarm::RefusedTask));
    let (mut life, call) = Life::launching_with(with_fallbacks(1));
    life.learn(Input::Launch(call, refused()));
    assert!(life.record.attempt.was_refused, "another choice has another client token");
    life.due();
    let call = life.call();
    life.learn(Input::Launch(call, live_task()));
    assert!(!life.record.attempt.was_refused);
}

#[test]
fn end_of_a_refused_task_proves_nothing_of_the_next_call() {
    let (mut life, call) = Life::launching_with(with_fallbacks(1));
    life.learn(Input::Launch(call, refused()));
    life.due();
    let call = life.call();
    assert_eq!(life.see(never_started(3)), State::Launching);
    assert!(!life.wrote, "the call by the other choice may launch a task");
    life.learn(Input::Launch(call, live_task()));
    assert_eq!((life.record.state(), life.record.attempt.number), (State::Launched, AttemptNumber::FIRST));
}

#[test]
fn a_next_attempt_does_not_wait_for_capacity_as_the_one_before_did() {
    let waiting = Submission { policy: policy(&["SpotInterruption"]), ..submission("a") };
    let mut life = Life::of(Record::waiting(waiting, now(), &rules()));
    assert_eq!(life.see(stopped(2, "SpotInterruption", vec![])), State::Queued);
    assert_eq!((life.record.attempt.number.get(), life.record.due.as_deref()), (2, Some(REPEAT)));
}

#[test]
fn launch_by_option_precedes_timer_of_waiting_submission() {
    let mut life = Life::of(Record::waiting(submission("a"), now(), &rules()));
    assert_eq!(life.wait(MINUTE).learn(Input::LaunchBy(0)), State::Launching);
    let call = life.call();
    assert_eq!((call.nth, call.claimed_at), (1, life.now));
    life.learn(Input::LaunchBy(0));
    assert_eq!((life.wrote, life.action.clone()), (false, None), "another has its turn");
    assert_eq!(life.learn(Input::Launch(call, refused())), State::Queued);
    life.learn(Input::LaunchBy(0));
    assert!(!life.wrote, "it was refused, and waits for its backoff");
    assert_eq!(life.due(), State::Launching);
}

#[test]
fn pooled_submission_does_not_wait_for_capacity() {
    let pooled = || Submission { pool: Some(key()), ..submission("a") };
    let queued = Record::queued(pooled(), now(), &rules());
    assert_eq!(Record::waiting(pooled(), now(), &rules()), queued);
    let mut life = Life::of(queued);
    life.learn(Input::NoCapacity);
    assert!(!life.wrote);
}

#[test]
fn stop_ends_submission_waiting_for_capacity() {
    let mut life = Life::of(Record::waiting(submission("a"), now(), &rules()));
    assert_eq!(life.learn(Input::Stop("enough".to_owned())), State::Cancelled);
    life.learn(Input::NoCapacity);
    assert!(!life.wrote);
}

#[test]
fn unanswered_launch_is_repeated_looked_up_then_lost() {
    let (mut life, call) = Life::launching();
    let mut last_call = call;
    while let Some(Action::RunTask(call)) = {
        life.due();
        life.action.clone()
    } {
        last_call = call;
        assert!(call.claimed_at < call.since.plus(50 * MINUTE));
        life.learn(Input::Launch(call, unanswered()));
    }
    let mut lookups = vec![];
    while life.record.state() == State::Launching {
        if life.action == Some(Action::LookUp(AttemptNumber::FIRST)) {
            lookups.push(life.now);
            if life.learn(Input::NotFound(AttemptNumber::FIRST, life.now)) == State::Lost {
                break;
            }
        }
        life.due();
    }
    assert_eq!(lookups.len(), 2);
    assert!(lookups[0] >= last_call.claimed_at.plus(5 * MINUTE) && lookups[1] >= lookups[0].plus(5 * MINUTE));
    assert_eq!(life.record.state(), State::Lost);
}

#[test]
fn a_lookup_too_soon_after_a_call_does_not_count() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Stop("no longer needed".into()));
    life.wait(MINUTE);
    life.learn(Input::NotFound(call.attempt, life.now));
    assert_eq!((life.record.state(), life.record.attempt.calls.lookups), (State::Launching, 0));
}

#[test]
fn an_unanswered_launch_never_expires() {
    let record = Submission { launch_deadline: Some(now().plus(MINUTE)), ..submission("a") };
    let (record, call) = Record::launching(record, now(), &rules());
    let mut life = Life::of(record);
    life.learn(Input::Launch(call.unwrap(), unanswered()));
    life.wait(2 * MINUTE);
    while life.record.state() == State::Launching {
        life.due();
        assert!(!matches!(life.action, Some(Action::RunTask(_))), "no call after the deadline");
        if let Some(Action::LookUp(attempt)) = life.action {
            life.learn(Input::NotFound(attempt, life.now));
        }
    }
    assert_eq!(life.record.state(), State::Lost);
}

#[test]
fn submission_past_deadline_expires_with_wait_reason() {
    let record = Submission { launch_deadline: Some(now().plus(MINUTE)), ..submission("a") };
    let (record, call) = Record::launching(record, now(), &rules());
    let mut life = Life::of(record);
    life.learn(Input::Launch(call.unwrap(), refused()));
    life.wait(2 * MINUTE);
    assert_eq!(life.due(), State::Expired);
    assert_eq!(life.record.attempt.reason.as_deref(), Some("the launch deadline passed; before that: RESOURCE:CPU"));
}

#[test]
fn a_claim_is_a_lease_so_that_a_second_reconcile_does_nothing() {
    let mut life = Life::queued();
    assert_eq!(life.due(), State::Launching);
    life.learn(Input::Due);
    assert!(!life.wrote && life.action.is_none());
    assert!(life.record.check_at.unwrap() >= life.now.plus(2 * MINUTE), "longer than a function runs");
}

#[test]
fn a_launch_leaves_the_timer_of_the_creating_claim_which_misses_nothing() {
    let (mut life, call) = Life::launching();
    let (timer, longest_call) = (life.record.check_at, MINUTE + Duration::from_secs(15));
    life.wait(longest_call).learn(Input::Launch(call, live_task()));
    assert_eq!((life.record.check_at, life.record.attempt.launched_at), (timer, Some(life.now)));
    assert_eq!((life.due(), life.action.is_some()), (State::Launched, true));
    life.learn(Input::Missing { task_arn: task("PENDING").arn, at: life.now, stop_sent: false });
    assert_eq!(life.record.attempt.missing_count, 1);
}

#[test]
fn a_launch_that_reconcile_claimed_is_checked_as_late_as_any() {
    let mut life = Life::queued();
    life.due();
    life.learn(Input::Launch(life.call(), live_task()));
    assert!(life.record.check_at.unwrap() > life.now.plus(10 * MINUTE));
}

#[test]
fn resubmission_is_due_after_lease_of_unanswered_launch() {
    let (mut life, call) = Life::launching();
    life.wait(MINUTE).learn(Input::Resubmitted(Notify::default()));
    assert_eq!(life.record.check_at, Some(call.claimed_at.plus(3 * MINUTE)));
    life.learn(Input::Resubmitted(Notify::default()));
    assert!(!life.wrote, "one notification");
    assert_eq!((life.due(), life.call().nth), (State::Launching, 2));
    life.learn(Input::Launch(life.call(), live_task()));
    life.learn(Input::Resubmitted(Notify::default()));
    assert!(!life.wrote, "it is answered");
}

// The following tests cover notifications.

fn token(text: &str) -> Option<TaskToken> {
    Some(text.to_owned().try_into().unwrap())
}

fn to_notify(task_token: Option<TaskToken>, event_bus: Option<&str>) -> Notify {
    Notify { task_token, event_bus: event_bus.map(str::to_owned) }
}

fn all_delivered(nth: u32) -> Input {
    Input::Delivered(Delivery { nth, event_bus: true, task_token: true, error: None })
}

/// Creates a submission that was stopped before its launch, with notification targets.
fn ended(notify: Notify) -> Life {
    let mut life = Life::of(Record::queued(Submission { notify, ..submission("a") }, now(), &rules()));
    life.learn(Input::Stop("enough".to_owned()));
    life
}

#[test]
fn final_write_claims_the_notification_and_a_second_one_disarms_the_timer() {
    let mut life = ended(to_notify(token("t"), Some("ends")));
    assert_eq!((life.record.state(), &life.action), (State::Cancelled, &Some(Action::Notify(1))));
    assert!(life.record.feed.is_some(), "who reads the feed does not wait for it");
    assert_eq!((life.record.check_at, life.record.expires_at), (Some(life.now.plus(3 * MINUTE)), NEVER));
    life.learn(all_delivered(1));
    assert!(life.record.is_settled() && life.record.check_at.is_none() && life.record.expires_at != NEVER);
    let notified = life.record.notified.as_ref().unwrap();
    assert_eq!((notified.event_bus_at, notified.task_token_at), (Some(life.now), Some(life.now)));
}

#[test]
fn notification_of_a_dead_process_is_repeated_after_its_claim() {
    let mut life = ended(to_notify(token("t"), None));
    assert_eq!((life.due(), &life.action), (State::Cancelled, &Some(Action::Notify(2))));
}

#[test]
fn notification_is_repeated_only_to_the_target_that_failed() {
    let mut life = ended(to_notify(token("t"), Some("ends")));
    let error = Some("AccessDeniedException".to_owned());
    life.learn(Input::Delivered(Delivery { nth: 1, event_bus: true, task_token: false, error }));
    let pending_notifications = life.record.pending_notifications.as_ref().unwrap();
    assert_eq!(
        (&pending_notifications.notify, pending_notifications.error.as_deref()),
        (&to_notify(token("t"), None), Some("AccessDeniedException"))
    );
    assert!(life.record.check_at < Some(life.now.plus(MINUTE)), "soon");
    life.due();
    assert_eq!(life.action, Some(Action::Notify(2)));
}

#[test]
fn notification_is_given_up_after_a_day_with_an_alarm() {
    let mut life = ended(to_notify(None, Some("gone")));
    let mut claims = 1;
    while life.alarm.is_none() {
        let error = Some("ResourceNotFoundException".to_owned());
        life.learn(Input::Delivered(Delivery { nth: claims, error, ..Delivery::default() }));
        claims += 1;
        life.due();
    }
    assert_eq!(life.alarm, Some(Alarm::NotificationsFailed));
    assert!(life.record.is_settled() && life.action.is_none());
    assert!(claims < 24 * 60 / 3 + 10, "{claims} times");
}

#[test]
fn restarted_state_machine_is_notified_by_its_new_token() {
    let mut life = Life::of(Record::queued(
        Submission { notify: to_notify(token("old"), None), ..submission("a") },
        now(),
        &rules(),
    ));
    life.learn(Input::Resubmitted(to_notify(token("new"), None)));
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!(life.record.pending_notifications.as_ref().unwrap().notify, to_notify(token("new"), None));
}

#[test]
fn late_token_is_notified_at_once() {
    let mut life = ended(to_notify(token("old"), Some("ends")));
    life.learn(all_delivered(1));
    life.learn(Input::Resubmitted(to_notify(token("new"), Some("ends"))));
    assert_eq!(
        (&life.action, life.record.pending_notifications.as_ref().unwrap().notify.event_bus.as_ref()),
        (&Some(Action::Notify(1)), None)
    );
    life.learn(all_delivered(1));
    assert!(life.record.is_settled());
}

#[test]
fn repeated_token_is_not_notified_again() {
    let mut life = ended(to_notify(token("t"), Some("ends")));
    life.learn(all_delivered(1));
    life.learn(Input::Resubmitted(to_notify(token("t"), Some("ends"))));
    assert!(!life.wrote && life.action.is_none());
}

#[test]
fn an_answer_for_an_old_token_does_not_count_for_the_new_one() {
    let mut life = ended(to_notify(token("old"), None));
    life.learn(Input::Resubmitted(to_notify(token("new"), None)));
    assert_eq!(life.action, Some(Action::Notify(2)));
    life.learn(all_delivered(1));
    assert_eq!(life.record.pending_notifications.as_ref().unwrap().notify, to_notify(token("new"), None));
}

#[test]
fn submission_stopped_before_launch_notifies_at_once() {
    let record = Record::tombstone("a".parse().unwrap(), "enough", now(), &rules());
    let mut life = Life::of(record);
    life.learn(Input::Resubmitted(to_notify(token("t"), None)));
    assert_eq!(life.action, Some(Action::Notify(1)));
}

#[test]
fn submission_created_as_expired_is_due_for_notification() {
    let deadline = Some(Timestamp::from_millis(now().millis() - 1));
    let late = Submission { launch_deadline: deadline, notify: to_notify(None, Some("ends")), ..submission("a") };
    let mut life = Life::of(Record::queued(late, now(), &rules()));
    assert_eq!((life.due(), &life.action), (State::Expired, &Some(Action::Notify(1))));
}

// The following tests cover events.

#[test]
fn an_older_version_after_a_newer_one_is_let_go_without_a_write() {
    let mut life = Life::launched(Policy::default());
    life.see(running(5));
    life.see(at(4, "PENDING", vec![]));
    assert!(!life.wrote);
    life.see(running(5));
    assert!(!life.wrote, "nor does a duplicate cost a write");
    let ends = Task { execution_stopped_at: Some(life.now), ..running(6) };
    life.see(ends.clone());
    life.see(ends);
    assert!(!life.wrote, "nor does one that brings times");
}

#[test]
fn an_event_of_an_earlier_attempt_does_not_touch_the_next() {
    let mut life = Life::launched(Policy::default());
    life.see(never_started(3));
    assert_eq!((life.record.state(), life.record.attempt.number.get()), (State::Queued, 2));
    life.see(exited(9, 0));
    assert!(!life.wrote);
}

#[test]
fn a_new_attempt_forgets_the_version_and_all_that_was_seen() {
    let mut life = Life::launched(Policy::default());
    life.see(never_started(30));
    let record = &life.record;
    assert_eq!(
        (record.attempt.ecs_version, &record.attempt.task_arn, &record.attempt.stop_code, &record.attempt.last_status),
        (None, &None, &None, &None)
    );
    assert_eq!(record.attempts, ["TaskFailedToStart: CannotPullContainerError: no such image"]);
    life.due();
    let next =
        Task { attempt: life.record.attempt.number, arn: "arn:aws:ecs:r:1:task/nightly/next".into(), ..running(2) };
    assert_eq!(life.see(next), State::Running);
}

#[test]
fn stopped_with_no_exit_code_is_failed() {
    for containers in [vec![container("STOPPED", None)], vec![]] {
        let mut life = Life::launched(Policy::default());
        assert_eq!(life.see(stopped(3, "EssentialContainerExited", containers)), State::Failed);
        assert_eq!(life.record.attempt.exit_code, None);
    }
}

#[test]
fn failed_to_start_with_exit_code_0_has_succeeded() {
    let mut life = Life::launched(Policy::default());
    assert_eq!(life.see(stopped(3, "TaskFailedToStart", vec![container("STOPPED", Some(0))])), State::Succeeded);
}

#[test]
fn failed_to_start_without_evidence_is_never_launched_again() {
    let mut life = Life::launched(Policy::default());
    assert_eq!(life.see(stopped(3, "TaskFailedToStart", vec![container("STOPPED", None)])), State::Failed);
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    assert_eq!(life.see(never_started(3)), State::Failed, "it was seen RUNNING");
}

#[test]
fn attempts_are_used_up() {
    let mut life = Life::launched(Policy::default());
    for _ in 1..3 {
        assert_eq!(life.see(Task { attempt: life.record.attempt.number, ..never_started(3) }), State::Queued);
        life.due();
        life.learn(Input::Launch(life.call(), live_task()));
    }
    assert_eq!(life.see(Task { attempt: life.record.attempt.number, ..never_started(3) }), State::Failed);
    assert_eq!((life.record.attempts.len(), life.record.attempt.number.get()), (2, 3));
}

fn given_up(life: &Life) -> Task {
    let words = Some("TaskFailedToStart: RESOURCE:GPU".to_owned());
    Task { attempt: life.record.attempt.number, stopped_reason: words, ..stopped(2, "TaskFailedToStart", vec![]) }
}

#[test]
fn start_failure_in_the_stopped_reason_leads_to_the_next_attempt() {
    let mut life = Life::launched(Policy::default());
    let words = "Timeout waiting for network interface provisioning to complete.";
    let ends = stopped(3, "TaskFailedToStart", vec![container("STOPPED", None)]);
    assert_eq!(life.see(Task { stopped_reason: Some(words.to_owned()), ..ends }), State::Queued);
    assert_eq!(life.record.attempts, [format!("TaskFailedToStart: {words}")]);
    assert_eq!((life.record.attempt.number.get(), life.record.given_up), (2, 0));
}

#[test]
fn start_failure_at_last_fails_with_its_cause() {
    let mut life = Life::launched(Policy { max_attempts: AttemptNumber::FIRST, ..Policy::default() });
    let words = Some("CannotPullContainerError: no such image".to_owned());
    let ends = stopped(3, "TaskFailedToStart", vec![container("STOPPED", None)]);
    assert_eq!(life.see(Task { stopped_reason: words, ..ends }), State::Failed);
    assert_eq!(
        life.record.attempt.reason.as_deref(),
        Some("TaskFailedToStart: CannotPullContainerError: no such image")
    );
}

#[test]
fn capacity_given_up_takes_the_next_option_at_once_and_waits_after_the_last() {
    let policy = Policy { max_attempts: AttemptNumber::FIRST, fallbacks: 1, ..Policy::default() };
    let mut life = Life::launched(policy);
    assert!(life.record.request.is_some(), "another attempt may follow");
    let token = life.record.started_by(&rules()).client_token(0);
    assert_eq!(life.see(given_up(&life)), State::Queued);
    assert_eq!((life.record.attempt.number.get(), life.record.attempt.fallback, life.record.given_up), (2, 1, 1));
    assert_eq!(life.record.attempt.reason.as_deref(), Some("TaskFailedToStart: RESOURCE:GPU"));
    assert_eq!(life.record.check_at, Some(life.now));
    life.learn(Input::Due);
    assert_eq!(life.call().choice, 1);
    assert_ne!(life.record.started_by(&rules()).client_token(0), token, "ECS would return the stopped task");
    life.learn(Input::Launch(life.call(), live_task()));
    assert_eq!(life.see(given_up(&life)), State::Queued);
    assert_eq!(
        (life.record.attempt.number.get(), life.record.attempt.fallback, life.record.attempt.refusals),
        (3, 0, 1)
    );
    assert!(life.record.check_at > Some(life.now));
    // An ordinary failed start uses up the only attempt of the policy.
    life.wait(MINUTE).due();
    life.learn(Input::Launch(life.call(), live_task()));
    assert_eq!(life.see(Task { attempt: life.record.attempt.number, ..never_started(3) }), State::Failed);
}

#[test]
fn capacity_given_up_for_a_day_uses_up_no_attempts_and_then_expires() {
    let mut life = Life::launched(Policy { max_attempts: AttemptNumber::FIRST, fallbacks: 2, ..Policy::default() });
    let began = life.now;
    while life.now.since(began) < Duration::from_secs(86_400) - 3 * MINUTE {
        // Fargate gives up within half a minute, and EC2 within 10 to 30.
        life.wait(Duration::from_secs(30));
        assert_eq!(life.see(given_up(&life)), State::Queued);
        life.now = life.now.max(life.record.check_at.unwrap());
        life.due();
        life.learn(Input::Launch(life.call(), live_task()));
    }
    assert_eq!(life.record.attempts.len(), ATTEMPTS_KEPT);
    assert!(life.record.attempt.number.get() > 1_000 && life.record.bytes() < RECORD_BYTES);
    let mut late = Life::of(life.record.clone());
    late.now = life.now.plus(5 * MINUTE);
    assert_eq!(late.see(Task { attempt: late.record.attempt.number, ..given_up(&late) }), State::Queued);
    late.now = late.now.max(late.record.check_at.unwrap());
    assert_eq!(late.due(), State::Expired);
    life.see(Task { attempt: life.record.attempt.number, ..running(1) });
    assert_eq!(life.see(Task { attempt: life.record.attempt.number, ..exited(2, 0) }), State::Succeeded);
}

#[test]
fn capacity_given_up_after_the_last_attempt_fails_with_the_reason() {
    let mut life = Life::launched(Policy::default());
    (life.record.attempt.number, life.record.given_up) = (AttemptNumber::LAST, AttemptNumber::LAST.get() - 1);
    assert_eq!(life.see(given_up(&life)), State::Failed);
    assert_eq!(life.record.attempt.reason.as_deref(), Some("TaskFailedToStart: RESOURCE:GPU"));
}

#[test]
fn capacity_given_up_ends_what_is_to_be_stopped_or_has_run() {
    let mut life = Life::launched(Policy::default());
    life.learn(Input::Stop("cleared".to_owned()));
    assert_eq!(life.see(given_up(&life)), State::Cancelled);
    let mut life = Life::launched(Policy::default());
    life.see(running(1));
    assert_eq!(life.see(given_up(&life)), State::Failed);
    let mut life = Life::launched(Policy { complete_on: CompleteOn::TaskStopped, ..Policy::default() });
    assert_eq!(life.see(given_up(&life)), State::Failed);
}

#[test]
fn container_killed_by_maintenance_has_no_hint_of_memory() {
    let maintenance = "ECS is performing maintenance on the underlying infrastructure hosting the task.";
    for (stop_code, stopped_reason, hint) in [
        (None, Some(maintenance), None),
        (Some("InfrastructureHealth"), None, None),
        (Some("ServiceSchedulerInitiated"), Some("Scaling activity"), None),
        (Some("SpotInterruption"), Some("Your Spot Task was interrupted."), None),
        (Some("EssentialContainerExited"), Some("Essential container in task exited"), Some(Hint::OutOfMemory)),
        (None, None, Some(Hint::OutOfMemory)),
    ] {
        let mut life = Life::launched(Policy::default());
        let (stop_code, stopped_reason) = (stop_code.map(str::to_owned), stopped_reason.map(str::to_owned));
        life.see(Task { stop_code, stopped_reason: stopped_reason.clone(), ..exited(4, 137) });
        assert_eq!((life.record.state(), life.record.attempt.hint), (State::Failed, hint), "{stopped_reason:?}");
    }
}

#[test]
fn unversioned_end_counts_and_ends_the_submission() {
    for before in [vec![], vec![running(5)]] {
        let mut life = Life::launched(Policy::default());
        for task in before {
            life.see(task);
        }
        assert_eq!(life.see(Task { version: None, ..exited(0, 7) }), State::Failed);
        assert_eq!(life.record.attempt.exit_code, Some(7));
    }
}

#[test]
fn unversioned_event_never_undoes_a_versioned_one() {
    let mut life = Life::launched(Policy::default());
    life.see(at(6, "DEPROVISIONING", vec![container("RUNNING", None)]));
    for earlier in ["PENDING", "RUNNING", "SOMETHING NEW"] {
        let task = Task { version: None, desired_status: "STOPPED".to_owned(), ..at(0, earlier, vec![]) };
        life.see(task);
        assert!(!life.wrote, "{earlier}");
    }
    assert_eq!(
        (life.record.attempt.ecs_version, life.record.attempt.last_status.as_deref()),
        (Some(6), Some("DEPROVISIONING"))
    );
}

#[test]
fn version_counts_again_once_its_status_is_no_earlier() {
    let mut life = Life::launched(Policy::default());
    life.see(running(3));
    let deactivating = at(0, "DEACTIVATING", vec![container("RUNNING", None)]);
    life.see(Task { version: None, ..deactivating.clone() });
    assert_eq!(
        (life.record.attempt.ecs_version, life.record.attempt.last_status.as_deref()),
        (None, Some("DEACTIVATING"))
    );
    life.see(Task { version: None, ..deactivating });
    assert!(!life.wrote, "a duplicate");
    life.see(running(4));
    assert!(!life.wrote, "it may be the older of the two");
    life.see(at(5, "DEPROVISIONING", vec![container("RUNNING", None)]));
    assert_eq!(life.record.attempt.ecs_version, Some(5));
    life.see(running(4));
    assert!(!life.wrote);
}

#[test]
fn unversioned_description_confirms_an_end_and_cannot_refute_it() {
    let ends = on_ec2(stopped(4, "InfrastructureHealth", vec![container("STOPPED", None)]));
    let mut life = Life::launched(policy(&["InfrastructureHealth"]));
    life.see(on_ec2(running(2)));
    life.see(ends.clone());
    assert!(life.record.attempt.asked_again);
    life.see(Task { at: None, version: None, ..on_ec2(running(0)) });
    assert!(life.record.attempt.asked_again && !life.wrote);
    assert_eq!(life.see(Task { at: None, version: None, ..ends }), State::Queued);
}

#[test]
fn task_without_a_cluster_counts() {
    let mut life = Life::launched(Policy::default());
    assert_eq!(life.see(Task { cluster_arn: String::new(), ..exited(4, 0) }), State::Succeeded);
}

#[test]
fn a_spot_notice_ends_nothing() {
    let mut life = Life::launched(Policy::default());
    let notice = Task { stop_code: Some("SpotInterruption".into()), desired_status: "STOPPED".into(), ..running(3) };
    assert_eq!(life.see(notice), State::Running);
    assert_eq!(life.see(exited(4, 0)), State::Succeeded);
}

#[test]
fn success_after_interruption_has_reason() {
    let mut life = Life::launched(Policy::default());
    life.see(Task { stop_code: Some("SpotInterruption".into()), desired_status: "STOPPED".into(), ..running(3) });
    assert_eq!(life.see(exited(4, 0)), State::Succeeded);
    assert_eq!(life.record.attempt.reason.as_deref(), Some("SpotInterruption with exit code 0"));
}

#[test]
fn success_without_interruption_has_no_reason() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    let ends = Task { stop_code: Some("EssentialContainerExited".into()), ..exited(3, 0) };
    assert_eq!(life.see(ends), State::Succeeded);
    assert_eq!(life.record.attempt.reason, None);
}

#[test]
fn success_of_later_attempt_has_reason() {
    let mut life = Life::launched(policy(&["SpotInterruption"]));
    life.see(running(2));
    life.see(stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))]));
    life.wait(MINUTE);
    life.due();
    life.learn(Input::Launch(life.call(), live_task()));
    assert_eq!(life.see(Task { attempt: life.record.attempt.number, ..exited(3, 0) }), State::Succeeded);
    assert_eq!(life.record.attempt.reason.as_deref(), Some("succeeded in attempt 2"));
}

#[test]
fn spot_interruption_relaunches_after_task_stops() {
    let mut life = Life::launched(policy(&["SpotInterruption"]));
    life.see(running(2));
    assert!(life.record.request.is_some(), "the request is still needed");
    let ends = Task { stop_code: Some("SpotInterruption".into()), ..exited(3, 143) };
    assert_eq!(life.see(ends), State::Running);
    assert_eq!(life.see(stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))])), State::Queued);
    assert_eq!((life.record.ran_before, life.record.attempt.exit_code), (true, None));
    assert_eq!(life.record.attempts, ["SpotInterruption with exit code 143"]);
}

fn with_fallbacks(fallbacks: u8) -> Policy {
    Policy { fallbacks, ..Policy::default() }
}

#[test]
fn fallbacks_are_tried_in_order_at_once_and_after_the_last_from_the_first_again() {
    let (mut life, mut call) = Life::launching_with(with_fallbacks(2));
    for choice in [0, 1] {
        assert_eq!(call.choice, choice);
        assert_eq!(life.learn(Input::Launch(call, refused())), State::Queued);
        assert_eq!((life.record.check_at, life.record.due.as_deref()), (Some(life.now), Some(REPEAT)));
        assert_eq!(life.due(), State::Launching);
        call = life.call();
    }
    assert_eq!(life.learn(Input::Launch(call, refused())), State::Queued);
    assert_eq!((life.record.attempt.fallback, life.record.attempt.refusals), (0, 1));
    assert!(life.record.check_at.unwrap() > life.now, "after the last it waits");
    life.due();
    assert_eq!((life.call().choice, life.call().nth), (0, 1));
}

#[test]
fn fallback_follows_only_capacity_rejection() {
    let (mut life, call) = Life::launching_with(with_fallbacks(1));
    life.learn(Input::Launch(call, unanswered()));
    life.due();
    let repeat = life.call();
    assert_eq!((repeat.choice, repeat.nth), (0, 2));
    life.learn(Input::Launch(repeat, refused()));
    assert_eq!(
        (life.record.state(), life.record.attempt.fallback),
        (State::Launching, 0),
        "a refused repeat proves nothing"
    );

    let (mut life, call) = Life::launching_with(with_fallbacks(1));
    let throttled = LaunchAnswer::RefusedForNow(LaunchBlocker::Other, "ThrottlingException".to_owned());
    life.learn(Input::Launch(call, throttled));
    assert_eq!((life.record.state(), life.record.attempt.fallback), (State::Queued, 0));
}

#[test]
fn due_submission_launches_only_by_its_own_options() {
    let record = Record::queued(Submission { policy: with_fallbacks(1), ..submission("a") }, now(), &rules());
    let mut life = Life::of(record);
    life.learn(Input::LaunchBy(2));
    assert_eq!((life.wrote, life.action.clone()), (false, None));
    assert_eq!(life.learn(Input::LaunchBy(1)), State::Launching);
    assert_eq!((life.call().choice, life.record.attempt.fallback), (1, 1));
}

#[test]
fn interrupted_task_continues_with_named_fallback() {
    let on_demand = Relaunch { fallback: Some(1), ..Relaunch::from("SpotInterruption") };
    let mut life = Life::launched(Policy { relaunch_on: vec![on_demand], ..with_fallbacks(1) });
    life.see(running(2));
    assert_eq!(life.see(stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))])), State::Queued);
    assert_eq!((life.record.attempt.fallback, life.record.choices()), (1, 1..=1));
    life.wait(MINUTE).due();
    let call = life.call();
    assert_eq!(call.choice, 1);
    life.learn(Input::Launch(call, refused()));
    assert_eq!((life.record.attempt.fallback, life.record.attempt.refusals), (1, 1));
}

#[test]
fn a_relaunch_that_does_not_count_leaves_the_attempts_of_the_policy() {
    let free = Relaunch { counts: false, ..Relaunch::from("SpotInterruption") };
    let once = Policy { max_attempts: AttemptNumber::FIRST, relaunch_on: vec![free], ..Policy::default() };
    let mut life = Life::launched(once);
    for attempt in 2..=99 {
        life.see(Task { attempt: life.record.attempt.number, ..running(2) });
        assert!(life.record.request.is_some(), "it may be needed for another attempt");
        let interrupted = stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))]);
        let state = life.see(Task { attempt: life.record.attempt.number, ..interrupted });
        assert_eq!((state, life.record.attempt.number.get()), (State::Queued, attempt));
        life.wait(MINUTE).due();
        life.learn(Input::Launch(life.call(), live_task()));
    }
    life.see(Task { attempt: life.record.attempt.number, ..running(2) });
    let interrupted = stopped(4, "SpotInterruption", vec![container("STOPPED", Some(143))]);
    assert_eq!(
        life.see(Task { attempt: life.record.attempt.number, ..interrupted }),
        State::Failed,
        "99 is the last one"
    );
}

fn on_ec2(task: Task) -> Task {
    Task { runs_on: Some("EC2".to_owned()), at: Some(now()), ..task }
}

#[test]
fn on_ec2_the_next_attempt_waits_until_ecs_was_asked_once_more() {
    let mut life = Life::launched(policy(&["InfrastructureHealth"]));
    life.see(on_ec2(running(2)));
    let ends = on_ec2(stopped(4, "InfrastructureHealth", vec![container("STOPPED", None)]));
    assert_eq!(life.see(ends.clone()), State::Running);
    assert!(life.record.attempt.asked_again && life.record.request.is_some());
    life.see(ends.clone());
    assert_eq!(
        (life.wrote, life.record.attempt.number),
        (false, AttemptNumber::FIRST),
        "a repeated event is no answer"
    );
    assert_eq!(life.due(), State::Running);
    assert!(matches!(life.action, Some(Action::Describe { .. })), "{:?}", life.action);
    assert_eq!(life.see(Task { at: None, ..ends }), State::Queued);
    assert_eq!((life.record.attempt.number.get(), life.record.attempt.asked_again), (2, false));
}

#[test]
fn a_task_that_only_seemed_to_have_stopped_runs_on_and_its_end_counts() {
    let mut life = Life::launched(policy(&["InfrastructureHealth"]));
    life.see(on_ec2(running(2)));
    life.see(on_ec2(stopped(4, "InfrastructureHealth", vec![container("STOPPED", Some(137))])));
    life.due();
    assert_eq!(life.see(Task { at: None, ..on_ec2(running(4)) }), State::Running);
    assert_eq!((life.record.attempt.asked_again, life.record.attempt.exit_code), (false, None));
    assert_eq!(life.see(on_ec2(exited(5, 0))), State::Succeeded);
}

#[test]
fn a_task_that_is_alive_after_it_was_stopped_is_stopped_again() {
    let mut life = Life::launched(Policy::default());
    life.see(on_ec2(running(2)));
    life.see(on_ec2(stopped(4, "EssentialContainerExited", vec![container("STOPPED", Some(137))])));
    assert_eq!(life.see(on_ec2(running(3))), State::Failed);
    assert!(!life.stops(), "a late event is older");
    assert_eq!(life.see(on_ec2(running(5))), State::Failed);
    assert!(life.stops() && life.alarm == Some(Alarm::OrphanTask));
}

#[test]
fn out_of_memory_is_a_hint_and_the_exit_code_decides() {
    let killed =
        |reason: Option<&str>, code| Container { reason: reason.map(str::to_owned), ..container("STOPPED", code) };
    let words = Some("OutOfMemoryError: Container killed due to memory usage");
    for (containers, stop_code, state, hint) in [
        (killed(words, Some(137)), "EssentialContainerExited", State::Failed, Some(Hint::OutOfMemory)),
        (killed(words, Some(0)), "EssentialContainerExited", State::Succeeded, Some(Hint::OutOfMemory)),
        (killed(words, None), "EssentialContainerExited", State::Failed, Some(Hint::OutOfMemory)),
        (killed(None, Some(137)), "EssentialContainerExited", State::Failed, Some(Hint::OutOfMemory)),
        (killed(None, Some(137)), "SpotInterruption", State::Failed, None),
        (killed(None, Some(1)), "EssentialContainerExited", State::Failed, None),
    ] {
        let mut life = Life::launched(Policy::default());
        life.see(running(2));
        assert_eq!(life.see(stopped(4, stop_code, vec![containers.clone()])), state, "{containers:?}");
        assert_eq!(life.record.attempt.hint, hint, "{containers:?}");
    }
}

#[test]
fn a_container_that_was_asked_to_stop_has_not_run_out_of_memory() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!(life.see(stopped(4, "UserInitiated", vec![container("STOPPED", Some(137))])), State::Cancelled);
    assert_eq!(life.record.attempt.hint, None);
}

#[test]
fn without_relaunch_on_an_interruption_is_failed_with_its_code() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    assert!(life.record.request.is_none(), "nothing can be launched again");
    let ends = Task { stop_code: Some("SpotInterruption".into()), ..exited(3, 143) };
    assert_eq!(life.see(ends), State::Failed);
    assert_eq!(life.record.attempt.exit_code, Some(143));
}

#[test]
fn submission_that_ran_fails_instead_of_expiring() {
    let mut life = Life::launched(policy(&["InfrastructureHealth"]));
    life.record.launch_deadline = Some(life.now);
    life.see(stopped(3, "InfrastructureHealth", vec![]));
    life.wait(MINUTE);
    assert_eq!(life.due(), State::Failed);
    assert!(
        life.record
            .attempt
            .reason
            .as_ref()
            .unwrap()
            .starts_with("InfrastructureHealth, and container main has no exit code")
    );
}

#[test]
fn task_stopped_waits_for_the_tasks_own_end() {
    let mut life = Life::launched(Policy { complete_on: CompleteOn::TaskStopped, ..Policy::default() });
    assert_eq!(life.see(exited(3, 1)), State::Launched);
    assert_eq!(life.see(running(4)), State::Running);
    assert_eq!(life.see(stopped(5, "EssentialContainerExited", vec![container("STOPPED", Some(0))])), State::Succeeded);
    let mut life = Life::launched(Policy { complete_on: CompleteOn::TaskStopped, ..Policy::default() });
    assert_eq!(life.see(never_started(3)), State::Failed, "a restarted container's last reason is no evidence");
}

#[test]
fn a_terminal_state_is_final_and_an_exit_code_is_never_added() {
    let mut life = Life::launched(Policy::default());
    life.see(stopped(3, "EssentialContainerExited", vec![]));
    assert_eq!(life.see(stopped(4, "UserInitiated", vec![container("STOPPED", Some(0))])), State::Failed);
    assert_eq!(
        (life.record.attempt.exit_code, life.record.attempt.stop_code.as_deref()),
        (None, Some("EssentialContainerExited"))
    );
}

#[test]
fn an_event_of_another_cluster_is_let_go() {
    let mut life = Life::launched(Policy::default());
    life.see(Task { cluster_arn: "arn:aws:ecs:eu-west-1:123456789012:cluster/other".into(), ..exited(3, 0) });
    assert!(!life.wrote);
}

// The following tests cover orphaned and second tasks.

#[test]
fn a_second_task_of_one_attempt_is_an_alarm_and_is_stopped() {
    let mut life = Life::launched(Policy::default());
    life.see(Task { arn: "arn:aws:ecs:eu-west-1:123456789012:task/nightly/other".into(), ..running(9) });
    assert!(!life.wrote && life.stops());
    assert_eq!(life.alarm, Some(Alarm::SecondTask));
}

#[test]
fn live_task_of_ended_submission_is_stopped() {
    let mut life = Life::queued();
    life.learn(Input::Stop("not needed".into()));
    life.see(running(1));
    assert_eq!((life.stops(), life.alarm), (true, Some(Alarm::OrphanTask)));
    // The same event arrives again, because the process that saw it first may have died before its StopTask.
    life.see(running(1));
    assert_eq!((life.wrote, life.stops()), (false, true));
    life.see(stopped(2, "UserInitiated", vec![container("STOPPED", Some(143))]));
    assert_eq!((life.stops(), life.record.state(), life.record.attempt.exit_code), (false, State::Cancelled, None));
}

#[test]
fn task_of_bare_stop_is_stopped_in_own_cluster() {
    let mut life = Life::of(Record::tombstone("a".parse().unwrap(), "not needed", now(), &rules()));
    let task = running(1);
    let own = task.cluster_arn.clone();
    life.see(task);
    assert!(matches!(&life.action, Some(Action::Stop { cluster, .. }) if *cluster == own));
}

#[test]
fn an_old_event_of_a_stopped_task_raises_no_alarm() {
    let mut life = Life::launched(Policy::default());
    life.learn(Input::Stop("not needed".into()));
    assert_eq!(life.see(exited(5, 143)), State::Cancelled);
    life.see(running(3));
    assert_eq!((life.wrote, life.stops(), life.alarm), (false, false, None));
}

// The following tests cover stops and timeouts.

#[test]
fn queued_is_cancelled_at_once() {
    let mut life = Life::queued();
    assert_eq!(life.learn(Input::Stop("cleared".into())), State::Cancelled);
    assert_eq!(life.record.attempt.reason.as_deref(), Some("cleared"));
}

#[test]
fn a_stop_while_launching_stops_the_task_once_it_is_known() {
    let (mut life, call) = Life::launching();
    assert_eq!(life.learn(Input::Stop("cleared".into())), State::Launching);
    assert!(life.action.is_none());
    assert_eq!(life.learn(Input::Launch(call, live_task())), State::Launched);
    assert!(life.stops());
    assert_eq!(life.see(exited(3, 143)), State::Cancelled);
}

#[test]
fn a_stopped_launch_is_not_repeated_and_a_refused_one_is_cancelled() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Stop("cleared".into()));
    assert!(life.record.check_at.unwrap() <= life.now.plus(Duration::from_secs(30)));
    life.due();
    assert_eq!(life.action, Some(Action::LookUp(AttemptNumber::FIRST)));
    assert_eq!(life.learn(Input::Launch(call, refused())), State::Cancelled);
}

#[test]
fn a_stop_is_repeated_every_30_seconds_until_it_is_over() {
    let mut life = Life::launched(Policy::default());
    life.learn(Input::Stop("cleared".into()));
    for _ in 0..3 {
        life.due();
        assert!(life.stops());
        assert_eq!(life.record.check_at, Some(life.now.plus(Duration::from_secs(30))));
    }
    assert_eq!(life.see(exited(3, 0)), State::Succeeded, "it was quicker");
}

#[test]
fn a_stop_sent_is_evidence_of_nothing() {
    let mut life = Life::launched(Policy::default());
    life.learn(Input::Stop("cleared".into()));
    assert_eq!(life.see(never_started(3)), State::Cancelled);
}

#[test]
fn timeouts_stop_and_then_fail_unless_it_exits_0() {
    for code in [0, 143] {
        let mut life = Life::launched(Policy { run_timeout: Some(60), ..Policy::default() });
        life.see(running(2));
        assert!(life.record.check_at.unwrap() <= life.record.attempt.started_at.unwrap().plus(MINUTE));
        life.due();
        assert!(life.stops());
        assert_eq!(life.see(exited(3, code)), if code == 0 { State::Succeeded } else { State::Failed });
    }
    let mut life = Life::launched(Policy { launch_timeout: Some(60), ..Policy::default() });
    life.due();
    assert!(life.stops());
    assert_eq!(life.see(stopped(3, "UserInitiated", vec![])), State::Failed);
    assert!(life.record.attempt.reason.unwrap().contains("launch_timeout"));
}

// The following tests cover reconciliation.

#[test]
fn submission_without_events_is_described() {
    let mut life = Life::launched(Policy::default());
    life.due();
    assert_eq!(life.now, now().plus(12 * MINUTE));
    assert!(matches!(life.action, Some(Action::Describe { .. })));
    assert_eq!(life.see(stopped(8, "EssentialContainerExited", vec![container("STOPPED", Some(4))])), State::Failed);
    assert_eq!(life.record.attempt.exit_code, Some(4));
}

#[test]
fn missing_twice_five_minutes_apart_is_lost_after_a_stop() {
    let mut life = Life::launched(Policy::default());
    let arn = life.record.attempt.task_arn.clone().unwrap();
    let missing = |life: &mut Life, stop_sent| {
        let at = life.now;
        life.learn(Input::Missing { task_arn: arn.clone(), at, stop_sent })
    };
    life.wait(9 * MINUTE);
    missing(&mut life, false);
    assert_eq!(life.record.attempt.missing_count, 0, "RunTask is eventually consistent");
    life.due();
    missing(&mut life, false);
    missing(&mut life, false);
    assert_eq!(life.record.attempt.missing_count, 1, "too close");
    life.due();
    assert_eq!(life.now, now().plus(17 * MINUTE));
    missing(&mut life, false);
    assert!(life.stops());
    assert_eq!(missing(&mut life, true), State::Lost);
}

#[test]
fn report_of_task_resets_missing_count() {
    let mut life = Life::launched(Policy::default());
    let arn = life.record.attempt.task_arn.clone().unwrap();
    life.wait(10 * MINUTE);
    life.learn(Input::Missing { task_arn: arn, at: life.now, stop_sent: false });
    life.see(running(2));
    assert_eq!((life.record.attempt.missing_count, life.record.attempt.missing_at), (0, None));
}

#[test]
fn a_description_at_the_known_version_only_fills_in() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    life.see(Task { stop_code: Some("SpotInterruption".into()), ..exited(2, 9) });
    assert_eq!(
        (life.record.state(), life.record.attempt.stop_code.as_deref()),
        (State::Running, Some("SpotInterruption"))
    );
}

#[test]
fn a_task_that_run_task_shows_as_stopped_is_looked_at_at_once() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Launch(call, LaunchAnswer::Task { arn: task("STOPPED").arn, live: false }));
    assert_eq!((life.record.state(), life.record.check_at), (State::Launched, Some(life.now)));
}

#[test]
fn only_a_terminal_record_has_a_time_to_live() {
    let mut life = Life::launched(Policy::default());
    assert_eq!(life.record.expires_at, NEVER);
    // An earlier version wrote the record like this.
    life.record.expires_at = life.now.seconds();
    life.see(running(2));
    assert_eq!(life.record.expires_at, NEVER);
    life.see(exited(3, 0));
    assert_eq!(life.record.expires_at, life.now.plus(rules().retention).seconds());
}

const HOUR: Duration = Duration::from_secs(3600);

fn denied() -> LaunchAnswer {
    LaunchAnswer::RefusedForNow(LaunchBlocker::Access, "AccessDeniedException: not authorized".to_owned())
}

impl Life {
    fn lookup_failed(&mut self) -> State {
        let input = Input::LookupFailed {
            attempt: self.record.attempt.number,
            at: self.now,
            reason: "AccessDeniedException: not authorized".to_owned(),
        };
        self.learn(input)
    }

    /// Rejects every lookup and description, and returns the time until the submission ended.
    fn until_given_up(&mut self) -> Duration {
        let begun = self.now;
        while !self.record.state().is_terminal() {
            self.due();
            assert!(matches!(self.action, Some(Action::LookUp(_) | Action::Describe { .. })), "{:?}", self.action);
            self.lookup_failed();
            assert!(self.now.since(begun) < 30 * HOUR, "{:#?}", self.record);
        }
        self.now.since(begun)
    }
}

#[test]
fn a_launch_whose_lookups_are_refused_for_a_day_is_lost_with_an_alarm() {
    let (mut life, call) = Life::launching();
    life.learn(Input::Launch(call, unanswered()));
    life.wait(50 * MINUTE);
    life.until_given_up();
    assert_eq!((life.record.state(), life.alarm), (State::Lost, Some(Alarm::GivenUp)));
    assert!(life.now.since(call.claimed_at) >= 24 * HOUR);
    assert!(life.record.attempt.reason.as_deref().unwrap().contains("AccessDeniedException"));
}

#[test]
fn a_task_that_ecs_does_not_describe_for_a_day_is_lost_with_an_alarm_and_stopped() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    assert!(life.until_given_up() >= 24 * HOUR);
    assert_eq!((life.record.state(), life.alarm, life.stops()), (State::Lost, Some(Alarm::GivenUp), true));
}

#[test]
fn a_task_that_is_seen_between_is_not_given_up() {
    let mut life = Life::launched(Policy::default());
    life.lookup_failed();
    life.wait(23 * HOUR).see(running(2));
    assert_eq!(life.record.attempt.lookup_failed_since, None);
    life.wait(2 * HOUR);
    assert_eq!(life.lookup_failed(), State::Running);
}

#[test]
fn a_failed_description_is_repeated_after_a_lease() {
    let mut life = Life::launched(Policy::default());
    life.see(running(2));
    life.due();
    life.lookup_failed();
    assert_eq!(life.record.check_at, Some(life.now.plus(rules().timers.lease)));
}

#[test]
fn denied_access_is_retried_for_an_hour_and_raises_one_alarm() {
    let mut life = Life::queued();
    let begun = life.now;
    let mut alarms = 0;
    while !life.record.state().is_terminal() {
        life.due();
        life.learn(Input::Launch(life.call(), denied()));
        alarms += usize::from(life.alarm == Some(Alarm::AccessDenied));
    }
    assert_eq!((life.record.state(), alarms), (State::Rejected, 1));
    let lasted = life.now.since(begun);
    assert!((HOUR..HOUR + 2 * MINUTE).contains(&lasted), "{lasted:?}");
}

#[test]
fn denied_access_is_retried_until_the_launch_deadline() {
    let deadline = Some(now().plus(3 * HOUR));
    let submission = Submission { launch_deadline: deadline, ..submission("a") };
    let mut life = Life::of(Record::queued(submission, now(), &rules()));
    while !life.record.state().is_terminal() {
        life.due();
        if life.action.is_some() {
            life.learn(Input::Launch(life.call(), denied()));
        }
    }
    assert_eq!(life.record.state(), State::Expired);
    assert!(life.now.since(now()) >= 3 * HOUR);
    assert!(life.record.attempt.reason.as_deref().unwrap().contains("AccessDeniedException"));
}

#[test]
fn access_that_comes_back_for_a_while_starts_the_hour_again() {
    let mut life = Life::queued();
    life.due();
    life.learn(Input::Launch(life.call(), denied()));
    life.due();
    life.learn(Input::Launch(life.call(), refused()));
    life.wait(2 * HOUR).due();
    assert_eq!(life.learn(Input::Launch(life.call(), denied())), State::Queued);
}

#[test]
fn an_event_from_before_the_record_is_ignored() {
    let mut life = Life::queued();
    let before = Timestamp::from_millis(now().millis() - 86_400_000);
    life.see(Task { at: Some(before), ..exited(9, 1) });
    assert_eq!((life.record.state(), life.wrote), (State::Queued, false));
}

#[test]
fn a_task_adopted_by_its_started_by_gives_way_to_run_tasks_own_answer() {
    let (mut life, call) = Life::launching();
    let other = Task { arn: "arn:aws:ecs:eu-west-1:123456789012:task/nightly/ffffffff".to_owned(), ..running(7) };
    life.see(other.clone());
    assert_eq!(life.record.attempt.task_arn.as_ref(), Some(&other.arn));
    life.learn(Input::Launch(call, live_task()));
    assert_eq!(life.record.attempt.task_arn, Some(task("PENDING").arn));
    assert!(matches!(&life.action, Some(Action::Stop { task_arn, .. }) if *task_arn == other.arn), "{:?}", life.action);
    assert_eq!(life.alarm, Some(Alarm::SecondTask));
    life.see(Task { arn: other.arn, ..exited(8, 0) });
    assert!(!life.record.state().is_terminal(), "the other task's end is not this submission's");
    assert_eq!(life.see(exited(2, 3)), State::Failed);
}

#[test]
fn the_creating_claim_is_due_while_its_call_can_still_be_repeated_before_the_deadline() {
    let Timers { lease, send_within, first_check, .. } = rules().timers;
    let due = |deadline: Option<Duration>| {
        let launch_deadline = deadline.map(|deadline| now().plus(deadline));
        let (record, _) = Record::launching(Submission { launch_deadline, ..submission("a") }, now(), &rules());
        record.check_at.unwrap().since(now())
    };
    assert_eq!(due(None), first_check);
    assert_eq!(due(Some(2 * first_check)), first_check);
    assert_eq!(due(Some(10 * MINUTE)), 10 * MINUTE - send_within);
    assert_eq!(due(Some(MINUTE)), lease);
}

// The following tests cover pools.

fn pool() -> Pool {
    serde_json::from_str(r#"{"max": 5}"#).unwrap()
}

fn key() -> PoolKey {
    PoolKey::of(&ProfileName::default_profile(), &[serde_json::Map::new()], "main", &pool())
}

fn process(incarnation: &str) -> Process {
    Process { runner_id: "runner-1".parse().unwrap(), incarnation: incarnation.to_owned().try_into().unwrap() }
}

const ONE: &str = "incarnation-1";
const OTHER: &str = "incarnation-2";

impl Life {
    fn waiting_with(policy: Policy) -> Self {
        let submission = Submission { policy, pool: Some(key()), ..submission("a") };
        Self::of(Record::queued(submission, now(), &rules()))
    }

    fn waiting() -> Self {
        Self::waiting_with(Policy::default())
    }

    fn taken_with(policy: Policy) -> Self {
        let mut life = Self::waiting_with(policy);
        assert_eq!(life.take(ONE), State::Running);
        life
    }

    fn pool(&mut self, input: PoolInput) -> State {
        self.learn(Input::Pool(input))
    }

    fn take(&mut self, incarnation: &str) -> State {
        let cluster = task("RUNNING").cluster_arn;
        self.pool(PoolInput::Take { by: process(incarnation), task_arn: task("RUNNING").arn, cluster })
    }

    fn done(&mut self, incarnation: &str, exit_code: i32, stopping: bool) -> State {
        self.pool(PoolInput::Done { by: process(incarnation), exit_code, stopping })
    }

    /// Applies a report of its runner's task.
    fn runner_seen(&mut self, task: Task) -> State {
        self.pool(PoolInput::RunnerSeen("runner-1".parse().unwrap(), Box::new(task)))
    }

    /// Creates a runner with a task that has not polled yet.
    fn runner(commands: u32) -> Self {
        let runner = Runner { commands, ..Runner::new(key(), TokenHash::of("secret"), &pool()) };
        let mut life = Self::of(Record::new_runner(submission("runner-1"), runner, now(), &rules()));
        life.due();
        let call = life.call();
        life.learn(Input::Launch(call, live_task()));
        life
    }

    fn asking(commands: u32) -> Self {
        let mut life = Self::runner(commands);
        life.contact(ONE);
        life
    }

    fn contact(&mut self, incarnation: &str) -> State {
        self.pool(PoolInput::Contact(incarnation.to_owned().try_into().unwrap()))
    }

    fn serve(&mut self, id: &str) -> State {
        self.pool(PoolInput::Serve(id.parse().unwrap()))
    }

    fn runs(&self) -> &Runner {
        self.record.runner().unwrap()
    }

    fn runner_status(&self, incarnation: &str) -> RunnerStatus {
        pool::runner_status(&self.record, self.runs(), &incarnation.to_owned().try_into().unwrap())
    }
}

fn stopped_by(stop_code: &str, exit_code: Option<i32>) -> Task {
    let containers = vec![container("STOPPED", exit_code)];
    Task { stop_code: Some(stop_code.to_owned()), version: Some(9), containers, ..task("STOPPED") }
}

fn again_after_spot() -> Policy {
    Policy { relaunch_on: vec![Relaunch::from("SpotInterruption")], ..Policy::default() }
}

#[test]
fn a_submission_that_waits_is_in_the_pools_index_and_is_never_launched() {
    let mut life = Life::waiting();
    assert_eq!(life.record.pool, Some(key().waiting()));
    assert!(life.record.rank.is_some() && life.record.due.as_deref() != Some("queued"));
    let (_, call) = Record::launching(Submission { pool: Some(key()), ..submission("a") }, now(), &rules());
    assert!(call.is_none());
    life.due();
    assert_eq!((life.record.state(), &life.action), (State::Queued, &None));
}

#[test]
fn one_process_takes_a_submission_and_no_other_can() {
    let mut life = Life::taken_with(Policy::default());
    assert_eq!((life.record.taken(), life.record.pool.as_ref()), (Some(&process(ONE)), None));
    assert!(life.record.request.is_some(), "the answer may have to be repeated");
    life.take(OTHER);
    assert_eq!((life.record.taken(), life.wrote), (Some(&process(ONE)), false));
}

#[test]
fn stopped_or_expired_submission_is_not_claimed() {
    let mut life = Life::waiting();
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!((life.take(ONE), life.record.pool.clone()), (State::Cancelled, None));

    let deadline = Some(now().plus(MINUTE));
    let late = Submission { launch_deadline: deadline, pool: Some(key()), ..submission("a") };
    let mut life = Life::of(Record::queued(late, now(), &rules()));
    life.wait(MINUTE + Duration::from_secs(1));
    assert_eq!(life.take(ONE), State::Queued);
    assert_eq!(life.due(), State::Expired);
}

#[test]
fn completion_is_reported_once_by_claiming_process() {
    let mut life = Life::taken_with(Policy::default());
    life.done(OTHER, 0, false);
    assert!(!life.wrote && life.record.state() == State::Running);
    assert_eq!(life.done(ONE, 3, false), State::Failed);
    assert_eq!((life.record.attempt.exit_code, life.record.request.is_none()), (Some(3), true));
    life.done(ONE, 0, false);
    assert_eq!((life.record.attempt.exit_code, life.wrote), (Some(3), false));
}

#[test]
fn second_report_does_not_replace_an_exit_code_that_waits_for_the_stop_code() {
    let mut life = Life::taken_with(again_after_spot());
    assert_eq!(life.done(ONE, 143, true), State::Running);
    assert_eq!(life.done(ONE, 0, false), State::Running);
    assert_eq!((life.record.attempt.exit_code, life.wrote), (Some(143), false));
}

#[test]
fn stopped_command_is_cancelled_where_its_runner_reports_nothing() {
    let mut life = Life::taken_with(Policy::default());
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!(life.runner_seen(stopped_by("UserInitiated", Some(0))), State::Cancelled);
    assert_eq!((life.record.attempt.exit_code, life.record.attempt.reason.as_deref()), (None, Some("enough")));
}

#[test]
fn stopped_command_ends_with_its_report_although_an_interruption_would_run_it_again() {
    let mut life = Life::taken_with(again_after_spot());
    life.learn(Input::Stop("enough".to_owned()));
    assert_eq!(life.done(ONE, 143, true), State::Cancelled);
}

fn waiting_until(deadline: Duration) -> Life {
    let launch_deadline = Some(now().plus(deadline));
    Life::of(Record::queued(Submission { launch_deadline, pool: Some(key()), ..submission("a") }, now(), &rules()))
}

#[test]
fn timer_of_a_waiting_submission_is_never_past_its_deadline() {
    let past = Duration::from_millis(1);
    for deadline in [Duration::from_secs(9), MINUTE * 2, MINUTE * 90, MINUTE * 60 * 30] {
        let mut life = waiting_until(deadline);
        while life.record.state() == State::Queued {
            assert!(life.record.check_at.unwrap() <= now().plus(deadline + past), "{deadline:?}");
            life.due();
        }
        assert_eq!((life.record.state(), life.now), (State::Expired, now().plus(deadline + past)));
    }
}

#[test]
fn key_of_a_waiting_submission_is_checked_after_a_minute_an_hour_and_then_daily() {
    let mut life = Life::waiting();
    let mut checks = vec![];
    while checks.len() < 4 {
        life.due();
        checks.push(life.now.since(now()) / 60);
    }
    let minutes = [1, 60, 60 + 24 * 60, 60 + 2 * 24 * 60];
    assert_eq!(checks, minutes.map(Duration::from_secs));
}

#[test]
fn take_sets_the_timer_of_a_running_task_and_its_run_timeout() {
    let life = Life::taken_with(Policy::default());
    assert_eq!(life.record.check_at, Some(now().plus(rules().timers.first_check)));
    let mut life = Life::taken_with(Policy { run_timeout: Some(90), ..Policy::default() });
    assert_eq!(life.record.check_at, Some(now().plus(Duration::from_secs(90))));
    life.due();
    assert!(life.stops(), "{:?}", life.action);
    let stop = life.record.stop_requested.as_ref().unwrap();
    assert_eq!(stop.cause, StopCause::RunTimeout);
    assert_eq!(life.runner_seen(stopped_by("UserInitiated", None)), State::Failed);
}

#[test]
fn reason_why_nothing_serves_a_submission_is_shown_while_it_waits() {
    let held = |reason: Option<&str>| PoolInput::Held(reason.map(str::to_owned));
    let mut life = Life::waiting();
    life.pool(held(Some("no such image")));
    assert_eq!(life.record.attempt.reason.as_deref(), Some("no such image"));
    life.pool(held(Some("no such image")));
    assert!(!life.wrote, "it is shown already");
    life.pool(held(None));
    assert_eq!((life.record.attempt.reason.as_deref(), life.wrote), (None, true));
    life.pool(held(Some("no such image")));
    life.take(ONE);
    assert_eq!(life.record.attempt.reason, None);
    life.pool(held(Some("no such image")));
    assert!(!life.wrote && life.record.attempt.reason.is_none(), "it runs");
}

#[test]
fn the_runners_own_exit_code_is_never_the_commands() {
    let mut life = Life::taken_with(Policy::default());
    assert_eq!(life.runner_seen(stopped_by("EssentialContainerExited", Some(0))), State::Failed);
    assert_eq!(life.record.attempt.exit_code, None);
    assert!(life.record.attempt.reason.as_deref().unwrap().contains("reported no exit code"));
}

#[test]
fn the_end_of_another_runner_changes_nothing() {
    let mut life = Life::taken_with(Policy::default());
    let other = PoolInput::RunnerSeen("runner-2".parse().unwrap(), Box::new(stopped_by("SpotInterruption", None)));
    assert_eq!((life.pool(other), life.wrote), (State::Running, false));
    let mut life = Life::waiting();
    assert_eq!(life.runner_seen(stopped_by("SpotInterruption", None)), State::Queued);
}

#[test]
fn exit_code_of_stopped_runner_awaits_stop_code() {
    let mut life = Life::taken_with(again_after_spot());
    assert_eq!(life.done(ONE, 143, true), State::Running);
    assert_eq!(life.runner_seen(stopped_by("SpotInterruption", Some(0))), State::Queued);
    assert_eq!((life.record.attempt.number.get(), life.record.taken(), life.record.attempt.exit_code), (2, None, None));
    assert_eq!(life.record.pool, Some(key().waiting()), "it waits again");
    assert!(life.record.ran_before && life.record.request.is_some());

    let mut life = Life::taken_with(again_after_spot());
    life.done(ONE, 143, true);
    assert_eq!(life.runner_seen(stopped_by("UserInitiated", Some(0))), State::Failed);
    assert_eq!(life.record.attempt.exit_code, Some(143));

    let mut life = Life::taken_with(again_after_spot());
    assert_eq!(life.done(ONE, 0, true), State::Succeeded);
    let mut life = Life::taken_with(Policy::default());
    assert_eq!(life.done(ONE, 143, true), State::Failed, "nothing would run it again");
}

#[test]
fn stop_of_claimed_submission_closes_runner_first() {
    let mut life = Life::taken_with(Policy::default());
    life.learn(Input::Stop("enough".to_owned()));
    let Some(Action::Stop { runner, .. }) = &life.action else { panic!("{:?}", life.action) };
    assert_eq!(runner.as_ref(), Some(&process(ONE).runner_id));
    assert_eq!(life.done(ONE, 143, true), State::Cancelled);
}

#[test]
fn a_take_that_is_under_way_fails_once_its_runner_has_ended() {
    let mut life = Life::waiting();
    let rev = life.record.rev;
    life.pool(PoolInput::RunnerGone);
    assert_eq!((life.record.rev, life.record.state()), (rev + 1, State::Queued));
    let mut life = Life::taken_with(Policy::default());
    life.pool(PoolInput::RunnerGone);
    assert!(!life.wrote);
}

#[test]
fn a_runner_runs_for_one_process_and_any_other_stops_it() {
    let mut life = Life::runner(1);
    assert_eq!(life.contact(ONE), State::Running);
    assert_eq!((life.runner_status(ONE), life.runner_status(OTHER)), (RunnerStatus::Open, RunnerStatus::Taken));
    life.contact(ONE);
    assert!(!life.wrote, "asking again costs no write");
    life.wait(2 * MINUTE).contact(ONE);
    assert_eq!(life.runs().polled_at, Some(life.now));
    life.contact(OTHER);
    assert!(life.record.stop_requested.is_some() && life.runs().closing);
    assert_eq!(life.runner_status(ONE), RunnerStatus::Close);
    life.due();
    assert!(life.stops());
}

#[test]
fn a_runner_serves_one_submission_at_a_time_and_serving_it_again_is_written() {
    let mut life = Life::asking(2);
    life.serve("a");
    let rev = life.record.rev;
    life.serve("a");
    assert_eq!(life.record.rev, rev + 1);
    life.serve("b");
    assert_eq!((life.runs().serves.as_ref().unwrap().as_str(), life.wrote), ("a", false));
    life.pool(PoolInput::Served { submission_id: "a".parse().unwrap(), done: true });
    assert_eq!((&life.runs().serves, life.runs().served, life.runs().closing), (&None, 1, false));
    life.serve("b");
    life.pool(PoolInput::Served { submission_id: "b".parse().unwrap(), done: true });
    assert!(life.runs().closing, "its commands are done");
    life.serve("c");
    assert!(!life.wrote);
}

#[test]
fn a_runner_is_closed_only_for_what_it_still_serves() {
    let mut life = Life::asking(5);
    life.serve("b");
    life.pool(PoolInput::Close(Some("a".parse().unwrap())));
    assert!(!life.runs().closing, "StopTask would hit another command");
    life.pool(PoolInput::Close(None));
    assert!(!life.runs().closing);
    life.pool(PoolInput::Close(Some("b".parse().unwrap())));
    assert!(life.runs().closing);
}

#[test]
fn an_idle_runner_that_asks_is_left_alone_and_one_that_does_not_is_stopped() {
    let mut life = Life::asking(1);
    life.wait(MINUTE * 2).contact(ONE);
    life.due();
    assert_eq!(life.action, None, "who asks needs no description");
    life.wait(5 * MINUTE).due();
    assert!(life.stops() && life.runs().closing);

    let mut mute = Life::runner(1);
    mute.see(running(2));
    mute.wait(5 * MINUTE).learn(Input::Due);
    while !mute.stops() {
        mute.due();
    }
    assert!(mute.runs().closing);
    assert_eq!(mute.record.stop_requested.unwrap().reason, "the runner never asked for work");

    let mut busy = Life::asking(1);
    busy.serve("a");
    busy.wait(30 * MINUTE).due();
    assert!(matches!(busy.action, Some(Action::Describe { .. })), "{:?}", busy.action);
}

#[test]
fn a_runner_never_stands_in_the_feed_and_is_launched_after_everything_else() {
    let runner = Life::runner(1).record.runner().unwrap().clone();
    let record = Record::new_runner(submission("runner-1"), runner, now(), &rules());
    assert_eq!((record.due.as_deref(), record.pool.as_ref()), (Some("runners"), Some(&key().runners())));
    let mut life = Life::asking(1);
    life.see(exited(5, 0));
    assert_eq!((life.record.state(), &life.record.feed, &life.record.pool), (State::Succeeded, &None, &None));
    assert!(life.record.expires_at <= life.now.plus(Duration::from_secs(86_400)).seconds());
}

#[test]
fn served_submission_is_ours_unclaimed_or_ended() {
    let by = process(ONE);
    let served = |life: &Life| pool::served(Some(&life.record), &by);
    assert_eq!(served(&Life::waiting()), Served::Untaken);
    let mut life = Life::taken_with(Policy::default());
    assert_eq!(served(&life), Served::Ours);
    assert_eq!(pool::served(Some(&life.record), &process(OTHER)), Served::Over(false));
    life.done(ONE, 0, false);
    assert_eq!((served(&life), pool::served(None, &by)), (Served::Over(true), Served::Over(false)));
}
