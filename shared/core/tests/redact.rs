//! No fragment of a command or an environment survives in an error text, however it is quoted there.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use ecs_bridge_core::{
    AttemptNumber, Container, Input, Record, Rules, State, Task, Timers, Timestamp, api, decide,
    notify::Listeners,
    profile::{Clusters, Profiles},
    run_task::redact,
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

const FRAGMENT: usize = 6;

/// A secret, or one made of others: they contain each other.
fn secrets() -> impl Strategy<Value = Vec<String>> {
    let part = "[a-z0-9 \"\\\\\n\tä€/=-]{1,14}";
    (vec(part, 1..4), vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4)).prop_map(
        |(mut secrets, joined)| {
            for (one, other) in joined {
                let (one, other) = (one.get(secrets.as_slice()).clone(), other.get(secrets.as_slice()).clone());
                secrets.push(format!("{one}{other}"));
            }
            secrets
        },
    )
}

/// How a message quotes a secret.
#[derive(Clone, Copy, Debug)]
enum Quoted {
    Whole,
    Escaped,
    EscapedTwice,
    Cut,
    Wrapped,
}

impl Quoted {
    fn quote(self, secret: &str) -> String {
        let escaped = |text: &str| json!(text).to_string();
        match self {
            Self::Whole => secret.to_owned(),
            Self::Escaped => escaped(secret),
            Self::EscapedTwice => escaped(&escaped(secret)),
            Self::Cut => secret.chars().take(secret.chars().count() * 2 / 3).chain("...".chars()).collect(),
            Self::Wrapped => secret.chars().flat_map(|character| [character, '\n', ' ']).collect(),
        }
    }
}

fn visible(text: &str) -> Vec<char> {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_fragment_of_a_secret_survives(
        secrets in secrets(),
        quotes in vec((any::<prop::sample::Index>(), select(vec![
            Quoted::Whole, Quoted::Escaped, Quoted::EscapedTwice, Quoted::Cut, Quoted::Wrapped,
        ]), "[A-Z.,:]{0,6}"), 1..6),
        as_environment in any::<bool>(),
    ) {
        let container = if as_environment {
            let environment: Vec<_> = secrets.iter().map(|value| json!({"name": "K", "value": value})).collect();
            json!({"name": "main", "environment": environment})
        } else {
            json!({"name": "main", "command": secrets})
        };
        let body = json!({"overrides": {"containerOverrides": [container]}}).to_string();
        let mut message = "InvalidParameterException: ".to_owned();
        for (index, quoted, between) in quotes {
            message += &quoted.quote(index.get::<String>(&secrets));
            message += &between;
        }
        let redacted = redact(&message, &body);
        // The marker itself is no secret; nor is what a secret shares with it.
        let left: String = visible(&redacted.replace("[redacted]", "\u{0}")).into_iter().collect();
        for secret in &secrets {
            for fragment in visible(secret).windows(FRAGMENT) {
                let fragment: String = fragment.iter().collect();
                prop_assert!(!left.contains(&fragment), "{fragment:?} of {secret:?} is left in {redacted:?}");
            }
        }
    }

    #[test]
    fn a_message_without_a_secret_stays_as_it_is(message in "[A-Z .,:]{0,80}", secrets in secrets()) {
        let body = json!({"overrides": {"containerOverrides": [{"name": "main", "command": secrets}]}}).to_string();
        prop_assert_eq!(redact(&message, &body), message);
    }
}

/// A launched submission with a secret in its command, after ECS has said `stopped_reason` and `reason` of its task.
fn stopped(stopped_reason: &str, reason: &str) -> Record {
    let profiles =
        json!({"default": {"run_task": {"taskDefinition": "etl"}, "container_name": "main", "max_attempts": 1}});
    let profiles = Profiles::parse(&profiles.to_string(), &Clusters::new("nightly", "")).unwrap();
    let body = json!({"submissions": [{"submission_id": "a", "command": ["etl", "--password", "hunter2hunter2"]}]});
    let item = api::submissions(body.to_string().as_bytes(), &profiles, &Listeners::default()).unwrap().remove(0);
    let rules = Rules {
        deployment: "prod".parse().unwrap(),
        retention: Duration::from_secs(86_400),
        timers: Timers::default(),
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    let (record, _) = Record::launching(item.submission.unwrap(), now, &rules);
    let task = Task {
        arn: "arn:aws:ecs:eu-west-1:123456789012:task/nightly/0123456789abcdef0123456789abcdef".to_owned(),
        cluster_arn: "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned(),
        attempt: AttemptNumber::FIRST,
        version: Some(1),
        last_status: "STOPPED".to_owned(),
        desired_status: "STOPPED".to_owned(),
        stop_code: Some("TaskFailedToStart".to_owned()),
        stopped_reason: Some(stopped_reason.to_owned()),
        containers: vec![Container {
            name: "main".to_owned(),
            last_status: "STOPPED".to_owned(),
            exit_code: None,
            reason: Some(reason.to_owned()),
        }],
        runs_on: None,
        cpu: None,
        memory: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        at: None,
    };
    decide(&record, &Input::Seen(task), now, &rules).record.unwrap()
}

#[test]
fn task_reasons_are_recorded_without_command() {
    let record = stopped(
        "main could not start with hunter2hunter2",
        "CannotStartContainerError: OCI runtime create failed: args [etl --password hunter2hu…",
    );
    assert_eq!(record.state(), State::Failed);
    assert_eq!(record.attempt.stopped_reason.as_deref(), Some("main could not start with [redacted]"));
    let reason = record.attempt.reason.unwrap();
    assert!(reason.starts_with("TaskFailedToStart: CannotStartContainerError: OCI runtime create failed"), "{reason}");
    assert!(!reason.contains("hunter") && !reason.contains("password"), "{reason}");
}
