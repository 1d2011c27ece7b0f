//! A task, and its formats in responses and in events.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::behavior::{Shape, Shapes};
use super::definition::TaskDefinition;
use super::run_task::Request;
use crate::clock::Millis;
use crate::rng::Chance;

/// The parts of ARNs.
#[derive(Clone, Debug)]
pub struct Location {
    /// Region, for ARNs.
    pub region: String,
    /// Account, for ARNs.
    pub account: String,
    /// The cluster's name.
    pub cluster: String,
}

impl Location {
    /// Returns `arn:aws:ecs:REGION:ACCOUNT:` and the resource.
    #[must_use]
    pub fn arn(&self, resource: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{resource}", self.region, self.account)
    }

    /// Returns the ARN of the cluster.
    #[must_use]
    pub fn cluster_arn(&self) -> String {
        self.arn(&format!("cluster/{}", self.cluster))
    }

    /// Returns the ARN of a task definition.
    #[must_use]
    pub fn definition_arn(&self, definition: &TaskDefinition) -> String {
        self.arn(&format!("task-definition/{}:{}", definition.family, definition.revision))
    }
}

/// The `lastStatus` of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Deprovisioning,
    Stopped,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// The order that ends a task. It only escalates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Live,
    Stop,
    /// The host is lost. ECS no longer reports its containers.
    LoseHost,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) definition: Arc<TaskDefinition>,
    pub(super) request: Arc<Request>,
    pub(super) shapes: Shapes,
    pub(super) status: Status,
    pub(super) stopping: bool,
    pub(super) version: u64,
    pub(super) stop_code: Option<&'static str>,
    pub(super) stopped_reason: Option<String>,
    pub(super) times: Times,
    pub(super) containers: Vec<Container>,
    /// The number of starts of the requested command.
    pub(super) start_count: u32,
    /// The actual exit code of the process, which ECS may not report.
    pub(super) process_exit_code: Option<i32>,
    /// When the requested command ended, by the local clock.
    pub(super) process_exited: Option<Millis>,
    pub(super) stopped: Option<Instant>,
    pub(super) forgotten: bool,
    /// RunTask returned a failure, although it launched the task.
    pub(super) refused: bool,
    pub(super) orders: watch::Sender<Order>,
}

#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) created: Millis,
    pub(super) created_at: Instant,
    pub(super) connected: Option<Millis>,
    pub(super) pull_started: Option<Millis>,
    pub(super) pull_stopped: Option<Millis>,
    pub(super) started: Option<Millis>,
    pub(super) stopping: Option<Millis>,
    pub(super) execution_stopped: Option<Millis>,
    pub(super) stopped: Option<Millis>,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) status: &'static str,
    pub(super) exit_code: Option<i32>,
    pub(super) reason: Option<String>,
    pub(super) was_started: bool,
}

/// The format of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Responses, in which times are numbers.
    Api,
    /// Events, in which times are strings.
    Event,
}

impl Task {
    pub(super) fn new(
        id: String,
        definition: Arc<TaskDefinition>,
        request: Arc<Request>,
        shapes: Shapes,
        orders: watch::Sender<Order>,
    ) -> Self {
        let containers = definition.containers.iter().map(|container| Container {
            name: container.name.clone(),
            image: container.image.clone(),
            status: "PENDING",
            exit_code: None,
            reason: None,
            was_started: false,
        });
        let times = Times {
            created: Millis::now(),
            created_at: Instant::now(),
            connected: None,
            pull_started: None,
            pull_stopped: None,
            started: None,
            stopping: None,
            execution_stopped: None,
            stopped: None,
        };
        Self {
            id,
            containers: containers.collect(),
            definition,
            request,
            shapes,
            status: Status::Provisioning,
            stopping: false,
            version: 1,
            stop_code: None,
            stopped_reason: None,
            times,
            start_count: 0,
            refused: false,
            process_exit_code: None,
            process_exited: None,
            stopped: None,
            forgotten: false,
            orders,
        }
    }

    pub(super) fn arn(&self, location: &Location) -> String {
        if self.shapes.has(Shape::ShortArns) {
            location.arn(&format!("task/{}", self.id))
        } else {
            location.arn(&format!("task/{}/{}", location.cluster, self.id))
        }
    }

    pub(super) fn desired_status(&self) -> &'static str {
        if self.stopping { "STOPPED" } else { "RUNNING" }
    }

    /// Records that the task must end, and why. The first reason is kept.
    pub(super) fn begin_to_stop(&mut self, code: &'static str, reason: &str) {
        self.stopping = true;
        self.stop_code.get_or_insert(code);
        self.stopped_reason.get_or_insert_with(|| reason.to_owned());
        self.times.stopping.get_or_insert_with(Millis::now);
    }

    /// Returns the index of the container whose command was requested.
    pub(super) fn named_container(&self) -> usize {
        let asked = self.request.overrides.containers.iter().find(|container| container.command.is_some());
        let name = asked.and_then(|container| container.name.as_ref());
        self.containers.iter().position(|container| Some(&container.name) == name).unwrap_or(0)
    }

    /// Returns the exit code that ECS reports.
    pub(super) fn reported_exit_code(&self) -> Option<i32> {
        self.containers.get(self.named_container()).and_then(|container| container.exit_code)
    }

    /// Returns the task in the format of ECS.
    pub(super) fn describe(&self, location: &Location, chance: &Chance, reader: Reader) -> Map<String, Value> {
        let event = reader == Reader::Event;
        let time = |at: Millis| if event { Value::from(at.iso()) } else { Value::from(at.epoch_seconds()) };
        let attachment = chance.uuid("attachment", &self.id);
        let address = format!("10.0.{}.{}", chance.between(&(0..=255), "address", &self.id), 10);
        let connected = self.status > Status::Provisioning;
        let attachment_status = match self.status {
            Status::Provisioning => "PRECREATED",
            Status::Stopped => "DELETED",
            _ => "ATTACHED",
        };
        let details = if connected {
            json!([{"name": "subnetId", "value": "subnet-0123456789abcdef0"},
                   {"name": "networkInterfaceId", "value": format!("eni-0{}", attachment.get(..8).unwrap_or_default())},
                   {"name": "macAddress", "value": "0a:58:a9:fe:ac:02"},
                   {"name": "privateIPv4Address", "value": address}])
        } else {
            json!([{"name": "subnetId", "value": "subnet-0123456789abcdef0"}])
        };
        let arn = self.arn(location);
        // A task without capacity never has containers.
        let given_up = self.shapes.has(Shape::CapacityGivenUp) && self.stopping;
        let task = json!({
            "attachments": [{"id": attachment, "type": if event { "eni" } else { "ElasticNetworkInterface" },
                             "status": attachment_status, "details": details}],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": format!("{}a", location.region),
            "clusterArn": location.cluster_arn(),
            "containers": if given_up {
                json!([])
            } else {
                self.describe_containers(location, chance, reader, &attachment, &address)
            },
            "cpu": self.request.overrides.cpu.as_deref().or(self.definition.cpu.as_deref()).unwrap_or("256"),
            "memory": self.request.overrides.memory.as_deref().or(self.definition.memory.as_deref()).unwrap_or("512"),
            "createdAt": time(self.times.created),
            "desiredStatus": self.desired_status(),
            "enableExecuteCommand": self.request.enable_execute_command,
            "ephemeralStorage": {"sizeInGiB": 20},
            "group": self.request.group.clone().unwrap_or_else(|| format!("family:{}", self.definition.family)),
            "lastStatus": self.status.as_str(),
            "overrides": self.request.overrides.shown(),
            "platformVersion": "1.4.0",
            "taskArn": arn,
            "taskDefinitionArn": location.definition_arn(&self.definition),
            "updatedAt": time(Millis::now()),
            "version": self.version,
        });
        let Value::Object(mut task) = task else { return Map::new() };
        let mut set = |name: &str, value: Option<Value>| value.map(|value| task.insert(name.to_owned(), value));
        let times = &self.times;
        for (name, at) in [
            ("connectivityAt", times.connected),
            ("pullStartedAt", times.pull_started),
            ("pullStoppedAt", times.pull_stopped),
            ("startedAt", times.started),
            ("stoppingAt", times.stopping),
            ("executionStoppedAt", times.execution_stopped),
            ("stoppedAt", times.stopped),
        ] {
            set(name, at.map(time));
        }
        set("connectivity", times.connected.map(|_| "CONNECTED".into()));
        set("startedBy", self.request.started_by.clone().map(Value::from));
        set("stopCode", self.stop_code.map(Value::from));
        set("stoppedReason", self.stopped_reason.clone().map(Value::from));
        match &self.request.capacity_provider {
            Some(provider) => set("capacityProviderName", Some(provider.clone().into())),
            None => set("launchType", Some(self.request.launch_type.as_str().into())),
        };
        if event {
            self.distort(&mut task);
        } else {
            task.remove("updatedAt");
            task.insert("healthStatus".into(), "UNKNOWN".into());
            task.insert("inferenceAccelerators".into(), json!([]));
            task.insert("platformFamily".into(), "Linux".into());
            task.insert("tags".into(), self.request.tags.clone());
        }
        task
    }

    fn describe_containers(
        &self,
        location: &Location,
        chance: &Chance,
        reader: Reader,
        attachment: &str,
        address: &str,
    ) -> Value {
        let mut containers = Vec::new();
        for (at, container) in self.containers.iter().enumerate() {
            let id = chance.uuid("container", &format!("{}/{at}", self.id));
            let mut shown = json!({
                "containerArn": location.arn(&format!("container/{}/{}/{id}", location.cluster, self.id)),
                "taskArn": self.arn(location), "name": container.name, "image": container.image,
                "lastStatus": container.status, "cpu": "0",
                "networkInterfaces": [{"attachmentId": attachment, "privateIpv4Address": address}],
            });
            let Some(fields) = shown.as_object_mut() else { continue };
            if let Some(code) = container.exit_code {
                fields.insert("exitCode".into(), code.into());
            }
            if let Some(reason) = &container.reason {
                fields.insert("reason".into(), reason.clone().into());
            }
            if container.was_started {
                let number = chance.between(&(1_000_000_000..=4_000_000_000), "runtime", &id);
                fields.insert("runtimeId".into(), format!("{}-{number}", self.id).into());
            }
            if reader == Reader::Api {
                fields.insert("networkBindings".into(), json!([]));
                fields.insert("healthStatus".into(), "UNKNOWN".into());
            }
            if self.shapes.has(Shape::ForeignTaskArn) {
                fields.insert("taskArn".into(), location.arn(&format!("task/{}", chance.hex("foreign", &id))).into());
            }
            let twin_code = match (self.shapes.has(Shape::Twin), self.shapes.has(Shape::FailingTwin)) {
                (false, false) => None,
                (_, failing) => Some(i32::from(failing)),
            };
            if let (true, Some(code)) = (at == self.named_container(), twin_code) {
                let mut twin = fields.clone();
                // The second container ends with the task, after the first.
                if self.status == Status::Stopped {
                    twin.insert("exitCode".into(), code.into());
                } else {
                    twin.remove("exitCode");
                    twin.insert("lastStatus".into(), "RUNNING".into());
                }
                containers.push(Value::Object(twin));
            }
            containers.push(shown);
        }
        Value::Array(containers)
    }

    /// Applies the shapes that only events show.
    fn distort(&self, task: &mut Map<String, Value>) {
        for (shape, member) in [
            (Shape::NoStartedBy, "startedBy"),
            (Shape::NoLaunchType, "launchType"),
            (Shape::NoAttachments, "attachments"),
            (Shape::NoPlatformVersion, "platformVersion"),
            (Shape::NoVersion, "version"),
        ] {
            if self.shapes.has(shape) {
                task.remove(member);
            }
        }
        if self.shapes.has(Shape::NullExitCode) {
            let containers = task.get_mut("containers").and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.insert("exitCode".into(), Value::Null);
            }
        }
        if self.shapes.has(Shape::EmptyContainers) && self.status == Status::Stopped {
            task.insert("containers".into(), json!([]));
        }
        if self.shapes.has(Shape::MistypedMembers) {
            self.mistype(task);
        }
        if self.shapes.has(Shape::UnknownMembers) {
            task.insert("someNewMember".into(), json!({"nested": [null, 1.5, "x"]}));
        }
    }

    fn mistype(&self, task: &mut Map<String, Value>) {
        for member in ["cpu", "memory"] {
            let number = task.get(member).and_then(|size| size.as_str()?.parse::<u64>().ok());
            task.insert(member.into(), number.into());
        }
        let times = &self.times;
        for (member, at) in [
            ("startedAt", times.started),
            ("executionStoppedAt", times.execution_stopped),
            ("stoppedAt", times.stopped),
            ("updatedAt", Some(Millis::now())),
        ] {
            if let Some(at) = at {
                task.insert(member.into(), at.epoch_seconds().into());
            }
        }
        let version = u32::try_from(self.version).map(f64::from);
        task.insert("version".into(), json!(version.ok()));
        task.insert("availabilityZone".into(), json!(["a"]));
    }

    /// Returns the members that ECS returns for a repeated client token after the task has stopped.
    pub(super) fn describe_briefly(&self, location: &Location) -> Value {
        json!({"taskArn": self.arn(location), "clusterArn": location.cluster_arn(),
               "lastStatus": self.status.as_str(), "desiredStatus": self.desired_status()})
    }
}
