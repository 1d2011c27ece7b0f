//! What must hold of any bytes that reach a parser: no panic, and no error that quotes what was sent.
//!
//! The fuzz targets run these on bytes made up, the tests of the core on the corpus.
#![allow(dead_code, reason = "each fuzz target runs one of them")]

use std::{collections::BTreeMap, time::Duration};

use ecs_bridge_core::{
    Attempt, Input, Record, Rules, StartedBy, SubmissionId, Timers, Timestamp, api, decide,
    event::{self, Event},
    profile::{Clusters, Policy, Profiles},
    record::{ContentHash, Submission},
    run_task::FrozenRequest,
};
use serde_json::{Map, Value, json};

/// Stands in for whatever must not be repeated. It is not a valid name, so that nothing may echo it.
const SECRET: &str = "hunter2!";

/// An event, as task-state gets it.
pub fn event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match event::parse(text, &rules().deployment) {
        Ok(Event::Foreign) => {}
        Ok(Event::Ours(_, task)) => {
            let (record, _) = Record::launching(submission(), now(), &rules());
            let next = decide(&Record { attempt: task.attempt, ..record }, &Input::Seen(*task), now(), &rules());
            if let Some(next) = next.record {
                assert!(serde_json::to_value(&next).is_ok());
            }
        }
        Err(error) => {
            // It tells where, and which event; an id is letters, digits and dashes.
            let told = error.to_string();
            assert!(told.len() < 256, "{told}");
            assert!(told.chars().all(|char| char.is_ascii_alphanumeric() || " (),-.".contains(char)), "{told}");
        }
    }
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        plant(&mut value, &["source", "detail-type", "startedBy"]);
        if let Err(error) = event::parse(&value.to_string(), &rules().deployment) {
            keeps_the_secret(&error.to_string());
        }
    }
}

/// The bodies of the API, as submit gets them.
pub fn request(data: &[u8]) {
    let profiles = profiles_to_submit_with();
    for body in [data.to_vec(), planted(data, &["submission_id", "profile"])] {
        let secret = body != data;
        let tell = |message: &str| {
            if secret {
                keeps_the_secret(message);
            }
        };
        match api::submissions(&body, &profiles) {
            Err(error) => tell(&error.to_string()),
            Ok(items) => {
                assert!((1..=api::ITEMS).contains(&items.len()));
                for item in items {
                    match item.submission {
                        Err(error) => tell(&error.message),
                        Ok(submission) => accepted(submission, item.submission_id.as_ref()),
                    }
                }
            }
        }
        match api::stops(&body) {
            Err(error) => tell(&error.to_string()),
            Ok(stops) => {
                assert!((1..=api::REASON_BYTES).contains(&stops.reason.len()));
                stops.submission_ids.iter().filter_map(|id| id.as_ref().err()).for_each(|error| tell(&error.message));
            }
        }
    }
}

fn accepted(submission: Submission, id: Option<&SubmissionId>) {
    assert_eq!(Some(&submission.submission_id), id);
    let (record, _) = Record::launching(submission, now(), &rules());
    let Some(request) = &record.request else { return };
    let body: Value = serde_json::from_str(&request.body(&record.started_by(&rules())).unwrap()).unwrap();
    let containers = body["overrides"]["containerOverrides"].as_array().unwrap();
    let main = containers.iter().find(|entry| entry["name"] == *record.container_name).unwrap();
    assert!(main["command"].is_array(), "the command is in the request");
    assert!(record.public().get("request").is_none(), "and is not shown");
}

/// The profiles, as the functions read them at start.
pub fn profiles(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(profiles) = Profiles::parse(text, &clusters()) {
        for (_, profile) in profiles.iter() {
            let Ok((request, cluster)) = profile.request(&["true".to_owned()], &Map::new()) else { continue };
            let started_by = StartedBy {
                deployment: rules().deployment,
                submission_id: "x".parse().unwrap(),
                attempt: Attempt::FIRST,
            };
            let body: Value = serde_json::from_str(&request.body(&started_by).unwrap()).unwrap();
            assert_eq!(body["cluster"], *cluster);
            assert_eq!(body["startedBy"], "prod/x/1");
        }
    }
    // Names are quoted, so that they can be found; the parameters may hold an environment.
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return };
    for profile in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(run_task) = profile.get_mut("run_task") {
            plant(run_task, &[]);
        }
    }
    if let Err(problems) = Profiles::parse(&value.to_string(), &clusters()) {
        problems.iter().for_each(|problem| keeps_the_secret(problem));
    }
}

fn keeps_the_secret(message: &str) {
    assert!(!message.contains(SECRET), "quotes what was sent: {message}");
}

/// The same JSON with a secret in every string; unchanged if it is none.
fn planted(data: &[u8], but_for: &[&str]) -> Vec<u8> {
    serde_json::from_slice::<Value>(data).map_or_else(
        |_| data.to_vec(),
        |mut value| {
            plant(&mut value, but_for);
            value.to_string().into_bytes()
        },
    )
}

fn plant(value: &mut Value, but_for: &[&str]) {
    match value {
        Value::String(text) => *text = SECRET.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| plant(item, but_for)),
        Value::Object(members) => {
            let others = members.iter_mut().filter(|(name, _)| !but_for.contains(&name.as_str()));
            others.for_each(|(_, value)| plant(value, but_for));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn profiles_to_submit_with() -> Profiles {
    let profiles = json!({
        "default": {"run_task": {"taskDefinition": "etl"}, "container_name": "main"},
        "open": {"run_task": {"taskDefinition": "etl"}, "container_name": "main", "allow_overrides": ["*"]},
    });
    Profiles::parse(&profiles.to_string(), &clusters()).unwrap()
}

fn clusters() -> Clusters {
    Clusters::new("nightly", "other")
}

fn rules() -> Rules {
    Rules { deployment: "prod".parse().unwrap(), retention: Duration::from_secs(86_400), timers: Timers::default() }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn submission() -> Submission {
    let profile = ecs_bridge_core::ProfileName::default_profile();
    Submission {
        submission_id: "nightly-1".parse().unwrap(),
        content_hash: ContentHash::of(&["true".to_owned()], &json!({}), &profile),
        profile,
        container_name: "main".to_owned(),
        cluster: "nightly".to_owned(),
        policy: Policy::default(),
        request: FrozenRequest::freeze(&Map::new()),
        labels: BTreeMap::new(),
        launch_deadline: None,
        priority: 0,
        pool: None,
    }
}
