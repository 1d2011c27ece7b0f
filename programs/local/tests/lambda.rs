//! Tests of the Lambda emulator, with a function that uses the real runtime client.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use ecs_bridge_local::clock::Scale;
use ecs_bridge_local::lambda::{FunctionSettings, Lambda, LambdaSettings, Outcome};
use ecs_bridge_local::rng::Chance;
use serde_json::{Value, json};

fn probe() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/probe_function")
}

async fn lambda(processes: usize, timeout: Duration) -> Arc<Lambda> {
    let lambda = start(processes, timeout, Vec::new());
    lambda.ready().await.unwrap();
    lambda
}

fn start(processes: usize, timeout: Duration, environment: Vec<(String, String)>) -> Arc<Lambda> {
    let settings = LambdaSettings {
        region: "us-east-1".into(),
        account: "123456789012".into(),
        // Retries come within two seconds, and an event is retried for 3.6 minutes.
        scale: Scale(100.0),
        log_dir: None,
        chance: Chance::new(1),
    };
    let function = FunctionSettings { name: "probe".into(), executable: probe(), environment, timeout, processes };
    Arc::new(Lambda::start(settings, vec![function]))
}

const LONG: Duration = Duration::from_secs(600);

async fn invoke(lambda: &Lambda, payload: Value) -> Result<Value, Value> {
    match lambda.invoke("probe", payload.to_string().into()).await.unwrap().1 {
        Outcome::Answer(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
        Outcome::FunctionError(bytes) => Err(serde_json::from_slice(&bytes).unwrap()),
    }
}

fn count(lambda: &Lambda, of: &str) -> u64 {
    lambda.counts()["functions"]["probe"][of].as_u64().unwrap()
}

/// Waits until no asynchronous invocation is pending.
async fn settle(lambda: &Lambda) {
    while count(lambda, "events_pending") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn function_response_contains_its_arn() {
    let lambda = lambda(1, LONG).await;
    let answer = invoke(&lambda, json!({"a": 1})).await.unwrap();
    assert_eq!(answer["echo"], json!({"a": 1}));
    assert_eq!(answer["arn"], "arn:aws:lambda:us-east-1:123456789012:function:probe");
}

#[tokio::test]
async fn function_error_is_returned() {
    let lambda = lambda(1, LONG).await;
    let error = invoke(&lambda, json!({"do": "fail"})).await.unwrap_err();
    assert_eq!(error["errorMessage"], "asked to fail");
}

#[tokio::test]
async fn dead_process_fails_invocation_and_is_replaced() {
    let lambda = lambda(1, LONG).await;
    let before = invoke(&lambda, json!({})).await.unwrap()["pid"].clone();
    let error = invoke(&lambda, json!({"do": "exit"})).await.unwrap_err();
    assert_eq!(error["errorType"], "Runtime.ExitError");
    let after = invoke(&lambda, json!({})).await.unwrap()["pid"].clone();
    assert_ne!(before, after);
}

#[tokio::test]
async fn process_after_timeout_is_killed_and_replaced() {
    let lambda = lambda(1, Duration::from_secs(1)).await;
    let error = invoke(&lambda, json!({"do": "sleep"})).await.unwrap_err();
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    // A busy machine may need longer than that second for an answer, too.
    let mut timeouts = 1;
    while let Err(error) = invoke(&lambda, json!({})).await {
        assert_eq!(error["errorType"], "Sandbox.Timedout");
        timeouts += 1;
    }
    assert_eq!(count(&lambda, "timeouts"), timeouts);
}

#[tokio::test]
async fn response_over_six_megabytes_is_an_error() {
    let lambda = lambda(1, LONG).await;
    let error = invoke(&lambda, json!({"do": "large"})).await.unwrap_err();
    assert_eq!(error["errorType"], "Function.ResponseSizeTooLarge");
    assert!(invoke(&lambda, json!({})).await.is_ok());
}

#[tokio::test]
async fn function_start_failure_fails_its_invocations() {
    let lambda = start(1, LONG, vec![("PROBE_DIES_AT_START".into(), "1".into())]);
    assert!(lambda.ready().await.is_err());
    let error = invoke(&lambda, json!({})).await.unwrap_err();
    assert_eq!(error["errorType"], "Runtime.ExitError");
}

#[tokio::test]
async fn event_is_discarded_after_three_attempts() {
    let lambda = lambda(1, LONG).await;
    let file = Scratch::new("given-up");
    let event = json!({"do": "append", "path": file.0, "failures": 9});
    lambda.invoke_event("probe", event.to_string().into()).unwrap();
    settle(&lambda).await;
    assert_eq!(file.lines(), 3);
    assert_eq!(lambda.abandoned()["abandoned"][0]["event"], event);
}

#[tokio::test]
async fn event_is_not_retried_after_success() {
    let lambda = lambda(1, LONG).await;
    let file = Scratch::new("at-last");
    let event = json!({"do": "append", "path": file.0, "failures": 1});
    lambda.invoke_event("probe", event.to_string().into()).unwrap();
    settle(&lambda).await;
    assert_eq!((file.lines(), count(&lambda, "retries"), count(&lambda, "abandoned")), (2, 1, 0));
}

/// Processes are killed as fast as the machine can replace them.
#[tokio::test(flavor = "multi_thread")]
async fn invocations_all_complete_while_processes_are_killed() {
    let lambda = lambda(4, LONG).await;
    let ended = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (lambda, ended) = (Arc::clone(&lambda), Arc::clone(&ended));
        async move {
            let mut killed = 0;
            while !ended.load(Ordering::Relaxed) {
                let processes = lambda.processes();
                let pids = processes["processes"].as_array().unwrap().iter();
                let busy =
                    pids.filter(|process| process["state"] != "starting").filter_map(|process| process["pid"].as_u64());
                if let Some(pid) = busy.max() {
                    killed += usize::from(lambda.kill(u32::try_from(pid).unwrap()).await);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            killed
        }
    });
    let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..20)
        .map(|caller| {
            let (lambda, answered, failed) = (Arc::clone(&lambda), Arc::clone(&answered), Arc::clone(&failed));
            tokio::spawn(async move {
                for call in 0..100 {
                    let sent = json!({"caller": caller, "call": call});
                    match invoke(&lambda, sent.clone()).await {
                        Ok(answer) => {
                            assert_eq!(answer["echo"], sent);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error["errorType"], "Runtime.ExitError", "{error}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    let event = Bytes::from(json!({"caller": caller, "event": call}).to_string());
                    lambda.invoke_event("probe", event).unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    let killed = killer.await.unwrap();
    settle(&lambda).await;
    assert_eq!(answered.load(Ordering::Relaxed) + failed.load(Ordering::Relaxed), 2_000);
    assert!(killed > 0, "no process was killed");
    assert!(failed.load(Ordering::Relaxed) <= killed, "more calls failed than processes died");
    assert_eq!(count(&lambda, "waiting"), 0);
    assert!(invoke(&lambda, json!({})).await.is_ok());
}

/// A file that is removed at the end of its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-bridge-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn lines(&self) -> usize {
        std::fs::read_to_string(&self.0).unwrap_or_default().lines().count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
