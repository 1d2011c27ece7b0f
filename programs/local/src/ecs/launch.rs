//! RunTask: client tokens, capacity, and the creation of tasks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::behavior::{Shape, Shapes};
use super::definition::TaskDefinition;
use super::error::{ApiError, parse};
use super::lifecycle;
use super::resources::NamesDefinition;
use super::rules::Then;
use super::run_task::Request;
use super::state::{Ecs, MEMORY, State, Token, hash_of};
use super::task::{Order, Status, Task};
use crate::http::lock;

/// The maximum lifetime of a client token.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The suffix of an image name that no registry has.
const NO_IMAGE: &str = ":does-not-exist";

impl Ecs {
    pub(super) fn run_task(self: &Arc<Self>, body: &Value, rule: Option<&Then>) -> Result<Value, ApiError> {
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

    /// Returns a failure of ECS for unavailable capacity.
    pub(super) fn shortage(&self, request: &Request) -> String {
        let reasons = [
            "RESOURCE:MEMORY",
            "RESOURCE:CPU",
            "RESOURCE:ENI",
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        ];
        self.settings.chance.pick(reasons, "shortage", request.identity()).to_owned()
    }

    /// Returns the tasks that this client token has started, if it is still valid.
    pub(super) fn earlier(&self, state: &State, request: &Request, hash: u64) -> Result<Option<Vec<Value>>, ApiError> {
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
            error.resource_ids = tasks.iter().map(|task| task.arn(&self.settings.location)).collect();
            return Err(error);
        }
        let shown = tasks.into_iter().map(|task| match task.status {
            Status::Stopped => task.describe_briefly(&self.settings.location),
            _ => self.show(task, true),
        });
        Ok(Some(shown.collect()))
    }

    pub(super) fn create(
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
}
