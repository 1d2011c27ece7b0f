//! What holds of every decision, whatever is learnt in whatever order.
#![expect(clippy::unwrap_used, reason = "a test; what is allowed in its functions is allowed beside them")]

use std::{collections::BTreeMap, time::Duration};

use ecs_bridge_core::{
    Action, AttemptNumber, Call, Container, Decision, Input, LaunchAnswer, LaunchBlocker, ProfileName, Record, Rules,
    State, Task, Timers, Timestamp, decide,
    notify::{Delivery, Notify, TaskToken},
    profile::{CompleteOn, Policy, Relaunch},
    record::{ATTEMPTS_KEPT, ContentHash, NEVER, QUEUE, RECORD_BYTES, REPEAT, Submission, waiting},
    run_task::FrozenRequest,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, json};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

const DAY: Duration = Duration::from_secs(24 * 3600 + 60);

const SHARDS: [&str; 4] = ["0", "1", "2", "3"];

fn rules() -> Rules {
    Rules {
        deployment: "prod".parse().unwrap(),
        retention: Duration::from_secs(30 * 86_400),
        timers: Timers::default(),
    }
}

/// Something that happens, in terms of the record as it then is.
#[derive(Clone, Debug)]
enum Happens {
    Due,
    /// The answer of one of the calls claimed so far, or of one that never was.
    Launch(prop::sample::Index, LaunchAnswer),
    NotFound {
        attempt: AttemptNumber,
        ago: Duration,
    },
    LookupFailed {
        attempt: AttemptNumber,
        ago: Duration,
    },
    Seen(Box<Task>),
    Missing {
        arn: String,
        ago: Duration,
        stop_sent: bool,
    },
    Stop(String),
    Resubmitted(Notify),
    Delivered {
        late: bool,
        event_bus: bool,
        task_token: bool,
    },
    NoCapacity,
    LaunchBy(u8),
}

fn attempt() -> impl Strategy<Value = AttemptNumber> {
    (1_u16..=4).prop_map(|number| AttemptNumber::try_from(number).unwrap())
}

fn arn() -> impl Strategy<Value = String> {
    // One task more often than others; one in its old short form.
    prop_oneof![
        4 => Just("arn:aws:ecs:eu-west-1:123456789012:task/nightly/0123456789abcdef0123456789abcdef".to_owned()),
        1 => Just("arn:aws:ecs:eu-west-1:123456789012:task/0123456789abcdef0123456789abcdef".to_owned()),
        1 => Just("arn:aws:ecs:eu-west-1:123456789012:task/nightly/fedcba9876543210fedcba9876543210".to_owned()),
        1 => "[ -~]{0,40}",
    ]
}

fn moment() -> impl Strategy<Value = Timestamp> {
    let near = START.millis() - 600_000..START.millis() + 3_600_000;
    prop_oneof![9 => near, 1 => any::<u64>()].prop_map(Timestamp::from_millis)
}

fn status() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "STOPPED"];
    prop_oneof![19 => select(KNOWN).prop_map(str::to_owned), 1 => "[A-Z]{0,16}"]
}

fn code() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "TaskFailedToStart",
        "EssentialContainerExited",
        "UserInitiated",
        "SpotInterruption",
        "TerminationNotice",
        "InfrastructureHealth",
    ];
    prop_oneof![19 => select(KNOWN).prop_map(str::to_owned), 1 => "[A-Za-z]{0,30}"]
}

fn words() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "CannotPullContainerError: no such image",
        "ResourceInitializationError: no secret",
        "Timeout waiting for network interface provisioning to complete.",
        "TaskFailedToStart: RESOURCE:GPU",
        "OutOfMemoryError",
    ];
    prop_oneof![3 => select(KNOWN).prop_map(str::to_owned), 1 => ".{0,1500}"]
}

fn container() -> impl Strategy<Value = Container> {
    let name = prop_oneof![4 => Just("main"), 1 => Just("log")].prop_map(str::to_owned);
    let exit_code = option::of(prop_oneof![Just(0), Just(1), Just(143), any::<i32>()]);
    (name, status(), exit_code, option::of(words())).prop_map(|(name, last_status, exit_code, reason)| Container {
        name,
        last_status,
        exit_code,
        reason,
    })
}

fn task() -> impl Strategy<Value = Task> {
    let cluster = prop_oneof![9 => Just("nightly"), 1 => Just("other")];
    let version = prop_oneof![5 => (0_u64..12).prop_map(Some), 1 => Just(None)];
    let identity = (arn(), cluster, attempt(), version);
    let standing = (status(), select(vec!["RUNNING", "STOPPED"]), option::of(code()), option::of(words()));
    let times = (option::of(moment()), option::of(moment()), option::of(moment()), option::of(moment()));
    let runs_on = option::of(select(vec!["FARGATE", "FARGATE_SPOT", "EC2"]).prop_map(str::to_owned));
    let parts = (identity, standing, vec(container(), 0..3), runs_on, times);
    parts.prop_map(|(identity, standing, containers, runs_on, times)| Task {
        arn: identity.0,
        cluster_arn: format!("arn:aws:ecs:eu-west-1:123456789012:cluster/{}", identity.1),
        attempt: identity.2,
        version: identity.3,
        last_status: standing.0,
        desired_status: standing.1.to_owned(),
        stop_code: standing.2,
        stopped_reason: standing.3,
        containers,
        runs_on,
        cpu: Some(256),
        memory: Some(512),
        started_at: times.0,
        execution_stopped_at: times.1,
        stopped_at: times.2,
        at: times.3,
    })
}

fn notify() -> impl Strategy<Value = Notify> {
    let token = select(vec!["first", "second"]).prop_map(|token| TaskToken::try_from(token.to_owned()).unwrap());
    (option::of(token), option::of(Just("ends".to_owned())))
        .prop_map(|(task_token, event_bus)| Notify { task_token, event_bus })
}

fn blocker() -> impl Strategy<Value = LaunchBlocker> {
    select(vec![LaunchBlocker::Capacity, LaunchBlocker::Access, LaunchBlocker::Other])
}

fn answer() -> impl Strategy<Value = LaunchAnswer> {
    prop_oneof![
        2 => (arn(), any::<bool>()).prop_map(|(arn, live)| LaunchAnswer::Task { arn, live }),
        2 => (blocker(), words()).prop_map(|(blocker, words)| LaunchAnswer::RefusedForNow(blocker, words)),
        1 => words().prop_map(LaunchAnswer::RefusedForGood),
        2 => words().prop_map(LaunchAnswer::Unanswered),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    let ago = || (0_u64..1_200).prop_map(Duration::from_secs);
    prop_oneof![
        5 => Just(Happens::Due),
        4 => (any::<prop::sample::Index>(), answer()).prop_map(|(call, answer)| Happens::Launch(call, answer)),
        2 => (attempt(), ago()).prop_map(|(attempt, ago)| Happens::NotFound { attempt, ago }),
        2 => (attempt(), ago()).prop_map(|(attempt, ago)| Happens::LookupFailed { attempt, ago }),
        6 => task().prop_map(|task| Happens::Seen(Box::new(task))),
        2 => (arn(), ago(), any::<bool>()).prop_map(|(arn, ago, stop_sent)| Happens::Missing { arn, ago, stop_sent }),
        1 => ".{1,85}".prop_map(Happens::Stop),
        1 => notify().prop_map(Happens::Resubmitted),
        3 => any::<(bool, bool, bool)>().prop_map(|(late, event_bus, task_token)| {
            Happens::Delivered { late, event_bus, task_token }
        }),
        1 => Just(Happens::NoCapacity),
        2 => (0_u8..4).prop_map(Happens::LaunchBy),
    ]
}

/// How long it takes until the next thing happens; none: until the record is due.
fn wait() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        2 => Just(None),
        2 => Just(Some(Duration::ZERO)),
        2 => (0_u64..90_000).prop_map(|ms| Some(Duration::from_millis(ms))),
        1 => (0_u64..7_200).prop_map(|seconds| Some(Duration::from_secs(seconds))),
    ]
}

fn relaunch() -> impl Strategy<Value = Relaunch> {
    let stop_code = select(vec!["SpotInterruption", "InfrastructureHealth"]).prop_map(str::to_owned);
    (stop_code, option::of(0_u8..3), any::<bool>()).prop_map(|(stop_code, fallback, counts)| Relaunch {
        stop_code,
        fallback,
        counts,
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let relaunch_on = vec(relaunch(), 0..2);
    let complete_on = select(vec![CompleteOn::ContainerExit, CompleteOn::TaskStopped]);
    (attempt(), relaunch_on, 0_u8..3, complete_on, option::of(1_u32..7200), option::of(1_u32..7200)).prop_map(
        |(max_attempts, relaunch_on, fallbacks, complete_on, launch_timeout, run_timeout)| Policy {
            max_attempts,
            relaunch_on,
            fallbacks,
            complete_on,
            launch_timeout,
            run_timeout,
        },
    )
}

/// The beginning of a life, with the call that it claims.
fn beginning() -> impl Strategy<Value = (Record, Option<Call>)> {
    let labels = prop::collection::btree_map("[a-z_]{1,10}", "[ -~]{0,15}", 0..4);
    let deadline = option::of((0_u64..7_200).prop_map(|seconds| START.plus(Duration::from_secs(seconds))));
    (0..9, policy(), labels, deadline, notify()).prop_map(|(kind, policy, labels, launch_deadline, notify)| {
        let submission = Submission { notify, ..submission(policy, labels, launch_deadline) };
        match kind {
            0 => (Record::tombstone(submission.submission_id, "overtaken", START, &rules()), None),
            1..4 => (Record::queued(submission, START, &rules()), None),
            8 => (Record::waiting(submission, START, &rules()), None),
            _ => Record::launching(submission, START, &rules()),
        }
    })
}

fn submission(policy: Policy, labels: BTreeMap<String, String>, launch_deadline: Option<Timestamp>) -> Submission {
    let profile: ProfileName = "etl-nightly".parse().unwrap();
    Submission {
        // What Airflow's executor makes of a task instance: as long as an id may be.
        submission_id: "x".repeat(60).parse().unwrap(),
        content_hash: ContentHash::of(&["true".to_owned()], &json!({}), &profile),
        placement: None,
        profile,
        container_name: "main".to_owned(),
        cluster: "nightly".to_owned(),
        policy,
        request: FrozenRequest::freeze(&[Map::new()]),
        labels,
        launch_deadline,
        priority: Default::default(),
        pool: None,
        notify: Default::default(),
    }
}

/// A record, its clock, and the calls that were claimed.
struct Life {
    record: Record,
    now: Timestamp,
    calls: Vec<Call>,
}

impl Life {
    fn input(&self, happens: Happens) -> Input {
        let ago = |ago: Duration| Timestamp::from_millis(self.now.millis() - ago.as_millis() as u64);
        match happens {
            Happens::Due => Input::Due,
            Happens::Launch(index, answer) => {
                let never_claimed = Call {
                    attempt: self.record.attempt.number,
                    choice: 0,
                    since: self.now,
                    nth: 1,
                    claimed_at: self.now,
                };
                Input::Launch(*self.calls.get(index.index(self.calls.len() + 1)).unwrap_or(&never_claimed), answer)
            }
            Happens::NotFound { attempt, ago: by } => Input::NotFound(attempt, ago(by)),
            Happens::LookupFailed { attempt, ago: by } => {
                Input::LookupFailed { attempt, at: ago(by), reason: "AccessDeniedException".to_owned() }
            }
            Happens::Seen(task) => Input::Seen(*task),
            Happens::Missing { arn, ago: by, stop_sent } => Input::Missing { task_arn: arn, at: ago(by), stop_sent },
            Happens::Stop(reason) => Input::Stop(reason),
            Happens::Resubmitted(notify) => Input::Resubmitted(notify),
            Happens::Delivered { late, event_bus, task_token } => {
                let claims = self
                    .record
                    .pending_notifications
                    .as_ref()
                    .map_or(0, |pending_notifications| pending_notifications.claims);
                let nth = claims.saturating_sub(u32::from(late));
                Input::Delivered(Delivery { nth, event_bus, task_token, error: None })
            }
            Happens::NoCapacity => Input::NoCapacity,
            Happens::LaunchBy(choice) => Input::LaunchBy(choice),
        }
    }

    fn learn(&mut self, happens: Happens) -> Result<(), TestCaseError> {
        let input = self.input(happens);
        let Decision { record, action, .. } = decide(&self.record, &input, self.now, &rules());
        if let Some(next) = record {
            check_write(&self.record, &next, self.now)?;
            check_exit_code(&self.record, &next, &input)?;
            check_row(&next)?;
            check_partition(&next, self.now)?;
            if matches!(action, Some(Action::RunTask(_))) {
                let due = self.record.due.clone().unwrap_or_default();
                prop_assert!(!SHARDS.contains(&&*due), "launched where no launch token is: {}", due);
            }
            self.record = next;
        } else if input == Input::Due && self.record.check_at.is_some_and(|check_at| check_at <= self.now) {
            return Err(TestCaseError::fail("what was due changes nothing, and is due for ever"));
        }
        if let Some(Action::RunTask(call)) = action {
            check_call(&self.record, call, self.now)?;
            self.calls.push(call);
        }
        // At least once means: once more.
        if matches!(input, Input::Seen(_)) {
            let again = decide(&self.record, &input, self.now, &rules());
            prop_assert!(again.record.is_none(), "a duplicate is written: {:#?}", again.record);
        }
        Ok(())
    }
}

fn check_write(before: &Record, after: &Record, now: Timestamp) -> Result<(), TestCaseError> {
    prop_assert_eq!(after.rev, before.rev + 1);
    prop_assert_eq!(after.updated_at, now);
    let mut same = after.clone();
    (same.rev, same.updated_at) = (before.rev, before.updated_at);
    prop_assert_ne!(&same, before, "a write that changes nothing");

    let follows = before.state() == after.state() || before.state().successors().contains(&after.state());
    prop_assert!(follows, "{} to {}", before.state(), after.state());
    if before.state().is_terminal() {
        let end = |record: &Record| {
            let Record { attempt, feed, changed_at, .. } = record.clone();
            (record.state(), attempt.exit_code, attempt.number, feed, changed_at)
        };
        prop_assert_eq!(end(before), end(after));
        prop_assert!(
            before.pending_notifications != after.pending_notifications || before.expires_at == after.expires_at
        );
    }
    if after.state().is_terminal() {
        return Ok(());
    }
    if let Some(check_at) = after.check_at.filter(|_| after.stop_requested.is_some()) {
        prop_assert!(check_at <= now.plus(rules().timers.stop_every), "a wanted stop waits for {check_at:?}");
    }
    if after.attempt.number > before.attempt.number {
        prop_assert_eq!(after.state(), State::Queued);
        prop_assert!(before.stop_requested.is_none(), "another attempt after a stop");
        prop_assert!(!before.attempt.seen_running || after.ran_before, "what was seen to run counts as never started");
        prop_assert!(after.ran_before <= !after.policy.relaunch_on.is_empty(), "launched again after it ran");
        prop_assert!(
            after.attempt.task_arn.is_none()
                && after.attempt.ecs_version.is_none()
                && after.attempt.calls.unanswered_since.is_none()
        );
    } else {
        prop_assert_eq!(after.attempt.number, before.attempt.number);
    }
    Ok(())
}

fn check_exit_code(before: &Record, after: &Record, input: &Input) -> Result<(), TestCaseError> {
    if after.attempt.exit_code != before.attempt.exit_code && after.attempt.exit_code.is_some() {
        let Input::Seen(task) = input else { return Err(TestCaseError::fail("an exit code that no event reported")) };
        prop_assert_eq!(after.attempt.exit_code, task.exit_code("main"));
        prop_assert_eq!((task.attempt, &task.arn), (after.attempt.number, after.attempt.task_arn.as_ref().unwrap()));
    }
    if after.state().is_terminal() {
        prop_assert_eq!(after.state() == State::Succeeded, after.attempt.exit_code == Some(0));
    }
    Ok(())
}

/// What holds of every row, however it came about.
fn check_row(record: &Record) -> Result<(), TestCaseError> {
    let over = record.state().is_terminal();
    let at_rest = over && record.pending_notifications.is_none();
    prop_assert_eq!((record.check_at.is_none(), record.due.is_none()), (at_rest, at_rest));
    prop_assert_eq!(record.expires_at != NEVER, at_rest, "DynamoDB removes a record with pending notifications");
    prop_assert_eq!((record.feed.is_some(), record.changed_at.is_some()), (over, over));
    if over {
        prop_assert!(record.request.is_none());
    }
    if matches!(record.state(), State::Queued | State::Launching) {
        prop_assert!(record.request.is_some());
    }
    if matches!(record.state(), State::Launched | State::Running) {
        prop_assert!(record.attempt.task_arn.is_some() && record.attempt.launched_at.is_some());
    }
    prop_assert_eq!(record.state() == State::Launching, record.attempt.calls.unanswered_since.is_some());
    let counted = record.attempt.number.get() - record.given_up - u16::from(record.uncounted);
    prop_assert!(counted <= record.policy.max_attempts.get());
    prop_assert_eq!(record.attempts.len(), (usize::from(record.attempt.number.get()) - 1).min(ATTEMPTS_KEPT));
    prop_assert!(record.bytes() < RECORD_BYTES, "{} bytes: {record:#?}", record.bytes());
    let text = serde_json::to_string(record).unwrap();
    prop_assert_eq!(&serde_json::from_str::<Record>(&text).unwrap(), record);
    Ok(())
}

/// What is served with a launch token is what needs one, and the other way round.
fn check_partition(record: &Record, now: Timestamp) -> Result<(), TestCaseError> {
    let (Some(due), Some(check_at)) = (record.due.as_deref(), record.check_at) else { return Ok(()) };
    if record.state().is_terminal() {
        prop_assert!(SHARDS.contains(&due), "{} is shown with a launch token", due);
        return Ok(());
    }
    let queued = due == QUEUE || due == waiting(&record.first().unwrap());
    let is_queued = record.state() == State::Queued;
    prop_assert_eq!(is_queued, queued || is_queued && due == REPEAT, "{} in {}", record.state(), due);
    prop_assert_eq!(due == REPEAT && !is_queued, record.may_repeat(check_at.max(now), &rules()), "{:#?}", record);
    prop_assert!(queued || due == REPEAT || SHARDS.contains(&due), "{} is served by nobody", due);
    if record.waits_for_capacity() {
        prop_assert!(record.attempt.reason.is_some());
        let expires = record.launch_deadline.map(|deadline| deadline.plus(Duration::from_millis(1)));
        prop_assert!(expires.is_none_or(|expires| check_at <= expires), "it expires when it is served");
    }
    Ok(())
}

fn check_call(record: &Record, call: Call, now: Timestamp) -> Result<(), TestCaseError> {
    prop_assert_eq!(record.state(), State::Launching);
    prop_assert_eq!(
        (call.attempt, call.nth, call.claimed_at),
        (record.attempt.number, record.attempt.calls.launch_calls, now)
    );
    prop_assert_eq!(
        (Some(call.since), Some(now)),
        (record.attempt.calls.unanswered_since, record.attempt.calls.last_call_at)
    );
    prop_assert!(record.stop_requested.is_none() && !record.is_past_deadline(now));
    prop_assert!(call.nth == 1 || now < call.since.plus(rules().timers.repeat_for));
    prop_assert!(record.check_at >= Some(now.plus(rules().timers.lease)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_sound_for_any_input_order(
        (record, call) in beginning(),
        life in vec((wait(), happens()), 1..40),
    ) {
        check_row(&record)?;
        let mut all = Life { record, now: START, calls: call.into_iter().collect() };
        for (wait, happens) in life {
            all.now = match wait {
                Some(wait) => all.now.plus(wait),
                None => all.record.check_at.map_or(all.now, |check_at| check_at.max(all.now)),
            };
            all.learn(happens)?;
        }
    }

    /// From some moment on no event arrives, and ECS answers nothing that helps: reconcile alone ends everything, within
    /// 4 hours where ECS answers at all, within 30 where it denies every call. A notification that fails is given up a day later.
    #[test]
    fn submissions_end_by_timer_alone(
        (record, call) in beginning(),
        life in vec((wait(), happens()), 0..12),
        outage in select(vec![Outage::Timeouts, Outage::Rejections, Outage::Denials]),
    ) {
        let mut all = Life { record, now: START, calls: call.into_iter().collect() };
        for (wait, happens) in life {
            all.now = all.now.plus(wait.unwrap_or_default());
            all.learn(happens)?;
        }
        let begun = all.now;
        while let Some(check_at) = all.record.check_at {
            all.now = all.now.max(check_at);
            prop_assert!(all.now.since(begun) < outage.lasts() + DAY, "{:#?}", all.record);
            let mut learnt = Some(Input::Due);
            let has_ended = all.record.state().is_terminal();
            prop_assert!(has_ended || all.now.since(begun) < outage.lasts(), "{:#?}", all.record);
            while let Some(input) = learnt.take() {
                let Decision { record, action, .. } = decide(&all.record, &input, all.now, &rules());
                all.record = record.unwrap_or(all.record);
                learnt = action.and_then(|action| outage.answers(action, all.record.attempt.number, all.now));
            }
        }
        check_row(&all.record)?;
    }

    #[test]
    fn timestamps_near_maximum_do_not_overflow((record, call) in beginning(), what in vec(happens(), 1..10)) {
        let mut all = Life { record, now: Timestamp::from_millis(u64::MAX - 1), calls: call.into_iter().collect() };
        for happens in what {
            let input = all.input(happens);
            all.record = decide(&all.record, &input, all.now, &rules()).record.unwrap_or(all.record);
        }
    }
}

/// An ECS that launches nothing, from some moment on.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// RunTask is not answered, and ECS has forgotten every task.
    Timeouts,
    /// RunTask is refused for good, and ECS has forgotten every task.
    Rejections,
    /// Every call is denied.
    Denials,
}

impl Outage {
    fn lasts(self) -> Duration {
        match self {
            Self::Timeouts | Self::Rejections => Duration::from_secs(4 * 3600),
            Self::Denials => Duration::from_secs(30 * 3600),
        }
    }

    fn answers(self, action: Action, attempt: AttemptNumber, now: Timestamp) -> Option<Input> {
        let reason = "AccessDeniedException".to_owned();
        match (action, self) {
            (Action::RunTask(call), _) => Some(Input::Launch(
                call,
                match self {
                    Self::Timeouts => LaunchAnswer::Unanswered("timeout".to_owned()),
                    Self::Rejections => LaunchAnswer::RefusedForGood("ClusterNotFoundException".to_owned()),
                    Self::Denials => LaunchAnswer::RefusedForNow(LaunchBlocker::Access, reason),
                },
            )),
            (Action::LookUp(attempt), Self::Timeouts | Self::Rejections) => Some(Input::NotFound(attempt, now)),
            (Action::LookUp(attempt), Self::Denials) => Some(Input::LookupFailed { attempt, at: now, reason }),
            (Action::Stop { then: decide::AfterStop::Nothing, .. }, _) => None,
            (Action::Notify(_), Self::Timeouts) => None,
            (Action::Notify(nth), Self::Rejections | Self::Denials) => {
                Some(Input::Delivered(Delivery { nth, error: Some(reason), ..Delivery::default() }))
            }
            (Action::Stop { then: decide::AfterStop::GiveUp(at), task_arn, .. }, _) => {
                Some(Input::Missing { task_arn, at, stop_sent: true })
            }
            (Action::Describe { task_arn, .. } | Action::Stop { task_arn, .. }, Self::Timeouts | Self::Rejections) => {
                Some(Input::Missing { task_arn, at: now, stop_sent: false })
            }
            (Action::Describe { .. } | Action::Stop { .. }, Self::Denials) => {
                Some(Input::LookupFailed { attempt, at: now, reason })
            }
        }
    }
}
