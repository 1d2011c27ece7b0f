//! A run: its profile, the resources that it created, and their removal.

use std::time::Duration;

use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{Task, TaskDefinitionStatus};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::PREFIX;
use super::events::Watch;
use crate::account::{Account, Function, error_text};
use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::output::{now, with_causes};
use crate::record::{Record, is_terminal, text};

/// The time that a task may take to start or to end.
pub const A_TASK: Duration = Duration::from_secs(6 * 60);

/// A run of `verify-aws`.
pub struct Context<'a> {
    /// The bridge.
    pub bridge: &'a Client,
    /// Its account.
    pub account: &'a Account,
    /// The name of the run, and the prefix of the names of its resources.
    pub name: String,
    /// The start of the run, in epoch milliseconds.
    pub began: i64,
    /// The region.
    pub region: String,
    /// The profile.
    pub profile: String,
    /// The cluster that it runs on.
    pub cluster: String,
    /// The profile's container.
    pub container: String,
    /// Its RunTask parameters.
    run_task: Map<String, Value>,
    /// The size of its tasks: CPU units and MiB.
    pub size: Option<(f64, f64)>,
    /// A profile with a pool, if there is one.
    pub pool: Option<String>,
    /// The events that it receives from ECS.
    pub watch: Option<Watch>,
    /// Ids of its submissions.
    submissions: Vec<String>,
    /// ARNs of the tasks that it started itself.
    tasks: Vec<String>,
    time_scale: f64,
}

impl<'a> Context<'a> {
    /// Reads the profile and its task definition. Creates nothing.
    pub async fn new(
        bridge: &'a Client,
        account: &'a Account,
        profile: Option<&str>,
        time_scale: f64,
    ) -> Result<Self, String> {
        let configuration = account.configuration(Function::Submit).await?;
        let profiles = configuration.profiles().ok_or(
            "the profiles are not in the environment of submit but in a layer: verify a stack with the parameter Profiles",
        )?;
        let has_pool = |profile: &Value| profile.get("pool").is_some();
        let name = profile.map(str::to_owned).or_else(|| {
            let mut plain = profiles.iter().filter(|(_, profile)| !has_pool(profile)).map(|(name, _)| name);
            if profiles.get("default").is_some_and(|profile| !has_pool(profile)) {
                return Some("default".to_owned());
            }
            plain.next().cloned()
        });
        let name = name.ok_or("every profile has a pool: verify-aws needs one without")?;
        let chosen = profiles.get(&name).ok_or_else(|| {
            format!(
                "there is no profile {name}: it is one of {}",
                profiles.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })?;
        let run_task = chosen.get("run_task").and_then(Value::as_object).cloned().unwrap_or_default();
        let cluster = run_task.get("cluster").and_then(Value::as_str).or(configuration.cluster()).unwrap_or_default();
        let (cluster, container) =
            (cluster.to_owned(), chosen.get("container_name").and_then(Value::as_str).unwrap_or_default().to_owned());
        let began = now();
        let size = match run_task.get("taskDefinition").and_then(Value::as_str) {
            Some(definition) => size(account, definition).await,
            None => None,
        };
        Ok(Self {
            size,
            region: bridge.config().region().map(ToString::to_string).unwrap_or_default(),
            pool: profiles.iter().find(|(_, profile)| has_pool(profile)).map(|(name, _)| name.clone()),
            bridge,
            account,
            name: format!("{PREFIX}{began:x}"),
            began,
            profile: name,
            cluster,
            container,
            run_task,
            watch: None,
            submissions: Vec::new(),
            tasks: Vec::new(),
            time_scale,
        })
    }

    /// Returns `time`, or a shorter time for a local stack with a time scale.
    pub fn within(&self, time: Duration) -> Duration {
        // The time scale does not speed up a busy machine.
        time.div_f64(self.time_scale).max(Duration::from_secs(20).min(time))
    }

    /// Repeats `look` until it returns a value, for up to `time`.
    pub async fn until<T>(&self, time: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
        let (end, every) =
            (Instant::now() + self.within(time), Duration::from_secs(2).div_f64(self.time_scale.min(8.0)));
        loop {
            if let Some(found) = look().await {
                return Some(found);
            }
            if Instant::now() > end {
                return None;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Returns the body of a RunTask request of the profile for `command`, with the members of `more`.
    pub fn request(&self, token: &str, command: &[&str], more: &Value) -> Map<String, Value> {
        let mut request = self.run_task.clone();
        let container = json!([{"name": self.container, "command": command}]);
        let overrides = request.entry("overrides").or_insert_with(|| json!({}));
        if let Some(overrides) = overrides.as_object_mut() {
            overrides.insert("containerOverrides".into(), container);
            overrides.extend(more.get("overrides").and_then(Value::as_object).cloned().unwrap_or_default());
        }
        let more = more.as_object().into_iter().flatten().filter(|(name, _)| *name != "overrides");
        request.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        request.insert("cluster".into(), self.cluster.clone().into());
        request.insert("startedBy".into(), self.name.clone().into());
        request.insert("clientToken".into(), format!("{}-{token}", self.name).into());
        request
    }

    /// Calls RunTask once, with the JSON as its body, as the bridge does. Records the task.
    pub async fn run_task(&mut self, request: &Map<String, Value>) -> Result<Task, (String, String)> {
        let body = Value::Object(request.clone()).to_string();
        let sent = self.account.ecs.run_task().customize();
        let sent = sent.config_override(aws_sdk_ecs::Config::builder().retry_config(RetryConfig::disabled()));
        let sent = sent.mutate_request(move |request| {
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = body.as_str().into();
        });
        match sent.send().await {
            Ok(answer) => {
                let task = answer.tasks.unwrap_or_default().into_iter().next();
                let failure = answer.failures.unwrap_or_default().into_iter().next();
                if let Some(arn) = task.as_ref().and_then(Task::task_arn)
                    && !self.tasks.iter().any(|known| known == arn)
                {
                    self.tasks.push(arn.to_owned());
                }
                task.ok_or_else(|| {
                    let reason =
                        failure.and_then(|failure| failure.reason).unwrap_or_else(|| "neither task nor failure".into());
                    ("failures".to_owned(), reason)
                })
            }
            Err(error) => {
                let code = error.code().unwrap_or("none").to_owned();
                Err((code, error.message().map_or_else(|| error_text(&error), str::to_owned)))
            }
        }
    }

    /// Returns the id of a submission of this run.
    pub fn id(&self, what: &str) -> String {
        format!("verify-{}-{what}", self.name.trim_start_matches(PREFIX))
    }

    /// Submits a command.
    pub async fn submit(&mut self, what: &str, profile: &str, command: &[&str]) -> Result<String, String> {
        let id = self.id(what);
        self.submissions.push(id.clone());
        let item = json!({"submission_id": id, "profile": profile, "command": command, "labels": {"ecs-bridge": "verify-aws"}});
        let answer = self.bridge.call("POST", "/v1/submissions", Some(&json!({"submissions": [item]}))).await;
        let answer = answer.map_err(|error| with_causes(&error))?;
        match answer.pointer("/submissions/0/error/message").and_then(Value::as_str) {
            Some(refusal) => Err(refusal.to_owned()),
            None => Ok(id),
        }
    }

    /// Returns `true` if this run has submitted this id.
    pub fn has_submitted(&self, id: &str) -> bool {
        self.submissions.iter().any(|other| other == id)
    }

    /// Returns the record of a submission once `is` returns `true` for it.
    pub async fn record(&self, id: &str, is: impl Fn(&Record) -> bool) -> Result<Record, String> {
        let mut last = Err("no record".to_owned());
        let found = self
            .until(2 * A_TASK, async || match self.bridge.record(id).await {
                Ok(record) if is(&record) => Some(record),
                Ok(record) => {
                    last = Err(format!("it is still {}", text(&record, "state")));
                    None
                }
                Err(error) => {
                    last = Err(with_causes(&error));
                    None
                }
            })
            .await;
        found.map_or(last, Ok)
    }

    /// Returns the received events.
    pub fn seen_events(&self) -> Vec<Value> {
        self.watch
            .as_ref()
            .map(|watch| watch.events().into_iter().map(|received| received.event).collect())
            .unwrap_or_default()
    }

    /// Returns the names of the account, with their replacements in a report.
    pub fn names(&self) -> Vec<(String, String)> {
        let short = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
        let mut names = vec![
            (short(&self.cluster), "cluster".to_owned()),
            (self.container.clone(), "main".to_owned()),
            (self.name.clone(), "ecs-bridge-verify".to_owned()),
            (self.name.trim_start_matches(PREFIX).to_owned(), "run".to_owned()),
        ];
        if let Ok(deployment) = self.bridge.deployment() {
            names.push((deployment.to_owned(), "ecs-bridge".to_owned()));
        }
        let mut tasks: Vec<_> = self
            .seen_events()
            .iter()
            .filter_map(|event| Some(short(event.pointer("/detail/taskArn")?.as_str()?)))
            .chain(self.tasks.iter().map(|arn| short(arn)))
            .collect();
        tasks.sort();
        tasks.dedup();
        names.extend(tasks.into_iter().enumerate().map(|(at, id)| (id, format!("{:032x}", at + 1))));
        names
    }

    /// Returns the number of tasks and submissions of this run.
    pub fn launched(&self) -> usize {
        self.tasks.len() + self.submissions.len()
    }

    /// Returns `true` if the profile has a network configuration, which the network mode awsvpc requires.
    pub fn has_network(&self) -> bool {
        self.run_task.get("networkConfiguration").is_some_and(Value::is_object)
    }

    /// Returns `true` if the profile requires Fargate. Without launch type and strategy, the cluster decides.
    pub fn is_on_fargate(&self) -> bool {
        is_on_fargate(&self.run_task)
    }

    /// Returns the task definition of the profile.
    pub fn task_definition(&self) -> Option<&str> {
        self.run_task.get("taskDefinition")?.as_str()
    }

    /// Removes all resources whose names begin with `prefix`, and returns their names.
    pub async fn clean(&mut self, prefix: &str) -> Result<Vec<String>, String> {
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        let mut note = |what: String, result: Result<(), String>| match result {
            Ok(()) => removed.push(format!("removed {what}")),
            Err(error) => failed.push(format!("{what}: {error}")),
        };
        let mut running = Vec::new();
        for id in &self.submissions {
            if let Ok(record) = self.bridge.record(id).await
                && !is_terminal(&record)
            {
                running.push(id.clone());
            }
        }
        if !running.is_empty() {
            let body = json!({"submission_ids": running, "reason": "verify-aws has ended"});
            let result = self.bridge.call("POST", "/v1/stops", Some(&body)).await;
            note(running.join(", "), result.map(drop).map_err(|error: ClientError| with_causes(&error)));
        }
        for arn in &self.tasks {
            let described = self.account.ecs.describe_tasks().cluster(&self.cluster).tasks(arn).send().await;
            let runs = described
                .is_ok_and(|answer| answer.tasks().iter().any(|task| task.desired_status() != Some("STOPPED")));
            if runs {
                let stopped =
                    self.account.ecs.stop_task().cluster(&self.cluster).task(arn).reason("verify-aws has ended");
                note(format!("task {arn}"), stopped.send().await.map(drop).map_err(|error| error_text(&error)));
            }
        }
        if let Some(watch) = &self.watch {
            watch.end();
        }
        // A killed run leaves these resources. Its tasks end within ten minutes.
        let family = format!("{PREFIX}cannot-pull");
        let listed =
            self.account.ecs.list_task_definitions().family_prefix(&family).status(TaskDefinitionStatus::Active);
        for arn in listed.send().await.ok().and_then(|answer| answer.task_definition_arns).unwrap_or_default() {
            let result = self.account.ecs.deregister_task_definition().task_definition(&arn).send().await;
            note(format!("task definition {arn}"), result.map(drop).map_err(|error| error_text(&error)));
        }
        if self.account.has("EVENTBRIDGE") && self.account.has("SQS") {
            let rules = self.account.events.list_rules().name_prefix(prefix).send().await;
            for name in
                rules.ok().and_then(|answer| answer.rules).unwrap_or_default().into_iter().filter_map(|rule| rule.name)
            {
                note(format!("rule {name}"), Watch::remove_rule(self.account, &name).await);
            }
            let queues = self.account.sqs.list_queues().queue_name_prefix(prefix).send().await;
            for url in queues.ok().and_then(|answer| answer.queue_urls).unwrap_or_default() {
                let result = self.account.sqs.delete_queue().queue_url(&url).send().await;
                note(format!("queue {url}"), result.map(drop).map_err(|error| error_text(&error)));
            }
        }
        if failed.is_empty() { Ok(removed) } else { Err(format!("not removed: {}", failed.join("; "))) }
    }
}

fn is_on_fargate(run_task: &Map<String, Value>) -> bool {
    let strategy = run_task.get("capacityProviderStrategy").and_then(Value::as_array).filter(|items| !items.is_empty());
    let is_fargate = |item: &Value| {
        let provider = item.get("capacityProvider").and_then(Value::as_str);
        matches!(provider, Some("FARGATE" | "FARGATE_SPOT"))
    };
    match (strategy, run_task.get("launchType").and_then(Value::as_str)) {
        (Some(items), _) => items.iter().all(is_fargate),
        (None, launch_type) => launch_type == Some("FARGATE"),
    }
}

/// Returns CPU units and MiB of a task definition.
async fn size(account: &Account, name: &str) -> Option<(f64, f64)> {
    let answer = account.ecs.describe_task_definition().task_definition(name).send().await.ok()?;
    let definition = answer.task_definition?;
    Some((definition.cpu?.parse().ok()?, definition.memory?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fargate_requires_launch_type_or_strategy() {
        let on = |value: Value| is_on_fargate(value.as_object().unwrap());
        let strategy = |names: &[&str]| {
            let items: Vec<_> = names.iter().map(|name| json!({"capacityProvider": name, "weight": 1})).collect();
            json!({"capacityProviderStrategy": items})
        };
        assert!(on(json!({"launchType": "FARGATE"})) && on(strategy(&["FARGATE_SPOT", "FARGATE"])));
        for other in [json!({}), json!({"launchType": "EC2"}), strategy(&["FARGATE", "gpu"]), strategy(&[])] {
            assert!(!on(other));
        }
    }
}
