//! The table of `ARCHITECTURE.md`: what each input leads to in each state.
//! `ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core table_of_states` writes it.

use std::{env, fs, path::Path};

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md");
const BEGIN: &str = "<!-- Written from `decide` by shared/core/src/decide/tests/table.rs. -->\n";

type InputOf = fn(&Record) -> Input;

/// A record in each state, as an ordinary submission reaches it.
fn records() -> [Record; 6] {
    let running = || {
        let mut life = Life::launched(Policy::default());
        life.see(task("RUNNING"));
        life
    };
    let mut succeeded = running();
    succeeded.see(ended(Some(0)));
    let mut lost = running();
    for stop_sent in [false, true] {
        lost.now = lost.now.plus(HOUR);
        let (task_arn, at) = (lost.record.attempt.task_arn.clone().unwrap(), lost.now);
        lost.learn(Input::Missing { task_arn, at, stop_sent });
    }
    let launching = Life::launching().0.record;
    let launched = Life::launched(Policy::default()).record;
    [Life::queued().record, launching, launched, running().record, succeeded.record, lost.record]
}

/// A stopped task with this exit code.
fn ended(exit_code: Option<i32>) -> Task {
    Task {
        version: Some(9),
        stop_code: Some("EssentialContainerExited".to_owned()),
        containers: vec![container("STOPPED", exit_code)],
        ..task("STOPPED")
    }
}

/// RunTask's answer to the last call, or to a first one if there was none.
fn answer(record: &Record, answer: LaunchAnswer) -> Input {
    let calls = &record.attempt.calls;
    let since = calls.unanswered_since.unwrap_or(record.created_at);
    let nth = calls.launch_calls.max(1);
    Input::Launch(Call { attempt: record.attempt.number, choice: 0, since, nth, claimed_at: since }, answer)
}

const INPUTS: [(&str, InputOf); 11] = [
    ("`check_at` passes", |_| Input::Due),
    ("RunTask returns a task", |record| answer(record, live_task())),
    ("RunTask fails, retryable", |record| {
        answer(record, LaunchAnswer::RefusedForNow(LaunchBlocker::Other, "throttled".to_owned()))
    }),
    ("RunTask fails, permanent", |record| answer(record, LaunchAnswer::RefusedForGood("no such image".to_owned()))),
    ("ListTasks finds no task", |record| Input::NotFound(record.attempt.number, record.updated_at.plus(HOUR))),
    ("the task is RUNNING", |_| Input::Seen(Task { version: Some(8), ..task("RUNNING") })),
    ("STOPPED, exit code 0", |_| Input::Seen(ended(Some(0)))),
    ("STOPPED, exit code 1", |_| Input::Seen(ended(Some(1)))),
    ("STOPPED, no exit code", |_| Input::Seen(ended(None))),
    ("ECS calls it MISSING", |record| Input::Missing {
        task_arn: record.attempt.task_arn.clone().unwrap_or_default(),
        at: record.updated_at.plus(HOUR),
        stop_sent: false,
    }),
    ("the caller stops it", |_| Input::Stop("not needed".to_owned())),
];

/// What a decision does, in a few words.
fn cell(record: &Record, input: &Input) -> String {
    let now = record.check_at.unwrap_or(record.updated_at).max(record.updated_at.plus(HOUR));
    let Decision { record: next, action, alarm } = decide(record, input, now, &rules());
    let change = next
        .map(|next| if next.state() == record.state() { "noted".to_owned() } else { format!("`{}`", next.state()) });
    let action = action.map(|action| {
        match action {
            Action::RunTask(_) => "RunTask",
            Action::LookUp(_) => "ListTasks",
            Action::Describe { .. } => "DescribeTasks",
            Action::Stop { .. } => "StopTask",
            Action::Notify(_) => "notify",
        }
        .to_owned()
    });
    let words: Vec<_> =
        [change.filter(|change| change != "noted" || action.is_none()), action, alarm.map(|_| "alarm".to_owned())]
            .into_iter()
            .flatten()
            .collect();
    if words.is_empty() { "–".to_owned() } else { words.join(", ") }
}

fn table() -> String {
    let records = records();
    let names: Vec<_> = records.iter().map(|record| format!("`{}`", record.state())).collect();
    let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
    let lines = INPUTS
        .iter()
        .map(|(name, input)| row(name, records.iter().map(|record| cell(record, &input(record))).collect()));
    format!("{}|{}\n{}", row("Input", names), "---|".repeat(records.len() + 1), lines.collect::<String>())
}

#[test]
fn table_of_states_is_current() {
    let page = fs::read_to_string(Path::new(PAGE)).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let after = rest.find("\n\n").map_or("", |end| &rest[end..]);
    let written = format!("{before}{BEGIN}{}{after}", table().trim_end());
    if env::var_os("ECS_BRIDGE_WRITE").is_some() {
        fs::write(PAGE, written).unwrap();
    } else {
        let how = "ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core table_of_states";
        assert!(written == page, "the table of ARCHITECTURE.md is not current: {how}\n{}", table());
    }
}

#[test]
fn each_cell_keeps_to_the_table_of_changes() {
    for record in records() {
        for (name, input) in INPUTS {
            let at = record.updated_at.plus(HOUR);
            let decision = decide(&record, &input(&record), at, &rules());
            assert!(!matches!(decision.alarm, Some(Alarm::IllegalChange(_))), "{name} in {}", record.state());
            let is_final = decision.record.is_none_or(|next| next.state() == record.state());
            assert!(is_final || !record.state().is_terminal(), "{name} in {}", record.state());
        }
    }
}
