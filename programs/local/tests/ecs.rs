//! Tests of the ECS emulator in virtual time, without processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use ecs_bridge_local::clock::Scale;
use ecs_bridge_local::ecs::{Ecs, EcsSettings, Location, TaskDefinitions, Throttle, router};
use ecs_bridge_local::events::{Bus, DeliveryFaults};
use ecs_bridge_local::faults::Faults;
use ecs_bridge_local::http::NoResponse;
use ecs_bridge_local::pattern::Pattern;
use ecs_bridge_local::rng::Chance;
use ecs_bridge_local::sessions::Sessions;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

struct World {
    api: TowerToHyperService<axum::Router>,
    bus: Arc<Bus>,
    faults: Arc<Faults>,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn settings() -> EcsSettings {
    EcsSettings {
        messages: Default::default(),
        location: Location { region: "us-east-1".into(), account: "123456789012".into(), cluster: "c".into() },
        definitions: TaskDefinitions::parse(None).unwrap(),
        scale: Scale(1.0),
        provisioning: Duration::from_secs(1),
        pull: Duration::from_secs(1),
        teardown: Duration::from_secs(20),
        consistency_lag: Duration::ZERO,
        api_latency: Duration::ZERO,
        throttle: None,
        capacity: None,
        no_capacity: Vec::new(),
        fail_start: 0.0,
        api_error: 0.0,
        launched_failure: 0.0,
        simulate: true,
        environment: Vec::new(),
        log_dir: None,
        chance: Chance::new(1),
        sessions: Arc::new(Sessions::new(Chance::new(1), "123456789012".into())),
    }
}

fn world(settings: EcsSettings) -> World {
    let faults = Arc::new(Faults::default());
    let delivery = DeliveryFaults { duplicate: 0.0, drop: 0.0, delay_ms: 0..=0, chance: settings.chance };
    let pattern = Pattern::parse(&json!({"source": ["aws.ecs"]})).unwrap();
    let bus = Arc::new(Bus::new(pattern, delivery, Arc::clone(&faults)));
    let ecs = Ecs::new(settings, Arc::clone(&bus), Arc::clone(&faults), "http://127.0.0.1:1".into());
    World { api: TowerToHyperService::new(router(Arc::new(ecs))), bus, faults }
}

impl World {
    /// Calls an operation. Returns its status (0 if the connection was closed) and its body.
    async fn call(&self, operation: &str, input: Value) -> (u16, Value) {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = Request::post("/").header("x-amz-target", target).body(Body::from(input.to_string())).unwrap();
        let response = self.api.call(request).await.unwrap();
        if response.extensions().get::<NoResponse>().is_some() {
            return (0, Value::Null);
        }
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap())
    }

    async fn local(&self, method: &str, path: &str, body: Value) -> Value {
        let request = Request::builder().method(method).uri(format!("/_local/{path}"));
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
        let response = self.api.call(request).await.unwrap();
        serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    async fn run(&self, id: &str, command: &[&str], more: Value) -> (u16, Value) {
        let mut input = json!({"cluster": "c", "taskDefinition": "demo", "startedBy": format!("d/{id}/1"),
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}, "clientToken": id,
            "overrides": {"containerOverrides": [{"name": "main", "command": command}]}});
        input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.call("RunTask", input).await
    }

    /// Starts a task, and returns its ARN.
    async fn start(&self, id: &str, command: &[&str], more: Value) -> String {
        let (status, answer) = self.run(id, command, more).await;
        assert_eq!(status, 200, "{answer}");
        answer["tasks"][0]["taskArn"].as_str().unwrap().to_owned()
    }

    async fn describe(&self, arn: &str) -> Value {
        self.call("DescribeTasks", json!({"cluster": "c", "tasks": [arn]})).await.1
    }

    /// The details of all events so far.
    fn details(&self) -> Vec<Value> {
        self.bus.recent().into_iter().map(|event| event["detail"].clone()).collect()
    }

    async fn shaped(&self, shape: &str, command: &[&str]) -> Vec<Value> {
        let tags = json!({"tags": [{"key": "ecs-bridge-local:shape", "value": shape}]});
        self.start("shaped", command, tags).await;
        tokio::time::sleep(10 * MINUTE).await;
        self.bus.recent()
    }
}

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
