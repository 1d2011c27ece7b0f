//! The table of advice, and what is written from it: docs/troubleshooting.md, the Python client's advice.json, and cases by which
//! its tests see that both come to the same. `ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core --test advice` writes them.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path};

use ecs_bridge_core::{
    Record, State,
    advice::{ADVICE, Entry, Matcher, advice, of_refusal},
};
use serde_json::{Value, json};

const GUIDE: &str = "docs/troubleshooting.md";
const BEGIN: &str = "<!-- advice: written by shared/core/tests/advice.rs -->\n";
const END: &str = "<!-- advice: end -->\n";

fn entries() -> impl Iterator<Item = &'static Entry> {
    ADVICE.iter().flat_map(|chapter| chapter.entries)
}

/// A record to which an entry applies, by no more than it needs.
fn record(when: Matcher) -> Value {
    let mut record = json!({"submission_id": "a", "schema": 1, "rev": 2, "state": "failed", "attempt": 1, "created_at": 1,
                            "updated_at": 2, "expires_at": 3});
    let (name, value) = match when {
        Matcher::Contains(words) => ("reason", Value::from(words.join(" … ").to_ascii_uppercase())),
        Matcher::StartsWith(word) => ("stopped_reason", format!("{}: …", word.to_ascii_uppercase()).into()),
        Matcher::Hint(hint) => ("hint", json!(hint)),
        Matcher::ExitCode(code) => ("exit_code", code.into()),
        Matcher::StopCode(code) => ("stop_code", code.into()),
        Matcher::State(state) => ("state", json!(state)),
    };
    record.as_object_mut().unwrap().insert(name.to_owned(), value);
    record
}

fn parse(record: &Value) -> Record {
    serde_json::from_value(record.clone()).unwrap()
}

/// The record of an entry, with these members too.
fn with(when: Matcher, members: Value) -> Record {
    let mut record = record(when);
    record.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    parse(&record)
}

#[test]
fn no_entry_hides_a_later_one() {
    for entry in entries() {
        assert_eq!(advice(&parse(&record(entry.when))), Some(entry.advice), "{:?}", entry.when);
    }
}

#[test]
fn advice_matches_lower_case_and_ends_with_period() {
    for entry in entries() {
        let words: Vec<&str> = match entry.when {
            Matcher::Contains(words) => words.to_vec(),
            Matcher::StartsWith(word) => vec![word],
            Matcher::Hint(_) | Matcher::ExitCode(_) | Matcher::StopCode(_) | Matcher::State(_) => vec![],
        };
        assert!(words.iter().all(|word| *word == word.to_ascii_lowercase()), "{words:?}");
        assert!(entry.advice.ends_with('.') && !entry.advice.contains('\n'), "{}", entry.advice);
    }
}

#[test]
fn advice_exists_exactly_for_failures() {
    for state in State::ALL {
        let record = with(Matcher::ExitCode(3), json!({"state": state, "reason": "something new"}));
        let is_bad = matches!(state, State::Failed | State::Rejected | State::Expired | State::Lost);
        assert_eq!(advice(&record).is_some(), is_bad, "{state}");
    }
    let succeeded = with(Matcher::ExitCode(0), json!({"state": "succeeded", "stop_code": "SpotInterruption"}));
    assert_eq!(advice(&succeeded), None);
}

#[test]
fn waiting_submission_shows_its_wait_reason() {
    let waiting = with(Matcher::ExitCode(0), json!({"state": "queued", "reason": "RESOURCE:MEMORY", "created_at": 1}));
    assert!(advice(&waiting).unwrap().contains("fallbacks"));
}

#[test]
fn denied_access_has_its_own_advice_in_complete_iam_messages() {
    let user = "AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/bridge-submit/bridge-submit is not \
                authorized to perform:";
    for (message, expected) in [
        (
            "ecs:RunTask on resource: arn:aws:ecs:us-east-1:123456789012:task-definition/etl:7 because no identity-based policy \
          allows the ecs:RunTask action",
            "missing a permission",
        ),
        (
            "ecs:RunTask on resource: arn:aws:ecs:us-east-1:123456789012:task-definition/gpu-memory:7 with an explicit deny in a \
          service control policy",
            "missing a permission",
        ),
        (
            "iam:PassRole on resource: arn:aws:iam::123456789012:role/etl because no identity-based policy allows the \
          iam:PassRole action",
            "PassRoleArns",
        ),
        (
            "ecs:TagResource on resource: arn:aws:ecs:us-east-1:123456789012:task/other/* because no resource-based policy \
          allows the ecs:TagResource action",
            "MoreClusterArns",
        ),
        (
            "ecs:RunTask on resource: * because no permissions boundary allows the ecs:RunTask action",
            "missing a permission",
        ),
    ] {
        let advice = of_refusal(&format!("{user} {message}")).unwrap();
        assert!(advice.contains(expected), "{message}: {advice}");
    }
    for (reason, expected) in [
        ("RESOURCE:SOMETHING", "No container instance"),
        ("TaskFailedToStart: RESOURCE:SOMETHING", "No container instance"),
        (
            "InvalidParameterException: Error retrieving security group information for [sg-0aa]: Request limit exceeded. \
          (ErrorCode: RequestLimitExceeded)",
            "throttled",
        ),
        (
            "InvalidParameterException: Error retrieving subnet information for [subnet-0aa]: An internal error has occurred \
          (ErrorCode: InternalError)",
            "retries",
        ),
        (
            "TaskFailedToStart: CannotPullImageManifestError: Error response from daemon: toomanyrequests",
            "registry limits",
        ),
        (
            "ClientException: ECS was unable to assume the role 'arn:aws:iam::123456789012:role/etl' that was provided for this \
          task.",
            "ecs-tasks.amazonaws.com",
        ),
        (
            "InvalidParameterException: ECS was unable to assume the infrastructure role 'arn:aws:iam::123456789012:role/v'.",
            "infrastructure role",
        ),
        (
            "ResourceInitializationError: unable to pull secrets or registry auth: AccessDeniedException: User: x is not \
          authorized to perform: secretsmanager:GetSecretValue on resource: arn:aws:secretsmanager:x",
            "execution role",
        ),
    ] {
        let advice = of_refusal(reason).unwrap();
        assert!(advice.contains(expected), "{reason}: {advice}");
    }
}

#[test]
fn killed_container_has_the_advice_of_what_killed_it() {
    let killed = |stop_code: &str, stopped_reason: &str| {
        let reason = "container main exited with 137";
        let killed = json!({"stop_code": stop_code, "stopped_reason": stopped_reason, "reason": reason});
        let record = with(Matcher::ExitCode(137), killed);
        advice(&record).unwrap()
    };
    for (stop_code, stopped_reason, expected) in [
        ("SpotInterruption", "Your Spot Task was interrupted.", "Spot"),
        ("InfrastructureHealth", "Task stopped due to an unhealthy underlying host.", "host"),
        ("ServiceSchedulerInitiated", "Scaling activity initiated by deployment", "scheduler"),
        (
            "UserInitiated",
            "ECS is performing maintenance on the underlying infrastructure hosting the task.",
            "maintained",
        ),
    ] {
        let advice = killed(stop_code, stopped_reason);
        assert!(advice.contains(expected) && !advice.contains("memory"), "{stop_code}: {advice}");
    }
    assert!(killed("EssentialContainerExited", "Essential container in task exited").contains("memory"));
}

#[test]
fn ordinary_failure_names_the_logs() {
    for code in [1, 2, 3, 134, 139] {
        let failed = advice(&parse(&record(Matcher::ExitCode(code)))).unwrap();
        assert!(failed.contains("`ecs-bridge logs`") && !failed.contains("ecs-bridge show"), "{failed}");
    }
}

/// How the guide names what is seen.
fn seen(when: Matcher) -> String {
    match when {
        Matcher::Contains(words) => words.iter().map(|word| format!("*{word}*")).collect::<Vec<_>>().join(" and "),
        Matcher::StartsWith(word) => format!("*{word}* first"),
        Matcher::Hint(hint) => format!("hint `{}`", json!(hint).as_str().unwrap()),
        Matcher::ExitCode(code) => format!("exit code {code}"),
        Matcher::StopCode(code) => format!("stop code `{code}`"),
        Matcher::State(state) => format!("state `{state}`"),
    }
}

fn guide(before: &str) -> String {
    let (head, rest) = before.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let mut table = String::new();
    for chapter in ADVICE {
        write!(
            table,
            "\n## {}\n\nThe following table lists the remedies.\n\n| Message or Symptom | Remedy |\n|---|---|\n",
            chapter.title
        )
        .unwrap();
        // What is said alike stands together.
        let mut shown = BTreeSet::new();
        for entry in chapter.entries.iter().filter(|entry| shown.insert(entry.advice)) {
            let same = chapter.entries.iter().filter(|other| other.advice == entry.advice);
            let seen: Vec<_> = same.map(|other| seen(other.when)).collect();
            writeln!(table, "| {} | {} |", seen.join("; "), entry.advice).unwrap();
        }
    }
    format!("{head}{BEGIN}{table}\n{END}{tail}")
}

fn for_the_client() -> String {
    let entries = entries().map(|Entry { when, advice }| {
        let (name, value) = match when {
            Matcher::Contains(words) => ("says", json!(words)),
            Matcher::StartsWith(word) => ("begins", json!(word)),
            Matcher::Hint(hint) => ("hint", json!(hint)),
            Matcher::ExitCode(code) => ("exit_code", json!(code)),
            Matcher::StopCode(code) => ("stop_code", json!(code)),
            Matcher::State(state) => ("state", json!(state)),
        };
        format!("  {}", json!({name: value, "advice": advice}))
    });
    format!("[\n{}\n]\n", entries.collect::<Vec<_>>().join(",\n"))
}

fn cases() -> String {
    let states = State::ALL.map(|state| with(Matcher::ExitCode(137), json!({"state": state})));
    let records = entries().map(|entry| record(entry.when)).chain(states.iter().map(|record| json!(record)));
    let cases = records.map(|record| format!("  {}", json!({"record": record, "advice": advice(&parse(&record))})));
    format!("[\n{}\n]\n", cases.collect::<Vec<_>>().join(",\n"))
}

#[test]
fn generated_advice_files_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let written = fs::read_to_string(root.join(GUIDE)).unwrap();
    for (name, text) in [
        (GUIDE, guide(&written)),
        ("python/ecs_bridge/src/ecs_bridge/advice.json", for_the_client()),
        ("tests/fixtures/advice.json", cases()),
    ] {
        let path = root.join(name);
        if env::var_os("ECS_BRIDGE_WRITE").is_some() {
            fs::write(path, text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            panic!("{name} is not current: ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core --test advice");
        }
    }
}
