//! The lifecycle of tasks, their client tokens and their stops.

use std::time::Duration;

use ecs_bridge_local::clock::Scale;
use ecs_bridge_local::ecs::EcsSettings;
use serde_json::{Value, json};

use crate::world::{HOUR, MINUTE, settings, world};

#[tokio::test(start_paused = true)]
async fn task_states_advance_with_rising_versions() {
    let world = world(settings());
    world.start("a", &["sh", "-c", "exit 7"], json!({})).await;
    tokio::time::sleep(MINUTE).await;
    let details = world.details();
    let states: Vec<_> = details.iter().map(|detail| detail["lastStatus"].as_str().unwrap()).collect();
    assert_eq!(states[..4], ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"]);
    assert_eq!(states.last(), Some(&"STOPPED"));
    let versions: Vec<_> = details.iter().map(|detail| detail["version"].as_u64().unwrap()).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    let exited = details.iter().find(|detail| detail["containers"][0].get("exitCode").is_some()).unwrap();
    assert_eq!(exited["containers"][0]["exitCode"], 7);
    assert_ne!(exited["lastStatus"], "STOPPED");
    assert_eq!(details.last().unwrap()["stopCode"], "EssentialContainerExited");
    let tasks = world.local("GET", "tasks", Value::Null).await;
    let task = &tasks["tasks"][0];
    assert_eq!(
        [&task["submission_id"], &task["attempt"], &task["start_count"], &task["exit_code"], &task["last_status"]],
        [&json!("a"), &json!(1), &json!(1), &json!(7), &json!("STOPPED")]
    );
}

#[tokio::test(start_paused = true)]
async fn repeated_token_returns_first_task() {
    let world = world(settings());
    let arn = world.start("a", &["sleep", "600"], json!({})).await;
    assert_eq!(world.start("a", &["sleep", "600"], json!({})).await, arn);
    let (status, error) = world.run("a", &["sleep", "601"], json!({})).await;
    assert_eq!((status, &error["__type"]), (400, &json!("ConflictException")));
    assert_eq!(error["resourceIds"], json!([arn]));
    assert_eq!(world.local("GET", "tasks", Value::Null).await["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn token_expires_an_hour_after_task_stops() {
    let world = world(settings());
    let arn = world.start("a", &["true"], json!({})).await;
    tokio::time::sleep(MINUTE).await;
    tokio::time::sleep(HOUR - 2 * MINUTE).await;
    let (_, brief) = world.run("a", &["true"], json!({})).await;
    assert_eq!(brief["tasks"][0]["taskArn"], json!(arn));
    assert_eq!(brief["tasks"][0].get("containers"), None);
    tokio::time::sleep(2 * MINUTE).await;
    assert_ne!(world.start("a", &["true"], json!({})).await, arn);
}

#[tokio::test(start_paused = true)]
async fn token_expires_after_a_day() {
    let world = world(settings());
    let arn = world.start("a", &["sleep", "1000000"], json!({})).await;
    tokio::time::sleep(24 * HOUR - MINUTE).await;
    assert_eq!(world.start("a", &["sleep", "1000000"], json!({})).await, arn);
    tokio::time::sleep(2 * MINUTE).await;
    assert_ne!(world.start("a", &["sleep", "1000000"], json!({})).await, arn);
}

#[tokio::test(start_paused = true)]
async fn stopped_task_is_described_for_an_hour() {
    let world = world(settings());
    let arn = world.start("a", &["true"], json!({})).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.describe(&arn).await["tasks"][0]["containers"][0]["exitCode"], 0);
    tokio::time::sleep(HOUR).await;
    assert_eq!(world.describe(&arn).await["failures"], json!([{"arn": arn, "reason": "MISSING"}]));
}

#[tokio::test(start_paused = true)]
async fn new_task_is_not_described_at_once() {
    let world = world(EcsSettings { consistency_lag: MINUTE, ..settings() });
    let arn = world.start("a", &["sleep", "600"], json!({})).await;
    assert_eq!(world.describe(&arn).await["failures"][0]["reason"], "MISSING");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.describe(&arn).await["tasks"][0]["lastStatus"], "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn stopped_task_keeps_the_callers_reason() {
    let world = world(settings());
    let arn = world.start("a", &["sleep", "600"], json!({})).await;
    tokio::time::sleep(MINUTE).await;
    let (status, answer) = world.call("StopTask", json!({"cluster": "c", "task": arn, "reason": "enough"})).await;
    assert_eq!((status, &answer["task"]["desiredStatus"]), (200, &json!("STOPPED")));
    tokio::time::sleep(MINUTE).await;
    let last = world.details().pop().unwrap();
    assert_eq!(
        [&last["stopCode"], &last["stoppedReason"], &last["containers"][0]["exitCode"], &last["lastStatus"]],
        [&json!("UserInitiated"), &json!("enough"), &json!(143), &json!("STOPPED")]
    );
    let (status, error) = world.call("StopTask", json!({"cluster": "c", "task": "unknown"})).await;
    assert_eq!(
        (status, &error["__type"], &error["message"]),
        (400, &json!("InvalidParameterException"), &json!("The referenced task was not found."))
    );
}

#[tokio::test(start_paused = true)]
async fn task_stopped_early_never_starts() {
    let world = world(settings());
    let arn = world.start("a", &["true"], json!({})).await;
    world.call("StopTask", json!({"cluster": "c", "task": arn})).await;
    tokio::time::sleep(MINUTE).await;
    let task = world.describe(&arn).await["tasks"][0].clone();
    assert_eq!((&task["lastStatus"], task["containers"][0].get("exitCode")), (&json!("STOPPED"), None));
    assert_eq!(world.local("GET", "tasks", Value::Null).await["tasks"][0]["start_count"], 0);
}

/// With real processes, so in real time.
#[tokio::test]
async fn sidecar_ends_with_essential_container() {
    let environment = vec![("PATH".into(), std::env::var("PATH").unwrap())];
    let world = world(EcsSettings { simulate: false, scale: Scale(1.0), environment, ..fast() });
    let folder = std::env::temp_dir().join(format!("ecs-bridge-{}-sidecar", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (ready, go) = (folder.join("ready"), folder.join("go"));
    let main = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let logs = format!("trap 'exit 1' TERM; touch {}; sleep 86400 & wait", ready.display());
    let overrides = json!({"containerOverrides": [
        {"name": "main", "command": ["sh", "-c", main]}, {"name": "logs", "command": ["sh", "-c", logs]},
    ]});
    let arn = world.start("a", &[], json!({"taskDefinition": "demo-sidecar", "overrides": overrides})).await;
    let task = loop {
        let task = world.describe(&arn).await["tasks"][0].clone();
        if task["lastStatus"] == "STOPPED" {
            break task;
        }
        // Once the others have come as far as the test needs.
        if ready.exists() && task["containers"][0]["exitCode"] == 0 {
            std::fs::write(&go, "").unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    std::fs::remove_dir_all(&folder).unwrap();
    let codes: Vec<_> = task["containers"].as_array().unwrap().iter().map(|c| (&c["name"], &c["exitCode"])).collect();
    assert_eq!(codes, [(&json!("init"), &json!(0)), (&json!("main"), &json!(0)), (&json!("logs"), &json!(1))]);
    assert_eq!(task["stopCode"], "EssentialContainerExited");
}

#[tokio::test]
async fn missing_command_fails_to_start() {
    let world = world(EcsSettings { simulate: false, ..fast() });
    let arn = world.start("a", &["/no/such/program"], json!({})).await;
    let task = loop {
        let task = world.describe(&arn).await["tasks"][0].clone();
        if task["lastStatus"] == "STOPPED" {
            break task;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((&task["stopCode"], task["containers"][0].get("exitCode")), (&json!("TaskFailedToStart"), None));
    assert!(task["containers"][0]["reason"].as_str().unwrap().starts_with("CannotStartContainerError"));
}

fn fast() -> EcsSettings {
    EcsSettings {
        messages: Default::default(),
        provisioning: Duration::ZERO,
        pull: Duration::ZERO,
        teardown: Duration::ZERO,
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn every_shape_can_be_requested() {
    type Check = fn(&[Value]) -> bool;
    fn last(events: &[Value]) -> &Value {
        &events.last().unwrap()["detail"]
    }
    let checks: [(&str, Check); 28] = [
        ("cannot-pull", |e| {
            last(e)["containers"][0]["reason"].as_str().unwrap().starts_with("CannotPullContainerError")
        }),
        ("cannot-create", |e| last(e)["stopCode"] == "TaskFailedToStart" && last(e).get("startedAt").is_none()),
        ("resource-init", |e| {
            last(e)["stoppedReason"].as_str().unwrap().starts_with("ResourceInitializationError")
                && last(e)["containers"][0].get("reason").is_none()
        }),
        ("failed-to-start-after-exit", |e| {
            last(e)["stopCode"] == "TaskFailedToStart" && last(e)["containers"][0]["exitCode"] == 0
        }),
        ("spot-notice", |e| {
            let notice = e.iter().find(|e| e["detail"].get("stopCode").is_some()).unwrap();
            notice["detail"]["lastStatus"] == "RUNNING"
                && notice["detail"]["stopCode"] == "SpotInterruption"
                && last(e)["containers"][0]["exitCode"] == 0
        }),
        ("termination-notice", |e| last(e)["stopCode"] == "TerminationNotice"),
        ("spot-interruption", |e| last(e)["containers"][0]["exitCode"] == 143),
        ("infrastructure-health", |e| {
            last(e)["stopCode"] == "InfrastructureHealth" && last(e)["containers"][0].get("exitCode").is_none()
        }),
        ("no-exit-code", |e| last(e)["lastStatus"] == "STOPPED" && last(e)["containers"][0].get("exitCode").is_none()),
        ("null-exit-code", |e| last(e)["containers"][0].get("exitCode") == Some(&Value::Null)),
        ("empty-containers", |e| last(e)["containers"] == json!([])),
        ("twin", |e| last(e)["containers"][0]["name"] == last(e)["containers"][1]["name"]),
        ("failing-twin", |e| last(e)["containers"][0]["exitCode"] == 1 && last(e)["containers"][1]["exitCode"] == 0),
        ("short-arns", |e| last(e)["taskArn"].as_str().unwrap().split('/').count() == 2),
        ("foreign-task-arn", |e| last(e)["containers"][0]["taskArn"] != last(e)["taskArn"]),
        ("no-started-by", |e| last(e).get("startedBy").is_none()),
        ("no-launch-type", |e| last(e).get("launchType").is_none()),
        ("no-attachments", |e| last(e).get("attachments").is_none()),
        ("unknown-members", |e| last(e).get("someNewMember").is_some()),
        ("no-version", |e| last(e).get("version").is_none()),
        ("mistyped-members", |e| {
            last(e)["cpu"].is_u64() && last(e)["version"].is_f64() && e[0].get("event_time").is_some()
        }),
        ("network-timeout", |e| {
            last(e)["stopCode"] == "TaskFailedToStart" && last(e)["containers"][0].get("reason").is_none()
        }),
        ("pull-in-task-reason", |e| last(e)["stoppedReason"].as_str().unwrap().starts_with("CannotPull")),
        ("capacity-given-up", |e| last(e)["stopCode"] == "TaskFailedToStart" && last(e)["containers"] == json!([])),
        ("seems-lost", |e| {
            e.iter().any(|e| e["detail"]["stopCode"] == "InfrastructureHealth")
                && last(e)["stopCode"] == "EssentialContainerExited"
        }),
        ("event-time", |e| e[0].get("time").is_none() && e[0].get("event_time").is_some()),
        ("skip-states", |e| e.len() == 2 && last(e)["lastStatus"] == "STOPPED"),
        ("no-events", |e| e.is_empty()),
    ];
    for (shape, check) in checks {
        // Long enough that an interruption finds it running.
        let events = world(settings()).shaped(shape, &["sleep", "5"]).await;
        assert!(check(&events), "{shape}: {events:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn execution_may_stop_before_task_start() {
    let events = world(settings()).shaped("clock-skew", &["true"]).await;
    let last = &events.last().unwrap()["detail"];
    assert!(last["executionStoppedAt"].as_str() < last["startedAt"].as_str(), "{last}");
}

#[tokio::test(start_paused = true)]
async fn forgotten_task_is_missing_without_stop_event() {
    let world = world(settings());
    let events = world.shaped("forgotten", &["true"]).await;
    assert!(events.iter().all(|event| event["detail"]["desiredStatus"] == "RUNNING"));
    let arn = events[0]["detail"]["taskArn"].as_str().unwrap().to_owned();
    assert_eq!(world.describe(&arn).await["failures"][0]["reason"], "MISSING");
}

#[tokio::test(start_paused = true)]
async fn rule_applies_to_given_number_of_calls() {
    let world = world(settings());
    let rule = json!({"submission_id": "a", "times": 2, "error": {"code": "BlockedException", "message": "blocked"}});
    world.local("POST", "rules", rule).await;
    world.start("b", &["true"], json!({})).await;
    for _ in 0..2 {
        assert_eq!(world.run("a", &["true"], json!({})).await.1["__type"], "BlockedException");
    }
    world.local("POST", "rules", json!({"failure": "AGENT"})).await;
    assert_eq!(world.run("a", &["true"], json!({})).await.1["failures"][0]["reason"], "AGENT");
    world.local("POST", "rules", json!({"answer": "none"})).await;
    assert_eq!(world.run("a", &["true"], json!({})).await.0, 0);
    // It happened: the token knows the task.
    let arn = world.start("a", &["true"], json!({})).await;
    assert_eq!(world.local("GET", "tasks", Value::Null).await["tasks"][1]["task_arn"], json!(arn));
}

#[tokio::test(start_paused = true)]
async fn running_task_can_lose_its_host() {
    let world = world(settings());
    let arn = world.start("a", &["sleep", "600"], json!({})).await;
    tokio::time::sleep(MINUTE).await;
    let id = arn.rsplit('/').next().unwrap();
    world.local("POST", &format!("tasks/{id}/infrastructure-health"), json!({})).await;
    tokio::time::sleep(MINUTE).await;
    let task = world.describe(&arn).await["tasks"][0].clone();
    assert_eq!((&task["stopCode"], &task["lastStatus"]), (&json!("InfrastructureHealth"), &json!("STOPPED")));
    assert_eq!(task["containers"][0].get("exitCode"), None);
}
