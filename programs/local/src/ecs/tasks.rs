//! DescribeTasks, ListTasks and StopTask.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::{Ecs, task_id};
use super::task::{Order, Task};
use crate::http::lock;

#[derive(Deserialize)]
pub(super) struct DescribeTasks {
    #[serde(default)]
    pub(super) tasks: Vec<String>,
    #[serde(default)]
    pub(super) include: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListTasks {
    #[serde(default)]
    pub(super) container_instance: Option<String>,
    #[serde(default)]
    pub(super) desired_status: Option<String>,
    #[serde(default)]
    pub(super) family: Option<String>,
    #[serde(default)]
    pub(super) launch_type: Option<String>,
    #[serde(default)]
    pub(super) max_results: Option<i64>,
    #[serde(default)]
    pub(super) next_token: Option<String>,
    #[serde(default)]
    pub(super) service_name: Option<String>,
    #[serde(default)]
    pub(super) started_by: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct StopTask {
    #[serde(default)]
    pub(super) task: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

impl Ecs {
    pub(super) fn describe_tasks(&self, input: &DescribeTasks) -> Result<Value, ApiError> {
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
                        let location = &self.settings.location;
                        location.arn(&format!("task/{}/{reference}", location.cluster))
                    };
                    failures.push(json!({"arn": arn, "reason": "MISSING"}));
                }
            }
        }
        Ok(json!({"tasks": tasks, "failures": failures}))
    }

    pub(super) fn list_tasks(&self, input: &ListTasks) -> Result<Value, ApiError> {
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
            self.known(&state, id).filter(wanted).map(|task| (at, task.arn(&self.settings.location)))
        });
        let page: Vec<_> = found.by_ref().take(most).collect();
        let mut output = json!({"taskArns": page.iter().map(|(_, arn)| arn).collect::<Vec<_>>()});
        if let (Some((last, _)), Some(_), Some(fields)) = (page.last(), found.next(), output.as_object_mut()) {
            fields.insert("nextToken".into(), (last + 1).to_string().into());
        }
        Ok(output)
    }

    pub(super) fn stop_task(self: &Arc<Self>, input: StopTask) -> Result<Value, ApiError> {
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
}
