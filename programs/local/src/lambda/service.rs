//! Lambda: starts the functions, invokes them, and retries and discards events.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::function::{Counts, Function, FunctionSettings, Outcome, Startup};
use super::queue::Queue;
use super::sandbox;
use crate::clock::Scale;
use crate::http::lock;
use crate::rng::Chance;

/// The delays before the second and the third attempt of an asynchronous invocation.
const RETRIES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// The maximum age of an asynchronous invocation; an older one is discarded.
const MAX_AGE: Duration = Duration::from_secs(6 * 60 * 60);

/// The number of discarded events that are kept for inspection.
const ABANDONED_KEPT: usize = 1_000;

/// The settings of all functions.
#[derive(Clone, Debug)]
pub struct LambdaSettings {
    /// The region, for ARNs.
    pub region: String,
    /// The account, for ARNs.
    pub account: String,
    /// The divisor of Lambda's own delays, before retries.
    pub scale: Scale,
    /// The directory in which each process writes its output to a file; without it, to standard error.
    pub log_dir: Option<PathBuf>,
    /// The source of request ids.
    pub chance: Chance,
}

/// The cause of a failed start of Lambda.
#[derive(Debug, Error)]
pub enum StartError {
    /// The first process of a function ended before it requested an invocation.
    #[error("function {function} does not start: {cause}")]
    Init {
        /// Its name.
        function: String,
        /// The error of its process.
        cause: String,
    },
}

/// The running functions. Dropping it ends them.
#[derive(Debug)]
pub struct Lambda {
    functions: BTreeMap<String, Arc<Function>>,
    settings: LambdaSettings,
    requests: AtomicU64,
    abandoned: Mutex<VecDeque<Value>>,
    /// Keeps the processes alive.
    _slots: JoinSet<()>,
}

/// The error for an unknown function name.
#[derive(Debug, Error)]
#[error("unknown function \"{0}\"")]
pub struct UnknownFunction(String);

impl Lambda {
    /// Starts all processes of all functions. [`Lambda::ready`] waits for them.
    #[must_use]
    pub fn start(settings: LambdaSettings, functions: Vec<FunctionSettings>) -> Self {
        let mut slots = JoinSet::new();
        let functions = functions.into_iter().map(|function| {
            let arn = format!("arn:aws:lambda:{}:{}:function:{}", settings.region, settings.account, function.name);
            let function = Arc::new(Function {
                arn,
                queue: Queue::default(),
                counts: Counts::default(),
                startup: watch::Sender::new(Startup::Starting),
                processes: Mutex::default(),
                settings: function,
            });
            for slot in 0..function.settings.processes {
                slots.spawn(sandbox::keep_one_running(Arc::clone(&function), slot, settings.log_dir.clone()));
            }
            (function.settings.name.clone(), function)
        });
        let functions = functions.collect();
        Self { functions, settings, requests: AtomicU64::new(0), abandoned: Mutex::default(), _slots: slots }
    }

    /// Waits until every function has a process that has requested an invocation.
    ///
    /// # Errors
    /// If a process of a function ended before that.
    pub async fn ready(&self) -> Result<(), StartError> {
        for (name, function) in &self.functions {
            let mut startup = function.startup.subscribe();
            let seen = startup.wait_for(|startup| !matches!(startup, Startup::Starting)).await.map(|seen| seen.clone());
            if let Ok(Startup::Failed(problem)) = seen {
                let message = serde_json::from_str::<Value>(&problem).ok();
                let message = message.as_ref().and_then(|problem| problem.get("errorMessage")?.as_str());
                let mut cause = message.unwrap_or(&problem).to_owned();
                if let Some(dir) = &self.settings.log_dir {
                    cause.push_str(&format!("; see {}", dir.join(format!("{name}-*.log")).display()));
                }
                return Err(StartError::Init { function: name.clone(), cause });
            }
        }
        Ok(())
    }

    /// Invokes a function and waits for the result.
    ///
    /// # Errors
    /// If there is no such function.
    pub async fn invoke(&self, name: &str, payload: Bytes) -> Result<(String, Outcome), UnknownFunction> {
        let function = self.function(name)?;
        let request_id = self.request_id();
        let outcome = function.invoke(request_id.clone(), payload).await;
        Ok((request_id, outcome))
    }

    /// Accepts an asynchronous invocation, which is attempted up to three times.
    ///
    /// # Errors
    /// If there is no such function.
    pub fn invoke_event(self: &Arc<Self>, name: &str, payload: Bytes) -> Result<String, UnknownFunction> {
        let function = Arc::clone(self.function(name)?);
        let request_id = self.request_id();
        let (lambda, id) = (Arc::clone(self), request_id.clone());
        function.counts.events_pending.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            lambda.attempt_event(&function, id, payload).await;
            function.counts.events_pending.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(request_id)
    }

    async fn attempt_event(&self, function: &Function, request_id: String, payload: Bytes) {
        let accepted = Instant::now();
        let mut delays = RETRIES.into_iter();
        loop {
            let Outcome::FunctionError(error) = function.invoke(request_id.clone(), payload.clone()).await else {
                return;
            };
            match delays.next().map(|delay| self.settings.scale.shorten(delay)) {
                Some(delay) if accepted.elapsed() + delay < self.settings.scale.shorten(MAX_AGE) => {
                    function.counts.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(delay).await;
                }
                _ => return self.abandon(function, &request_id, &payload, &error),
            }
        }
    }

    fn abandon(&self, function: &Function, request_id: &str, payload: &Bytes, error: &Bytes) {
        function.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        let parse = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let name = &function.settings.name;
        eprintln!("ecs-bridge local: discarded an event for {name} ({request_id}): {}", String::from_utf8_lossy(error));
        let mut abandoned = lock(&self.abandoned);
        if abandoned.len() == ABANDONED_KEPT {
            abandoned.pop_front();
        }
        abandoned.push_back(
            json!({"function": name, "request_id": request_id, "event": parse(payload), "error": parse(error)}),
        );
    }

    pub(super) fn function(&self, name: &str) -> Result<&Arc<Function>, UnknownFunction> {
        self.functions.get(short_name(name)).ok_or_else(|| UnknownFunction(name.to_owned()))
    }

    pub(super) fn request_id(&self) -> String {
        self.settings.chance.uuid("request", &self.requests.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Returns the running processes as JSON.
    #[must_use]
    pub fn processes(&self) -> Value {
        let all = self.functions.values().flat_map(|function| {
            let processes = lock(&function.processes);
            let rows = processes.iter().map(|(pid, process)| {
                json!({"function": function.settings.name, "pid": pid, "state": process.state(),
                       "invocations": process.invocations()})
            });
            rows.collect::<Vec<_>>()
        });
        json!({"processes": all.collect::<Vec<_>>()})
    }

    /// Kills a process of a function with SIGKILL and waits for its exit. Returns false if no process has this PID.
    pub async fn kill(&self, pid: u32) -> bool {
        let killed = self.functions.values().any(|function| {
            // Held while the signal is sent, so that the pid cannot be reused.
            let processes = lock(&function.processes);
            processes.contains_key(&pid) && crate::process::kill_group(pid)
        });
        while killed && !crate::process::has_ended(pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        killed
    }

    /// Returns the number of invocations by function and result, as JSON.
    #[must_use]
    pub fn counts(&self) -> Value {
        let rows = self.functions.iter().map(|(name, function)| {
            let counts = &function.counts;
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let row = json!({
                "invocations": get(&counts.invocations), "errors": get(&counts.errors),
                "timeouts": get(&counts.timeouts), "exits": get(&counts.exits), "retries": get(&counts.retries),
                "abandoned": get(&counts.abandoned), "events_pending": get(&counts.events_pending),
                "most_in_flight": get(&counts.most_in_flight), "waiting": function.queue.len(),
            });
            (name.clone(), row)
        });
        json!({"functions": rows.collect::<serde_json::Map<_, _>>()})
    }

    /// Returns the last discarded events, as JSON.
    #[must_use]
    pub fn abandoned(&self) -> Value {
        json!({"abandoned": lock(&self.abandoned).iter().cloned().collect::<Vec<_>>()})
    }
}

/// Returns the function name from any form that Lambda accepts: name, name:qualifier, partial or full ARN.
fn short_name(name: &str) -> &str {
    let name = name.rsplit_once("function:").map_or(name, |(_, name)| name);
    name.split(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_is_found_by_every_name_form() {
        for name in [
            "submit",
            "submit:$LATEST",
            "123456789012:function:submit",
            "arn:aws:lambda:us-east-1:123456789012:function:submit",
            "arn:aws:lambda:us-east-1:123456789012:function:submit:7",
        ] {
            assert_eq!(short_name(name), "submit", "{name}");
        }
    }
}
