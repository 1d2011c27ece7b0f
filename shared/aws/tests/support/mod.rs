//! A deployment at the wire: the real clients, a scripted ECS, DynamoDB by dynoxide, and a record of every request.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod wire;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, timeout::TimeoutConfig};
use ecs_bridge_aws::{Bridge, Clients, Created, Settled, now};
use ecs_bridge_core::{
    Action, Call, Record, SubmissionId,
    api::{self},
    config::{Config, Environment},
    notify::Listeners,
    profile::{Clusters, Profiles},
};
use serde_json::{Value, json};

pub use wire::{Reply, Seen, Wire};

pub const CLUSTER: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/local";
pub const TASK: &str = "arn:aws:ecs:us-east-1:123456789012:task/local/0123456789abcdef0123456789abcdef";
pub const TABLE: &str = "bridge";

/// A deployment called `local`.
pub struct Deployment {
    pub bridge: Bridge,
    pub table: Wire,
    pub ecs: Wire,
}

impl Deployment {
    /// Creates a deployment with an ECS that responds by this script.
    pub async fn new(ecs: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Wire::dynamodb(|_, _| Reply::PassOn).await, Wire::start(ecs).await)
    }

    /// Creates a deployment whose ECS supports only RunTask, with this reply.
    pub async fn answering(reply: Reply) -> Self {
        Self::new(move |seen, _| match seen.operation.as_str() {
            "RunTask" => reply.clone(),
            other => panic!("{other} was not expected"),
        })
        .await
    }

    pub fn with(table: Wire, ecs: Wire) -> Self {
        let mut clients = clients(&table.url);
        clients.ecs = self::clients(&ecs.url).ecs;
        Self { bridge: Bridge::new(&clients, config()), table, ecs }
    }

    /// Returns the same deployment as seen by another process.
    pub fn another_process(&self) -> Bridge {
        let mut clients = clients(&self.table.url);
        // A slow machine answers late, and a write whose answer is late counts for nobody.
        let patient = clients.dynamodb.config().to_builder().timeout_config(TimeoutConfig::disabled()).build();
        clients.dynamodb = aws_sdk_dynamodb::Client::from_conf(patient);
        clients.ecs = self.bridge_ecs_client();
        Bridge::new(&clients, config())
    }

    fn bridge_ecs_client(&self) -> aws_sdk_ecs::Client {
        clients(&self.ecs.url).ecs
    }

    /// Writes a submission with its first RunTask call claimed, as submit does.
    pub async fn claimed(&self, item: Value) -> (Record, Call) {
        let body = json!({"submissions": [item]}).to_string();
        let item = api::submissions(body.as_bytes(), &profiles(), &Listeners::default()).unwrap().remove(0);
        let (record, call) = Record::launching(item.submission.unwrap(), now(), &self.bridge.rules);
        assert!(matches!(self.bridge.table.create(&record).await, Ok(Created::New)));
        (record, call.unwrap())
    }

    /// Submits and launches.
    pub async fn launched(&self, item: Value) -> Record {
        let (record, call) = self.claimed(item).await;
        let settled = Settled { record, action: Some(Action::RunTask(call)) };
        self.bridge.carry_out(settled).await.unwrap()
    }

    /// Returns the stored record.
    pub async fn record(&self, id: &str) -> Record {
        self.bridge.table.get(&submission_id(id)).await.unwrap().unwrap()
    }
}

pub fn submission_id(id: &str) -> SubmissionId {
    id.parse().unwrap()
}

/// Returns a submission of `true`.
pub fn item(id: &str) -> Value {
    json!({"submission_id": id, "command": ["true"]})
}

pub fn profiles() -> Profiles {
    let profiles = json!({"default": {
        "run_task": {"taskDefinition": "etl:7", "launchType": "FARGATE"},
        "container_name": "main",
        "allow_overrides": ["overrides.containerOverrides.environment", "tags"],
    }});
    Profiles::parse(&profiles.to_string(), &Clusters::new(CLUSTER, "")).unwrap()
}

/// Returns the deployment's configuration. Retryable and unanswered launches are due again at once.
pub fn config() -> Config {
    let mut environment = Environment::new(|name: &str| match name {
        "ECS_BRIDGE_TABLE" => Some(TABLE.to_owned()),
        "ECS_BRIDGE_DEPLOYMENT" => Some("local".to_owned()),
        _ => None,
    });
    let mut config = environment.config();
    config.rules.timers.backoff = std::time::Duration::ZERO;
    environment.finish(config).unwrap()
}

/// Returns clients of one endpoint, with the functions' retries.
pub fn clients(url: &str) -> Clients {
    let retries = aws_config::retry::RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(std::time::Duration::from_millis(1));
    let config = aws_config::SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_sdk_dynamodb::config::SharedCredentialsProvider::new(Credentials::new(
            "key", "secret", None, None, "test",
        )))
        .retry_config(retries)
        .sleep_impl(aws_sdk_dynamodb::config::SharedAsyncSleep::new(Sleep))
        .endpoint_url(url)
        .build();
    Clients::new(&config)
}

#[derive(Debug)]
struct Sleep;

impl aws_sdk_dynamodb::config::AsyncSleep for Sleep {
    fn sleep(&self, duration: std::time::Duration) -> aws_sdk_dynamodb::config::Sleep {
        aws_sdk_dynamodb::config::Sleep::new(tokio::time::sleep(duration))
    }
}

/// Returns the response of RunTask or DescribeTasks with one task.
pub fn task(fields: Value) -> Value {
    let mut task = json!({"taskArn": TASK, "clusterArn": CLUSTER, "version": 1, "lastStatus": "PROVISIONING",
                          "desiredStatus": "RUNNING", "containers": [{"name": "main", "lastStatus": "PENDING"}]});
    for (name, value) in fields.as_object().unwrap() {
        task[name] = value.clone();
    }
    json!({"tasks": [task], "failures": []})
}

/// Returns an error in the format of ECS's protocol.
pub fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::Answer(status, json!({"__type": code, "message": message}).to_string())
}
