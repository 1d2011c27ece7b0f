//! The limits of requests, capacity, and lists of tasks.

use ecs_bridge_local::ecs::{EcsSettings, Throttle};
use serde_json::{Value, json};

use crate::world::{MINUTE, settings, world};

#[tokio::test(start_paused = true)]
async fn capacity_and_rate_are_limited() {
    let throttle = Some(Throttle { rate: 1.0, burst: 2.0 });
    let world = world(EcsSettings { capacity: Some(1), throttle, ..settings() });
    world.start("a", &["sleep", "600"], json!({})).await;
    let (status, full) = world.run("b", &["true"], json!({})).await;
    assert_eq!((status, full["tasks"].as_array().unwrap().len()), (200, 0));
    assert!(full["failures"][0]["reason"].is_string());
    let (status, throttled) = world.run("c", &["true"], json!({})).await;
    assert_eq!((status, &throttled["__type"]), (400, &json!("ThrottlingException")));
    tokio::time::sleep(20 * MINUTE).await;
    world.start("b", &["true"], json!({})).await;
    assert_eq!((world.faults.throttled.get(), world.faults.out_of_capacity.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn capacity_provider_fails_until_capacity_returns() {
    let without = vec!["FARGATE_SPOT".to_owned(), "subnet-a".to_owned()];
    let world = world(EcsSettings { no_capacity: without, ..settings() });
    let on = |provider: &str, subnets: &[&str]| {
        json!({"capacityProviderStrategy": [{"capacityProvider": provider}],
               "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets}}})
    };
    for (id, more, launched) in [
        ("spot", on("FARGATE_SPOT", &["subnet-b"]), 0),
        ("subnet", on("FARGATE", &["subnet-a"]), 0),
        ("one-of-two", on("FARGATE", &["subnet-a", "subnet-b"]), 1),
        ("on-demand", on("FARGATE", &["subnet-b"]), 1),
    ] {
        let (status, answer) = world.run(id, &["true"], more).await;
        assert_eq!((status, answer["tasks"].as_array().unwrap().len()), (200, launched), "{id}");
    }
    world.local("PUT", "capacity", json!({"without": []})).await;
    world.start("spot", &["true"], on("FARGATE_SPOT", &["subnet-a"])).await;
}

#[tokio::test(start_paused = true)]
async fn unanswered_call_takes_effect() {
    let world = world(EcsSettings { api_error: 1.0, ..settings() });
    for id in 0..16 {
        let (status, _) = world.run(&id.to_string(), &["true"], json!({})).await;
        assert!([0, 500].contains(&status), "{status}");
    }
    assert_eq!(world.local("GET", "tasks", Value::Null).await["tasks"].as_array().unwrap().len(), 16);
    assert!(world.faults.unanswered.get() > 0 && world.faults.server_errors.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn seed_determines_the_failing_tasks() {
    let mut codes = Vec::new();
    for reverse in [false, true] {
        let world = world(EcsSettings { fail_start: 0.5, ..settings() });
        let mut ids: Vec<_> = (0..32).collect();
        if reverse {
            ids.reverse();
        }
        for id in ids {
            world.start(&id.to_string(), &["true"], json!({})).await;
        }
        tokio::time::sleep(MINUTE).await;
        let tasks = world.local("GET", "tasks", Value::Null).await;
        let tasks = tasks["tasks"].as_array().unwrap().iter();
        let mut seen: Vec<_> = tasks.map(|task| format!("{} {}", task["task_arn"], task["exit_code"])).collect();
        seen.sort();
        codes.push(seen);
    }
    assert!(codes[0].iter().any(|task| task.ends_with("null")));
    assert!(codes[0].iter().any(|task| task.ends_with(" 0")));
    assert_eq!(codes[0], codes[1]);
}

#[tokio::test(start_paused = true)]
async fn request_limits_match_ecs() {
    let world = world(settings());
    let overrides = |length: usize| {
        let frame = json!({"containerOverrides": [{"name": "main", "command": [""]}]}).to_string().len();
        json!({"overrides": {"containerOverrides": [{"name": "main", "command": ["ü".repeat(length - frame)]}]}})
    };
    assert_eq!(world.run("fits", &[], overrides(8_192)).await.0, 200);
    for (what, more) in [
        ("one character more", overrides(8_193)),
        ("a startedBy with a dot", json!({"startedBy": "a.b"})),
        ("a startedBy of 129", json!({"startedBy": "a".repeat(129)})),
        ("a token of 65", json!({"clientToken": "a".repeat(65)})),
        ("a token with a space", json!({"clientToken": "a b"})),
        ("eleven tasks", json!({"count": 11})),
        ("an unknown container", json!({"overrides": {"containerOverrides": [{"name": "x"}]}})),
        ("an unknown definition", json!({"taskDefinition": "x"})),
        ("51 tags", json!({"tags": vec![json!({"key": "k", "value": "v"}); 51]})),
        (
            "launch type and provider",
            json!({"launchType": "FARGATE", "capacityProviderStrategy": [{"capacityProvider": "x"}]}),
        ),
        ("no subnets", json!({"networkConfiguration": {}})),
    ] {
        let (status, error) = world.run("refused", &["true"], more).await;
        assert_eq!((status, &error["__type"]), (400, &json!("InvalidParameterException")), "{what}");
    }
    let (_, error) = world.run("refused", &["true"], json!({"cluster": "other"})).await;
    assert_eq!(error["__type"], "ClusterNotFoundException");
    let (_, error) = world.run("refused", &["true"], json!({"count": "1"})).await;
    assert_eq!(error["__type"], "SerializationException");
}

#[tokio::test(start_paused = true)]
async fn tasks_are_listed_by_started_by_and_in_pages() {
    let world = world(settings());
    for id in 0..5 {
        world.start(&id.to_string(), &["sleep", "600"], json!({"startedBy": "d/x/1"})).await;
    }
    world.start("other", &["sleep", "600"], json!({})).await;
    let mut input = json!({"cluster": "c", "startedBy": "d/x/1", "maxResults": 2});
    let mut found = Vec::new();
    loop {
        let (_, page) = world.call("ListTasks", input.clone()).await;
        found.extend(page["taskArns"].as_array().unwrap().clone());
        match page.get("nextToken") {
            Some(token) => input["nextToken"] = token.clone(),
            None => break,
        }
    }
    found.dedup();
    assert_eq!(found.len(), 5);
    let (_, stopped) = world.call("ListTasks", json!({"cluster": "c", "desiredStatus": "STOPPED"})).await;
    assert_eq!(stopped["taskArns"], json!([]));
    let (status, _) = world.call("ListTasks", json!({"cluster": "c", "startedBy": "d/x/1", "family": "demo"})).await;
    assert_eq!(status, 400);
}
