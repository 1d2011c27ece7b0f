//! The EventBridge emulator: one rule with the pattern of the deployment's template, and task-state as its target. It
//! duplicates, drops and delays events by the seed.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::faults::Faults;
use crate::http::lock;
use crate::lambda::Lambda;
use crate::pattern::Pattern;
use crate::rng::Chance;

/// The number of events that are kept for inspection.
const KEPT: usize = 1_000;

/// Faults of the delivery.
#[derive(Clone, Debug)]
pub struct DeliveryFaults {
    /// The share of events that are delivered twice.
    pub duplicate: f64,
    /// The share of events that are not delivered.
    pub drop: f64,
    /// The delay of each delivery, in milliseconds.
    pub delay_ms: RangeInclusive<u64>,
    /// The source of decisions.
    pub chance: Chance,
}

/// The event bus.
#[derive(Debug)]
pub struct Bus {
    pattern: Pattern,
    delivery: DeliveryFaults,
    faults: Arc<Faults>,
    target: OnceLock<(Arc<Lambda>, String)>,
    recent: Mutex<VecDeque<Value>>,
}

impl Bus {
    /// Creates a bus whose rule has no target yet.
    #[must_use]
    pub fn new(pattern: Pattern, delivery: DeliveryFaults, faults: Arc<Faults>) -> Self {
        Self { pattern, delivery, faults, target: OnceLock::new(), recent: Mutex::default() }
    }

    /// Sets the target of the rule. Later calls have no effect.
    pub fn set_target(&self, lambda: Arc<Lambda>, function: &str) {
        let _ = self.target.set((lambda, function.to_owned()));
    }

    /// Puts an event on the bus, and delivers it if it matches the pattern of the rule. Returns true if it matches. The
    /// faults depend on the seed and on `identity`.
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

    /// Returns the last 1,000 events, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Value> {
        lock(&self.recent).iter().cloned().collect()
    }

    fn deliver(self: &Arc<Self>, event: &Value, identity: &str) {
        let DeliveryFaults { duplicate, drop, delay_ms, chance } = &self.delivery;
        let Some((lambda, function)) = self.target.get() else { return };
        if chance.happens(*drop, "drop", identity) {
            self.faults.dropped.count();
            return;
        }
        let mut purposes = vec!["delay"];
        if chance.happens(*duplicate, "duplicate", identity) {
            self.faults.duplicated.count();
            purposes.push("delay of the duplicate");
        }
        let payload = axum::body::Bytes::from(event.to_string());
        for purpose in purposes {
            let (lambda, function, payload) = (Arc::clone(lambda), function.clone(), payload.clone());
            let delay = chance.between(delay_ms, purpose, identity);
            if delay == 0 {
                // The function exists: the stack was started with it.
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
