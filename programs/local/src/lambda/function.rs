//! A function: its queue of invocations, its counts and its processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::queue::Queue;
use crate::clock::Millis;
use crate::http::lock;

/// The limit on the payload of a synchronous invocation, and on the payload of its response, in bytes.
pub const MAX_PAYLOAD: usize = 6 * 1024 * 1024;
/// The limit on the payload of an asynchronous invocation, in bytes.
pub const MAX_EVENT: usize = 1024 * 1024;

/// The settings of a function.
#[derive(Clone, Debug)]
pub struct FunctionSettings {
    /// Its name.
    pub name: String,
    /// The program, a client of Lambda's Runtime API.
    pub executable: PathBuf,
    /// Its environment, without the variables that Lambda adds.
    pub environment: Vec<(String, String)>,
    /// The timeout of an invocation, after which its process is killed.
    pub timeout: Duration,
    /// The number of processes.
    pub processes: usize,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) settings: FunctionSettings,
    pub(super) arn: String,
    pub(super) queue: Queue<Invocation>,
    pub(super) counts: Counts,
    pub(super) startup: watch::Sender<Startup>,
    /// Running processes by pid.
    pub(super) processes: Mutex<BTreeMap<u32, Arc<Process>>>,
}

/// The results of a function's invocations.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) invocations: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) exits: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) abandoned: AtomicU64,
    /// Invocations that have not ended, now and at most.
    pub(super) in_flight: AtomicU64,
    pub(super) most_in_flight: AtomicU64,
    /// Asynchronous invocations that were accepted and have not ended.
    pub(super) events_pending: AtomicU64,
}

#[derive(Clone, Debug)]
pub(super) enum Startup {
    Starting,
    Ready,
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    pub(super) answer: oneshot::Sender<Outcome>,
}

/// The result of an invocation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The response of the function.
    Answer(Bytes),
    /// The error of the function or of its process, as JSON.
    FunctionError(Bytes),
}

impl Outcome {
    pub(super) fn error(kind: &str, message: &str) -> Self {
        Self::FunctionError(json!({"errorType": kind, "errorMessage": message}).to_string().into())
    }
}

impl Function {
    pub(super) async fn invoke(&self, request_id: String, payload: Bytes) -> Outcome {
        self.counts.invocations.fetch_add(1, Ordering::Relaxed);
        let in_flight = self.counts.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        let (answer, outcome) = oneshot::channel();
        self.queue.push(Invocation { request_id, payload, answer });
        let outcome = outcome.await.unwrap_or_else(|_| Outcome::error("Runtime.Unknown", "the local stack is ending"));
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        if matches!(outcome, Outcome::FunctionError(_)) {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// The state of a running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) function: Arc<Function>,
    pub(super) current: Mutex<ProcessState>,
    /// The deadline of the current invocation.
    pub(super) deadline: watch::Sender<Option<Instant>>,
    pub(super) invocations: AtomicU64,
}

#[derive(Debug)]
pub(super) enum ProcessState {
    Starting { init_error: Option<Bytes> },
    Idle,
    Busy { invocation: Invocation, until: Millis },
    Ended,
}

impl Process {
    pub(super) fn state(&self) -> &'static str {
        match *lock(&self.current) {
            ProcessState::Starting { .. } => "starting",
            ProcessState::Idle => "idle",
            ProcessState::Busy { .. } => "busy",
            ProcessState::Ended => "ended",
        }
    }

    pub(super) fn invocations(&self) -> u64 {
        self.invocations.load(Ordering::Relaxed)
    }

    /// Ends the current invocation if it has this id.
    pub(super) fn finish(&self, request_id: &str, outcome: Outcome) -> bool {
        let mut current = lock(&self.current);
        match std::mem::replace(&mut *current, ProcessState::Idle) {
            ProcessState::Busy { invocation, .. } if invocation.request_id == request_id => {
                self.deadline.send_replace(None);
                // The caller may have disconnected.
                let _ = invocation.answer.send(outcome);
                true
            }
            other => {
                *current = other;
                false
            }
        }
    }
}
