//! An emulator of ECS with its bus, and calls of its API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use ecs_bridge_local::clock::Scale;
use ecs_bridge_local::ecs::{Ecs, EcsSettings, Location, TaskDefinitions, router};
use ecs_bridge_local::events::{Bus, DeliveryFaults};
use ecs_bridge_local::faults::Faults;
use ecs_bridge_local::http::NoResponse;
use ecs_bridge_local::pattern::Pattern;
use ecs_bridge_local::rng::Chance;
use ecs_bridge_local::sessions::Sessions;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

pub struct World {
    api: TowerToHyperService<axum::Router>,
    pub bus: Arc<Bus>,
    pub faults: Arc<Faults>,
}

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3_600);

pub fn settings() -> EcsSettings {
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

pub fn world(settings: EcsSettings) -> World {
    let faults = Arc::new(Faults::default());
    let delivery = DeliveryFaults { duplicate: 0.0, drop: 0.0, delay_ms: 0..=0, chance: settings.chance };
    let pattern = Pattern::parse(&json!({"source": ["aws.ecs"]})).unwrap();
    let bus = Arc::new(Bus::new(pattern, delivery, Arc::clone(&faults)));
    let ecs = Ecs::new(settings, Arc::clone(&bus), Arc::clone(&faults), "http://127.0.0.1:1".into());
    World { api: TowerToHyperService::new(router(Arc::new(ecs))), bus, faults }
}

impl World {
    /// Calls an operation. Returns its status (0 if the connection was closed) and its body.
    pub async fn call(&self, operation: &str, input: Value) -> (u16, Value) {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = Request::post("/").header("x-amz-target", target).body(Body::from(input.to_string())).unwrap();
        let response = self.api.call(request).await.unwrap();
        if response.extensions().get::<NoResponse>().is_some() {
            return (0, Value::Null);
        }
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap())
    }

    pub async fn local(&self, method: &str, path: &str, body: Value) -> Value {
        let request = Request::builder().method(method).uri(format!("/_local/{path}"));
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
        let response = self.api.call(request).await.unwrap();
        serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    pub async fn run(&self, id: &str, command: &[&str], more: Value) -> (u16, Value) {
        let mut input = json!({"cluster": "c", "taskDefinition": "demo", "startedBy": format!("d/{id}/1"),
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}, "clientToken": id,
            "overrides": {"containerOverrides": [{"name": "main", "command": command}]}});
        input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.call("RunTask", input).await
    }

    /// Starts a task, and returns its ARN.
    pub async fn start(&self, id: &str, command: &[&str], more: Value) -> String {
        let (status, answer) = self.run(id, command, more).await;
        assert_eq!(status, 200, "{answer}");
        answer["tasks"][0]["taskArn"].as_str().unwrap().to_owned()
    }

    pub async fn describe(&self, arn: &str) -> Value {
        self.call("DescribeTasks", json!({"cluster": "c", "tasks": [arn]})).await.1
    }

    /// The details of all events so far.
    pub fn details(&self) -> Vec<Value> {
        self.bus.recent().into_iter().map(|event| event["detail"].clone()).collect()
    }

    pub async fn shaped(&self, shape: &str, command: &[&str]) -> Vec<Value> {
        let tags = json!({"tags": [{"key": "ecs-bridge-local:shape", "value": shape}]});
        self.start("shaped", command, tags).await;
        tokio::time::sleep(10 * MINUTE).await;
        self.bus.recent()
    }
}
