//! The stand-in for EventBridge: one rule, by the deployment's own pattern, with task-state as its target. Events are
//! doubled, dropped and delayed as the seed says.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::chance::Chance;
use crate::faults::Faults;
use crate::http::lock;
use crate::lambda::Lambda;
use crate::pattern::Pattern;

/// How many events are kept to be looked at.
const KEPT: usize = 1_000;

/// What goes wrong on the way.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Share of events that come twice.
    pub duplicate: f64,
    /// Share of events that never come.
    pub drop: f64,
    /// Each delivery is late by so many milliseconds.
    pub delay_ms: RangeInclusive<u64>,
    /// What decides.
    pub chance: Chance,
}

/// The bus.
#[derive(Debug)]
pub struct Bus {
    pattern: Pattern,
    delivery: Delivery,
    faults: Arc<Faults>,
    target: OnceLock<(Arc<Lambda>, String)>,
    recent: Mutex<VecDeque<Value>>,
}

impl Bus {
    /// A bus whose rule has no target yet.
    #[must_use]
    pub fn new(pattern: Pattern, delivery: Delivery, faults: Arc<Faults>) -> Self {
        Self { pattern, delivery, faults, target: OnceLock::new(), recent: Mutex::default() }
    }

    /// Sets the rule's target; the first one stays.
    pub fn set_target(&self, lambda: Arc<Lambda>, function: &str) {
        let _ = self.target.set((lambda, function.to_owned()));
    }

    /// Takes an event, and delivers it if the rule's pattern passes it; tells whether it does. `identity` is what the
    /// seed's decisions hang on.
    pub fn put(self: &Arc<Self>, event: Value, identity: &str) -> bool {
        self.faults.events_sent.count();
        let matches = self.pattern.matches(&event);
        if matches {
            self.faults.events_matched.count();
            self.deliver(&event, identity);
        }
        let mut recent = lock(&self.recent);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event);
        matches
    }

    /// The last events that were put, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Value> {
        lock(&self.recent).iter().cloned().collect()
    }

    fn deliver(self: &Arc<Self>, event: &Value, identity: &str) {
        let Delivery { duplicate, drop, delay_ms, chance } = &self.delivery;
        let Some((lambda, function)) = self.target.get() else { return };
        if chance.happens(*drop, "drop", identity) {
            self.faults.dropped.count();
            return;
        }
        let mut questions = vec!["delay"];
        if chance.happens(*duplicate, "duplicate", identity) {
            self.faults.duplicated.count();
            questions.push("delay of the duplicate");
        }
        let payload = axum::body::Bytes::from(event.to_string());
        for question in questions {
            let (lambda, function, payload) = (Arc::clone(lambda), function.clone(), payload.clone());
            let delay = chance.between(delay_ms, question, identity);
            if delay == 0 {
                // The function is there: the stack was started with it.
                let _ = lambda.invoke_event(&function, payload);
                continue;
            }
            self.faults.delayed.count();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let _ = lambda.invoke_event(&function, payload);
            });
        }
    }
}
