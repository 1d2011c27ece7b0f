//! Changes of tasks, and the events that report them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::behavior::{OUT_OF_MEMORY, Shape};
use super::state::Ecs;
use super::task::{Order, Reader, Status, Task};
use crate::clock::Millis;
use crate::http::lock;

impl Ecs {
    /// Changes a task, and puts its event on the bus.
    pub(super) fn change(self: &Arc<Self>, id: &str, change: impl FnOnce(&mut Task)) {
        self.change_if(id, |task| {
            change(task);
            true
        });
    }

    /// Changes a task, and puts its event on the bus if `change` returns true.
    pub(super) fn change_if(self: &Arc<Self>, id: &str, change: impl FnOnce(&mut Task) -> bool) {
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
    pub(super) fn send_event(self: &Arc<Self>, id: &str) -> bool {
        let event = lock(&self.state).tasks.get(id).and_then(|task| self.event(task));
        let is_sent = event.is_some();
        self.announce(event);
        is_sent
    }

    /// Puts an event on the bus that reports a stop of a task that keeps running, as an EC2 host can.
    pub(super) fn report_stopped(self: &Arc<Self>, id: &str, members: &Value, exit_code: Option<i32>) {
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

    pub(super) fn announce(self: &Arc<Self>, event: Option<(Value, String)>) {
        if let Some((event, identity)) = event {
            self.bus.put(event, &identity);
        }
    }

    /// Returns the Task State Change event for the current state of a task, and its identity for the seed.
    pub(super) fn event(&self, task: &Task) -> Option<(Value, String)> {
        let silent = task.shapes.has(Shape::NoEvents)
            || (task.shapes.has(Shape::Forgotten) && task.stopping)
            || (task.shapes.has(Shape::SkipStates) && task.version > 1 && task.status != Status::Stopped);
        if silent {
            return None;
        }
        let location = &self.settings.location;
        let chance = &self.settings.chance;
        let identity = format!("{}/v{}", task.id, task.version);
        let when = if task.shapes.has(Shape::EventTime) { "event_time" } else { "time" };
        let mut event = json!({
            "version": "0", "id": chance.uuid("event", &identity), "detail-type": "ECS Task State Change",
            "source": "aws.ecs", "account": location.account, when: Millis::now().iso(), "region": location.region,
            "resources": [task.arn(location)],
            "detail": task.describe(location, chance, Reader::Event),
        });
        if let Some(members) = event.as_object_mut().filter(|_| task.shapes.has(Shape::MistypedMembers)) {
            members.insert("event_time".into(), Millis::now().epoch_seconds().into());
        }
        Some((event, identity))
    }

    /// Ends a task, and sends an event. An order below an earlier one has no effect.
    pub(super) fn order(self: &Arc<Self>, id: &str, order: Order, code: &'static str, reason: &str) {
        self.change_if(id, |task| {
            let is_change = !task.stopping;
            task.begin_to_stop(code, reason);
            is_change
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

    /// Changes a task without an event.
    pub(super) fn update(&self, id: &str, change: impl FnOnce(&mut Task)) {
        if let Some(task) = lock(&self.state).tasks.get_mut(id) {
            change(task);
        }
    }
}
