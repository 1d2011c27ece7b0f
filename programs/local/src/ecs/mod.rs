//! The stand-in for ECS: one cluster, ECS's JSON protocol, and each container a local process. It keeps all tasks until the
//! end of the run, but its API forgets them as ECS does.

mod behavior;
mod container;
mod control;
mod definition;
mod error;
mod lifecycle;
mod notifications;
mod queues;
mod run_task;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Millis, Scale};
use crate::events::Bus;
use crate::faults::Faults;
use crate::http::{self, NoAnswer, lock};
use crate::rng::Chance;
use crate::sessions::Sessions;
use control::{Rule, Then};
use definition::TaskDefinition;
use error::ApiError;
use lifecycle::OUT_OF_MEMORY;
use queues::Queues;
use run_task::Request;
use task::{Order, Reader, Status, Task};

pub use behavior::{SHAPE_TAG, SHAPE_VARIABLE, Shape, Shapes, UnknownShape};
pub use definition::{DefinitionError, TaskDefinitions};
pub use queues::MessageFaults;
pub use task::Place;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";
/// ECS describes a stopped task for an hour, and keeps a client token for that hour, but at most for a day.
const MEMORY: Duration = Duration::from_secs(60 * 60);
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// The end of an image's name that no registry has.
const NO_IMAGE: &str = ":does-not-exist";

/// The settings of the stand-in.
#[derive(Clone, Debug)]
pub struct EcsSettings {
    /// The parts of its ARNs.
    pub place: Place,
    /// The task definitions.
    pub definitions: TaskDefinitions,
    /// The divisor of ECS's own times.
    pub scale: Scale,
    /// The time from creation to PENDING.
    pub provisioning: Duration,
    /// The time from PENDING to the start of the containers.
    pub pull: Duration,
    /// The time from the exit of the containers to STOPPED.
    pub teardown: Duration,
    /// The age below which a task is unknown to DescribeTasks and ListTasks.
    pub consistency_lag: Duration,
    /// The duration of each call.
    pub api_latency: Duration,
    /// The limit on RunTask calls.
    pub throttle: Option<Throttle>,
    /// The number of tasks that fit into the cluster.
    pub capacity: Option<usize>,
    /// Capacity providers, launch types and subnets without capacity, to begin with.
    pub no_capacity: Vec<String>,
    /// The share of tasks that do not start.
    pub fail_start: f64,
    /// The share of calls that take effect without a successful response.
    pub api_error: f64,
    /// The share of RunTask calls that launch a task and answer with a failure.
    pub launched_failure: f64,
    /// The faults of SQS.
    pub messages: MessageFaults,
    /// Whether trivial commands are simulated.
    pub simulate: bool,
    /// Environment variables of every container.
    pub environment: Vec<(String, String)>,
    /// The directory of the containers' output.
    pub log_dir: Option<PathBuf>,
    /// The source of decisions.
    pub chance: Chance,
    /// The roles' sessions of its tasks.
    pub sessions: Arc<Sessions>,
}

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Calls per second.
    pub rate: f64,
    /// Calls at once.
    pub burst: f64,
}

/// The stand-in.
#[derive(Debug)]
pub struct Ecs {
    settings: EcsSettings,
    bus: Arc<Bus>,
    faults: Arc<Faults>,
    /// The URL of this server, for the containers' metadata endpoint.
    url: String,
    definitions: RwLock<TaskDefinitions>,
    state: Mutex<State>,
    queues: Queues,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<String, Task>,
    /// Ids in the order of creation.
    order: Vec<String>,
    /// The number of tasks that are not STOPPED.
    live: usize,
    by_started_by: HashMap<String, Vec<String>>,
    tokens: HashMap<String, Token>,
    calls: BTreeMap<String, u64>,
    /// The number of calls by their content.
    repeats: HashMap<u64, u32>,
    bucket: Option<Bucket>,
    rules: Vec<Rule>,
    /// The notifications that Step Functions and event buses received.
    notifications: Vec<notifications::Notification>,
    /// Capacity providers, launch types and subnets without capacity.
    without: Vec<String>,
}

/// A client token.
#[derive(Debug)]
struct Token {
    /// The hash of the request.
    hash: u64,
    created: Instant,
    tasks: Vec<String>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The result of a call, and whether it is sent.
enum Reply {
    Result(Result<Value, ApiError>),
    NoAnswer,
}

#[derive(Deserialize)]
struct OfCluster {
    #[serde(default)]
    cluster: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamesDefinition {
    #[serde(default)]
    task_definition: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListTaskDefinitions {
    /// A whole name, whatever it is called.
    #[serde(default)]
    family_prefix: Option<String>,
}

#[derive(Deserialize)]
struct DescribeTasks {
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListTasks {
    #[serde(default)]
    container_instance: Option<String>,
    #[serde(default)]
    desired_status: Option<String>,
    #[serde(default)]
    family: Option<String>,
    #[serde(default)]
    launch_type: Option<String>,
    #[serde(default)]
    max_results: Option<i64>,
    #[serde(default)]
    next_token: Option<String>,
    #[serde(default)]
    service_name: Option<String>,
    #[serde(default)]
    started_by: Option<String>,
}

#[derive(Deserialize)]
struct StopTask {
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct DescribeClusters {
    #[serde(default)]
    clusters: Vec<String>,
}

/// The error of the protocol for a member of the wrong type.
fn parse<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    T::deserialize(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}

/// ECS's API, and `/_local/…`
pub fn router(ecs: Arc<Ecs>) -> Router {
    Router::new()
        .route("/", post(call))
        .merge(control::routes())
        .layer(DefaultBodyLimit::max(16 * 1024 * 1024))
        .with_state(ecs)
}

async fn call(Shared(ecs): Shared<Arc<Ecs>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    if let Some(operation) = target.strip_prefix(queues::TARGET) {
        return match ecs.answer_queue(operation, &body).await {
            Ok(result) => http::bytes(StatusCode::OK, "application/x-amz-json-1.0", result.to_string().into()),
            Err(error) => error.response(),
        };
    }
    let services = [TARGET].into_iter().chain(notifications::TARGETS);
    let Some(operation) = services.filter_map(|service| target.strip_prefix(service)).next() else {
        return ApiError::new("UnknownOperationException", "no such operation").response();
    };
    let nth = ecs.count(operation, &body);
    let latency = ecs.settings.api_latency;
    // The call takes effect halfway through its latency, so that its events may overtake the response.
    tokio::time::sleep(latency / 2).await;
    let reply = ecs.answer(operation, &body, nth);
    tokio::time::sleep(latency / 2).await;
    let mut response = match reply {
        Reply::Result(Ok(result)) => http::bytes(StatusCode::OK, CONTENT_TYPE, result.to_string().into()),
        Reply::Result(Err(error)) => error.response(),
        Reply::NoAnswer => {
            let mut response = http::bytes(StatusCode::OK, CONTENT_TYPE, Bytes::new());
            response.extensions_mut().insert(NoAnswer);
            return response;
        }
    };
    let request_id = ecs.settings.chance.uuid("call", &format!("{operation}/{nth}/{}", hash_of(&body)));
    http::set_header(&mut response, "x-amzn-requestid", &request_id);
    response
}

/// A hash that is the same in every run.
fn hash_of(bytes: &[u8]) -> u64 {
    Chance::new(0).number("body", &String::from_utf8_lossy(bytes))
}

impl Ecs {
    /// A cluster without tasks.
    #[must_use]
    pub fn new(settings: EcsSettings, bus: Arc<Bus>, faults: Arc<Faults>, url: String) -> Self {
        let state = State { without: settings.no_capacity.clone(), ..State::default() };
        let definitions = RwLock::new(settings.definitions.clone());
        Self { settings, bus, faults, url, definitions, state: Mutex::new(state), queues: Queues::default() }
    }

    /// Counts the call; returns the number of calls with the same content, this one included.
    fn count(&self, operation: &str, body: &[u8]) -> u32 {
        let mut state = lock(&self.state);
        *state.calls.entry(operation.to_owned()).or_default() += 1;
        let repeats = state.repeats.entry(hash_of(body) ^ hash_of(operation.as_bytes())).or_default();
        *repeats += 1;
        *repeats
    }

    fn answer(self: &Arc<Self>, operation: &str, body: &[u8], nth: u32) -> Reply {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Reply::Result(Err(ApiError::new("SerializationException", "the body is not JSON")));
        };
        if operation == "RunTask" && !self.within_rate() {
            self.faults.throttled.count();
            return Reply::Result(Err(ApiError::new("ThrottlingException", "Rate exceeded")));
        }
        let rule = control::take_rule(&mut lock(&self.state).rules, operation, &body);
        if let Some(Then::Error { code, message }) = &rule {
            self.faults.refused_by_rule.count();
            return Reply::Result(Err(ApiError::new(code, message.clone())));
        }
        let result = self.dispatch(operation, &body, rule.as_ref());
        let identity = format!("{operation}/{nth}/{}", hash_of(body.to_string().as_bytes()));
        let asked = match rule {
            Some(Then::Answer(answer)) => Some(answer),
            _ if self.settings.chance.happens(self.settings.api_error, "api error", &identity) => {
                let answers = [control::Answer::ServerError, control::Answer::None];
                Some(self.settings.chance.pick(answers, "api answer", &identity))
            }
            _ => None,
        };
        match asked {
            None => Reply::Result(result),
            Some(control::Answer::ServerError) => {
                self.faults.server_errors.count();
                Reply::Result(Err(ApiError::new("ServerException", "Service Unavailable. Please try again later.")))
            }
            Some(control::Answer::None) => {
                self.faults.unanswered.count();
                Reply::NoAnswer
            }
        }
    }

    async fn answer_queue(&self, operation: &str, body: &[u8]) -> Result<Value, ApiError> {
        self.count(operation, body);
        let body = serde_json::from_slice(body)
            .map_err(|_| ApiError::new("SerializationException", "the body is not JSON"))?;
        let rule = control::take_rule(&mut lock(&self.state).rules, operation, &body);
        if let Some(Then::Error { code, message }) = rule {
            self.faults.refused_by_rule.count();
            return Err(ApiError::new(&code, message));
        }
        let url = format!("{}/{}", self.url, self.settings.place.account);
        let EcsSettings { messages, chance, .. } = self.settings;
        self.queues.answer(operation, &body, &url, (messages, chance, &self.faults)).await
    }

    fn within_rate(&self) -> bool {
        let Some(Throttle { rate, burst }) = self.settings.throttle else { return true };
        let mut state = lock(&self.state);
        let now = Instant::now();
        let bucket = state.bucket.get_or_insert(Bucket { tokens: burst, filled: now });
        bucket.tokens = burst.min(bucket.tokens + rate * (now - bucket.filled).as_secs_f64());
        bucket.filled = now;
        let passes = bucket.tokens >= 1.0;
        if passes {
            bucket.tokens -= 1.0;
        }
        passes
    }

    fn dispatch(self: &Arc<Self>, operation: &str, body: &Value, rule: Option<&Then>) -> Result<Value, ApiError> {
        match operation {
            "DescribeClusters" => return self.describe_clusters(&parse(body)?),
            "DescribeTaskDefinition" => return self.describe_task_definition(&parse(body)?),
            "RegisterTaskDefinition" => return self.register_task_definition(body),
            "DeregisterTaskDefinition" => return self.deregister_task_definition(&parse(body)?),
            "ListTaskDefinitions" => return self.list_task_definitions(&parse(body)?),
            "SendTaskSuccess" | "SendTaskFailure" => return self.send_task(operation, body),
            "PutEvents" => return self.put_events(body),
            _ => {}
        }
        let OfCluster { cluster } = parse(body)?;
        let cluster = cluster.as_deref().unwrap_or("default");
        if !self.is_this_cluster(cluster) {
            // The functions' roles end at the cluster.
            if operation == "StopTask" {
                let message = format!("User is not authorized to perform: ecs:StopTask in cluster {cluster}");
                return Err(ApiError::new("AccessDeniedException", message));
            }
            return Err(ApiError::new("ClusterNotFoundException", "Cluster not found."));
        }
        match operation {
            "RunTask" => self.run_task(body, rule),
            "DescribeTasks" => self.describe_tasks(&parse(body)?),
            "ListTasks" => self.list_tasks(&parse(body)?),
            "StopTask" => self.stop_task(parse(body)?),
            _ => Err(ApiError::new("UnknownOperationException", "the local stack does not have this operation")),
        }
    }

    fn is_this_cluster(&self, name: &str) -> bool {
        name == self.settings.place.cluster || name == self.settings.place.cluster_arn()
    }

    fn run_task(self: &Arc<Self>, body: &Value, rule: Option<&Then>) -> Result<Value, ApiError> {
        let NamesDefinition { task_definition } = parse(body)?;
        let name = task_definition.ok_or_else(|| ApiError::invalid("TaskDefinition can not be blank."))?;
        let definition = self.definition(&name).ok_or_else(|| ApiError::invalid("TaskDefinition not found."))?;
        let request = Arc::new(Request::parse(body, &definition)?);

        let mut state = lock(&self.state);
        let hash = hash_of(body.to_string().as_bytes());
        if !matches!(rule, Some(Then::ForgetToken(true)))
            && let Some(earlier) = self.earlier(&state, &request, hash)?
        {
            return Ok(json!({"tasks": earlier, "failures": []}));
        }
        let full = self.settings.capacity.is_some_and(|capacity| state.live + request.count > capacity);
        let failure = match rule {
            Some(Then::Failure(reason)) => Some(reason.clone()),
            _ if full || request.needs(&state.without) => Some(self.shortage(&request)),
            _ => None,
        };
        if let Some(reason) = failure {
            self.faults.out_of_capacity.count();
            return Ok(json!({"tasks": [], "failures": [{"reason": reason}]}));
        }

        let mut shapes = request.shapes.clone();
        if let Some(Then::Shapes(more)) = rule {
            shapes.extend(&more.parse().map_err(|error| ApiError::invalid(format!("{error}")))?);
        }
        let mut ids = Vec::new();
        let mut shown = Vec::new();
        for _ in 0..request.count {
            let (id, task) = self.create(&mut state, &definition, &request, &shapes);
            shown.push(task);
            ids.push(id);
        }
        if let Some(token) = request.client_token.clone() {
            state.tokens.insert(token, Token { hash, created: Instant::now(), tasks: ids.clone() });
        }
        let reason = match rule {
            Some(Then::LaunchedFailure(reason)) => Some(reason.clone()),
            _ => {
                let chance = &self.settings.chance;
                let is_refused = chance.happens(self.settings.launched_failure, "launched failure", request.identity());
                is_refused.then(|| self.shortage(&request))
            }
        };
        for id in &ids {
            if let Some(task) = state.tasks.get_mut(id) {
                task.refused = reason.is_some();
            }
        }
        drop(state);
        for id in ids {
            tokio::spawn(lifecycle::live(Arc::clone(self), id));
        }
        if let Some(reason) = reason {
            self.faults.launched_failures.count();
            return Ok(json!({"tasks": [], "failures": [{"reason": reason}]}));
        }
        Ok(json!({"tasks": shown, "failures": []}))
    }

    /// ECS's failure for lack of capacity.
    fn shortage(&self, request: &Request) -> String {
        let reasons = [
            "RESOURCE:MEMORY",
            "RESOURCE:CPU",
            "RESOURCE:ENI",
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        ];
        self.settings.chance.pick(reasons, "shortage", request.identity()).to_owned()
    }

    /// The tasks that this client token has started.
    fn earlier(&self, state: &State, request: &Request, hash: u64) -> Result<Option<Vec<Value>>, ApiError> {
        let Some(token) = request.client_token.as_ref().and_then(|token| state.tokens.get(token)) else {
            return Ok(None);
        };
        let scale = self.settings.scale;
        let tasks: Vec<_> = token.tasks.iter().filter_map(|id| state.tasks.get(id)).collect();
        let over = tasks.iter().all(|task| task.stopped.is_some_and(|at| at.elapsed() > scale.shorten(MEMORY)));
        if over || token.created.elapsed() > scale.shorten(TOKEN_LIFE) {
            return Ok(None);
        }
        if token.hash != hash {
            let mut error =
                ApiError::new("ConflictException", "The clientToken was used before with other parameters.");
            error.resource_ids = tasks.iter().map(|task| task.arn(&self.settings.place)).collect();
            return Err(error);
        }
        let shown = tasks.into_iter().map(|task| match task.status {
            Status::Stopped => task.describe_briefly(&self.settings.place),
            _ => self.show(task, true),
        });
        Ok(Some(shown.collect()))
    }

    fn create(
        &self,
        state: &mut State,
        definition: &Arc<TaskDefinition>,
        request: &Arc<Request>,
        shapes: &Shapes,
    ) -> (String, Value) {
        let same = request.started_by.as_ref().and_then(|by| state.by_started_by.get(by)).map_or(0, Vec::len);
        let mut identity = format!("{}#{same}", request.identity());
        if request.identity().is_empty() {
            identity = format!("#{}", state.order.len());
        }
        let id = self.settings.chance.hex("task", &identity);
        let mut shapes = shapes.clone();
        if self.settings.chance.happens(self.settings.fail_start, "fail start", &identity) {
            self.faults.failed_starts.count();
            let how = [
                Shape::CannotPull,
                Shape::CannotCreate,
                Shape::ResourceInit,
                Shape::NetworkTimeout,
                Shape::PullInTaskReason,
                Shape::CapacityGivenUp,
            ];
            shapes.add(self.settings.chance.pick(how, "how to fail", &identity));
        }
        if definition.containers.iter().any(|container| container.image.ends_with(NO_IMAGE)) {
            shapes.add(Shape::CannotPull);
        }
        let orders = watch::Sender::new(Order::Live);
        let task = Task::new(id.clone(), Arc::clone(definition), Arc::clone(request), shapes, orders);
        let shown = self.show(&task, true);
        if let Some(by) = &request.started_by {
            state.by_started_by.entry(by.clone()).or_default().push(id.clone());
        }
        state.live += 1;
        state.order.push(id.clone());
        state.tasks.insert(id.clone(), task);
        (id, shown)
    }

    fn show(&self, task: &Task, with_tags: bool) -> Value {
        let mut shown = task.describe(&self.settings.place, &self.settings.chance, Reader::Api);
        if !with_tags {
            shown.insert("tags".into(), json!([]));
        }
        Value::Object(shown)
    }

    /// The tasks that ECS would still know.
    fn known<'state>(&self, state: &'state State, id: &str) -> Option<&'state Task> {
        let task = state.tasks.get(id)?;
        let too_old = task.stopped.is_some_and(|at| at.elapsed() > self.settings.scale.shorten(MEMORY));
        let too_young = task.times.created_at.elapsed() < self.settings.consistency_lag;
        (!too_old && !too_young && !task.forgotten).then_some(task)
    }

    fn describe_tasks(&self, input: &DescribeTasks) -> Result<Value, ApiError> {
        if input.tasks.is_empty() {
            return Err(ApiError::invalid("Tasks cannot be empty."));
        }
        if input.tasks.len() > 100 {
            return Err(ApiError::invalid("Tasks cannot be more than 100."));
        }
        let with_tags = input.include.iter().any(|what| what == "TAGS");
        let state = lock(&self.state);
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for reference in &input.tasks {
            match self.known(&state, task_id(reference)) {
                Some(task) => tasks.push(self.show(task, with_tags)),
                None => {
                    let arn = if reference.starts_with("arn:") {
                        reference.clone()
                    } else {
                        let place = &self.settings.place;
                        place.arn(&format!("task/{}/{reference}", place.cluster))
                    };
                    failures.push(json!({"arn": arn, "reason": "MISSING"}));
                }
            }
        }
        Ok(json!({"tasks": tasks, "failures": failures}))
    }

    fn list_tasks(&self, input: &ListTasks) -> Result<Value, ApiError> {
        let most = input.max_results.unwrap_or(100);
        let most = usize::try_from(most).ok().filter(|most| (1..=100).contains(most));
        let most = most.ok_or_else(|| ApiError::invalid("maxResults must be between 1 and 100."))?;
        let after: usize = match &input.next_token {
            Some(token) => token.parse().map_err(|_| ApiError::invalid("Invalid token."))?,
            None => 0,
        };
        let desired = input.desired_status.as_deref().unwrap_or("RUNNING");
        if !matches!(desired, "RUNNING" | "PENDING" | "STOPPED") {
            return Err(ApiError::invalid("desiredStatus must be one of RUNNING, PENDING, STOPPED."));
        }
        if let Some(by) = &input.started_by {
            let others = [&input.family, &input.service_name, &input.container_instance, &input.launch_type];
            if by.is_empty() || others.into_iter().any(Option::is_some) {
                return Err(ApiError::invalid("startedBy, where it is given, must be the only filter."));
            }
        }
        let state = lock(&self.state);
        let none = Vec::new();
        let ids = match &input.started_by {
            Some(by) => state.by_started_by.get(by).unwrap_or(&none),
            None => &state.order,
        };
        let wanted = |task: &&Task| {
            task.desired_status() == desired
                && input.family.as_ref().is_none_or(|family| *family == task.definition.family)
                && input.launch_type.as_ref().is_none_or(|kind| *kind == task.request.launch_type)
                // No task belongs to a service or a container instance.
                && input.service_name.is_none()
                && input.container_instance.is_none()
        };
        let mut found = ids.iter().enumerate().skip(after).filter_map(|(at, id)| {
            self.known(&state, id).filter(wanted).map(|task| (at, task.arn(&self.settings.place)))
        });
        let page: Vec<_> = found.by_ref().take(most).collect();
        let mut output = json!({"taskArns": page.iter().map(|(_, arn)| arn).collect::<Vec<_>>()});
        if let (Some((last, _)), Some(_), Some(fields)) = (page.last(), found.next(), output.as_object_mut()) {
            fields.insert("nextToken".into(), (last + 1).to_string().into());
        }
        Ok(output)
    }

    fn stop_task(self: &Arc<Self>, input: StopTask) -> Result<Value, ApiError> {
        let reference = input.task.ok_or_else(|| ApiError::invalid("Task can not be blank."))?;
        let id = task_id(&reference);
        if self.known(&lock(&self.state), id).is_none() {
            return Err(ApiError::invalid("The referenced task was not found."));
        }
        let reason = input.reason.unwrap_or_else(|| "Task stopped by user".to_owned());
        self.order(id, Order::Stop, "UserInitiated", &reason);
        let state = lock(&self.state);
        let task = state.tasks.get(id).map(|task| self.show(task, false));
        Ok(json!({"task": task}))
    }

    fn describe_clusters(&self, input: &DescribeClusters) -> Result<Value, ApiError> {
        let (mut clusters, mut failures) = (Vec::new(), Vec::new());
        let default = ["default".to_owned()];
        let names = if input.clusters.is_empty() { default.as_slice() } else { input.clusters.as_slice() };
        if names.len() > 100 {
            return Err(ApiError::invalid("Clusters cannot be more than 100."));
        }
        let place = &self.settings.place;
        for name in names {
            if self.is_this_cluster(name) {
                let state = lock(&self.state);
                let count =
                    |wanted: fn(Status) -> bool| state.tasks.values().filter(|task| wanted(task.status)).count();
                clusters.push(json!({
                    "clusterArn": place.cluster_arn(), "clusterName": place.cluster, "status": "ACTIVE",
                    "runningTasksCount": count(|status| status == Status::Running),
                    "pendingTasksCount": count(|status| status < Status::Running),
                    "activeServicesCount": 0, "registeredContainerInstancesCount": 0,
                    "capacityProviders": ["FARGATE", "FARGATE_SPOT"], "defaultCapacityProviderStrategy": [],
                    "settings": [], "statistics": [], "tags": [],
                }));
            } else {
                let arn = if name.starts_with("arn:") { name.clone() } else { place.arn(&format!("cluster/{name}")) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
        Ok(json!({"clusters": clusters, "failures": failures}))
    }

    fn describe_task_definition(&self, input: &NamesDefinition) -> Result<Value, ApiError> {
        let name = input.task_definition.as_deref().unwrap_or_default();
        let definition = self.definition(name);
        let definition =
            definition.ok_or_else(|| ApiError::new("ClientException", "Unable to describe task definition."))?;
        let arn = self.settings.place.definition_arn(&definition);
        Ok(json!({"taskDefinition": definition.describe(&arn), "tags": []}))
    }

    /// The task definition of this family, `family:revision` or ARN.
    fn definition(&self, name: &str) -> Option<Arc<TaskDefinition>> {
        self.definitions.read().unwrap_or_else(PoisonError::into_inner).find(name).cloned()
    }

    fn register_task_definition(&self, body: &Value) -> Result<Value, ApiError> {
        let given: Map<String, Value> = parse(body)?;
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let definition =
            definitions.register(given).map_err(|error| ApiError::new("ClientException", error.to_string()))?;
        Ok(json!({"taskDefinition": definition.describe(&self.settings.place.definition_arn(&definition))}))
    }

    fn deregister_task_definition(&self, input: &NamesDefinition) -> Result<Value, ApiError> {
        let name = input.task_definition.as_deref().unwrap_or_default();
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let gone = definitions
            .deregister(name)
            .ok_or_else(|| ApiError::new("ClientException", "The specified task definition does not exist."))?;
        let mut shown = gone.describe(&self.settings.place.definition_arn(&gone));
        if let Some(members) = shown.as_object_mut() {
            members.insert("status".into(), "INACTIVE".into());
        }
        Ok(json!({"taskDefinition": shown}))
    }

    fn list_task_definitions(&self, input: &ListTaskDefinitions) -> Result<Value, ApiError> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_family = |definition: &&Arc<TaskDefinition>| {
            input.family_prefix.as_ref().is_none_or(|family| *family == definition.family)
        };
        let arns = definitions.all().filter(of_family).map(|definition| self.settings.place.definition_arn(definition));
        Ok(json!({"taskDefinitionArns": arns.collect::<Vec<_>>()}))
    }

    /// Changes a task, and puts the event of it on the bus.
    fn change(self: &Arc<Self>, id: &str, change: impl FnOnce(&mut Task)) {
        self.change_if(id, |task| {
            change(task);
            true
        });
    }

    /// The same if the task changes.
    fn change_if(self: &Arc<Self>, id: &str, change: impl FnOnce(&mut Task) -> bool) {
        let event = {
            let mut state = lock(&self.state);
            let Some(task) = state.tasks.get_mut(id) else { return };
            if !change(task) {
                return;
            }
            task.version += 1;
            self.event(task)
        };
        self.announce(event);
    }

    /// Puts an event with the current state of a task on the bus.
    fn send_event(self: &Arc<Self>, id: &str) -> bool {
        let event = lock(&self.state).tasks.get(id).and_then(|task| self.event(task));
        let is_sent = event.is_some();
        self.announce(event);
        is_sent
    }

    /// Puts an event on the bus by which a task has stopped, although it runs on: the agent of an EC2 host may err.
    fn report_stopped(self: &Arc<Self>, id: &str, members: &Value, exit_code: Option<i32>) {
        let event = {
            let mut state = lock(&self.state);
            let Some(task) = state.tasks.get_mut(id) else { return };
            task.version += 1;
            let event = self.event(task);
            // The next report is newer.
            task.version += 1;
            event
        };
        self.announce(event.map(|(mut event, identity)| {
            if let Some(detail) = event.get_mut("detail").and_then(Value::as_object_mut) {
                detail.extend(
                    [("lastStatus", "STOPPED"), ("desiredStatus", "STOPPED")]
                        .map(|(name, value)| (name.to_owned(), value.into())),
                );
                detail.extend(members.as_object().cloned().unwrap_or_default());
                let containers = detail.get_mut("containers").and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                    container.insert("lastStatus".into(), "STOPPED".into());
                    if let Some(code) = exit_code {
                        container.insert("exitCode".into(), code.into());
                        container.insert("reason".into(), OUT_OF_MEMORY.into());
                    }
                }
            }
            (event, identity)
        }));
    }

    fn announce(self: &Arc<Self>, event: Option<(Value, String)>) {
        if let Some((event, identity)) = event {
            self.bus.put(event, &identity);
        }
    }

    /// The Task State Change event for the current state of a task, and its identity for the seed.
    fn event(&self, task: &Task) -> Option<(Value, String)> {
        let silent = task.shapes.has(Shape::NoEvents)
            || (task.shapes.has(Shape::Forgotten) && task.stopping)
            || (task.shapes.has(Shape::SkipStates) && task.version > 1 && task.status != Status::Stopped);
        if silent {
            return None;
        }
        let place = &self.settings.place;
        let chance = &self.settings.chance;
        let identity = format!("{}/v{}", task.id, task.version);
        let when = if task.shapes.has(Shape::EventTime) { "event_time" } else { "time" };
        let mut event = json!({
            "version": "0", "id": chance.uuid("event", &identity), "detail-type": "ECS Task State Change",
            "source": "aws.ecs", "account": place.account, when: Millis::now().iso(), "region": place.region,
            "resources": [task.arn(place)],
            "detail": task.describe(place, chance, Reader::Event),
        });
        if let Some(members) = event.as_object_mut().filter(|_| task.shapes.has(Shape::MistypedMembers)) {
            members.insert("event_time".into(), Millis::now().epoch_seconds().into());
        }
        Some((event, identity))
    }

    /// Makes a task end, and sends an event. A task that is already ending is not affected.
    fn order(self: &Arc<Self>, id: &str, order: Order, code: &'static str, reason: &str) {
        self.change_if(id, |task| {
            let news = !task.stopping;
            task.begin_to_stop(code, reason);
            news
        });
        if let Some(task) = lock(&self.state).tasks.get(id) {
            task.orders.send_if_modified(|present| {
                let more = order > *present;
                if more {
                    *present = order;
                }
                more
            });
        }
    }
}

/// The id of a task, from its ARN or id.
fn task_id(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}
