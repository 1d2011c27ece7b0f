//! One process of a function: its own Runtime API address, its timeout, its exit and its replacement.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::function::{Function, Invocation, MAX_PAYLOAD, Outcome, Process, ProcessState, Startup};
use crate::clock::Millis;
use crate::http::{self, lock};

/// The delays before a process that never requested an invocation is replaced: the first, doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The end of a process.
enum ProcessEnd {
    /// It exited, or was killed by others.
    Exit(String),
    TimedOut,
}

/// Runs a process and replaces it whenever it ends.
pub(super) async fn keep_one_running(function: Arc<Function>, slot: usize, log_dir: Option<PathBuf>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let problem = match run_one(&function, slot, log_dir.as_ref()).await {
            Ok(None) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(Some(problem)) => problem,
            Err(error) => {
                json!({"errorType": "Runtime.InvalidEntrypoint", "errorMessage": error.to_string()}).to_string()
            }
        };
        // As in Lambda, a failed start fails one waiting invocation, so that none waits forever.
        function.startup.send_if_modified(|startup| {
            let first = matches!(startup, Startup::Starting);
            if first {
                *startup = Startup::Failed(problem.clone());
            }
            first
        });
        if let Some(invocation) = function.queue.try_pop() {
            let _ = invocation.answer.send(Outcome::FunctionError(problem.into()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Runs one process until it ends. Returns its error if it never requested an invocation.
async fn run_one(function: &Arc<Function>, slot: usize, log_dir: Option<&PathBuf>) -> io::Result<Option<String>> {
    let listener = http::listen(0).await?;
    let address = listener.local_addr()?.to_string();
    let mut child = command(function, slot, log_dir, &address)?.spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("the process has no pid"))?;
    let process = Arc::new(Process {
        pid,
        function: Arc::clone(function),
        current: Mutex::new(ProcessState::Starting { init_error: None }),
        deadline: watch::Sender::new(None),
        invocations: AtomicU64::new(0),
    });
    lock(&function.processes).insert(pid, Arc::clone(&process));
    let runtime_api = http::serve(listener, router(Arc::clone(&process)))?;

    let mut deadline = process.deadline.subscribe();
    let end = loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            biased;
            status = child.wait() => break ProcessEnd::Exit(status?.to_string()),
            () = sleep_until(until) => break ProcessEnd::TimedOut,
            _ = deadline.changed() => {}
        }
    };
    // Removed from the list before its PID can be reused, so that no call kills another process.
    if matches!(end, ProcessEnd::TimedOut) {
        crate::process::kill_group(pid);
    }
    lock(&function.processes).remove(&pid);
    if matches!(end, ProcessEnd::TimedOut) {
        child.wait().await?;
    }
    drop(runtime_api);

    let counts = &function.counts;
    match std::mem::replace(&mut *lock(&process.current), ProcessState::Ended) {
        ProcessState::Starting { init_error } => {
            counts.exits.fetch_add(1, Ordering::Relaxed);
            let problem = init_error.map_or_else(
                || match end {
                    ProcessEnd::Exit(status) => json!({"errorType": "Runtime.ExitError",
                        "errorMessage": format!("the process ended before it requested an invocation: {status}")})
                    .to_string(),
                    ProcessEnd::TimedOut => json!({"errorType": "Sandbox.Timedout"}).to_string(),
                },
                |error| String::from_utf8_lossy(&error).into_owned(),
            );
            return Ok(Some(problem));
        }
        ProcessState::Busy { invocation, .. } => {
            let id = &invocation.request_id;
            let outcome = match end {
                ProcessEnd::Exit(status) => {
                    counts.exits.fetch_add(1, Ordering::Relaxed);
                    let message = format!("RequestId: {id} Error: Runtime exited with error: {status}");
                    Outcome::error("Runtime.ExitError", &message)
                }
                ProcessEnd::TimedOut => {
                    counts.timeouts.fetch_add(1, Ordering::Relaxed);
                    let seconds = function.settings.timeout.as_secs_f64();
                    let message = format!("RequestId: {id} Error: Task timed out after {seconds:.2} seconds");
                    Outcome::error("Sandbox.Timedout", &message)
                }
            };
            let _ = invocation.answer.send(outcome);
        }
        ProcessState::Idle | ProcessState::Ended => {
            counts.exits.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(None)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn command(
    function: &Function,
    slot: usize,
    log_dir: Option<&PathBuf>,
    address: &str,
) -> io::Result<tokio::process::Command> {
    let name = &function.settings.name;
    let (stdout, stderr) = match log_dir {
        Some(dir) => {
            let file = OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}-{slot}.log")))?;
            (Stdio::from(file.try_clone()?), Stdio::from(file))
        }
        None => (Stdio::from(io::stderr()), Stdio::inherit()),
    };
    let mut command = tokio::process::Command::new(&function.settings.executable);
    command
        .env_clear()
        .envs(function.settings.environment.iter().map(|(name, value)| (name, value)))
        .env("AWS_LAMBDA_RUNTIME_API", address)
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("local/{slot}"))
        .env("_HANDLER", "bootstrap")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // The process gets its own group. Ctrl-C on the terminal reaches only this program, which then ends the functions.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// The Runtime API of one process.
fn router(process: Arc<Process>) -> Router {
    let base = "/2018-06-01/runtime";
    Router::new()
        .route(&format!("{base}/invocation/next"), get(next))
        .route(&format!("{base}/invocation/{{id}}/response"), post(response))
        .route(&format!("{base}/invocation/{{id}}/error"), post(error))
        .route(&format!("{base}/init/error"), post(init_error))
        // Lambda's own limit is checked below, with its message.
        .layer(DefaultBodyLimit::max(4 * MAX_PAYLOAD))
        .with_state(process)
}

async fn next(State(process): State<Arc<Process>>) -> Response<Body> {
    let function = &process.function;
    {
        let mut current = lock(&process.current);
        if matches!(*current, ProcessState::Starting { .. }) {
            *current = ProcessState::Idle;
            function.startup.send_replace(Startup::Ready);
        }
        // Its connection broke before the process received the invocation: deliver the same again.
        if let ProcessState::Busy { invocation, until } = &*current {
            return event(function, invocation, *until);
        }
    }
    let invocation = function.queue.pop().await;
    // No await from here on: either the process has the invocation, or it is back in the queue.
    let mut current = lock(&process.current);
    if !matches!(*current, ProcessState::Idle) || crate::process::has_ended(process.pid) {
        function.queue.push_front(invocation);
        return refuse(StatusCode::FORBIDDEN, "InvalidStateTransition");
    }
    let timeout = function.settings.timeout;
    let until = Millis(Millis::now().0.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
    let answer = event(function, &invocation, until);
    *current = ProcessState::Busy { invocation, until };
    process.deadline.send_replace(Some(Instant::now() + timeout));
    process.invocations.fetch_add(1, Ordering::Relaxed);
    answer
}

fn event(function: &Function, invocation: &Invocation, until: Millis) -> Response<Body> {
    let mut answer = http::bytes(StatusCode::OK, "application/json", invocation.payload.clone());
    http::set_header(&mut answer, "lambda-runtime-aws-request-id", &invocation.request_id);
    http::set_header(&mut answer, "lambda-runtime-deadline-ms", &until.0.to_string());
    http::set_header(&mut answer, "lambda-runtime-invoked-function-arn", &function.arn);
    let root = invocation.request_id.replace('-', "");
    let (time, rest) = root.split_at_checked(8).unwrap_or((&root, ""));
    let trace = format!("Root=1-{time}-{};Sampled=0", rest.get(..24).unwrap_or(rest));
    http::set_header(&mut answer, "lambda-runtime-trace-id", &trace);
    answer
}

async fn response(State(process): State<Arc<Process>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    if body.len() > MAX_PAYLOAD {
        let message = format!("Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes).");
        process.finish(&id, Outcome::error("Function.ResponseSizeTooLarge", &message));
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge");
    }
    accepted(process.finish(&id, Outcome::Answer(body)))
}

async fn error(State(process): State<Arc<Process>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    accepted(process.finish(&id, Outcome::FunctionError(body)))
}

async fn init_error(State(process): State<Arc<Process>>, body: Bytes) -> Response<Body> {
    let mut current = lock(&process.current);
    let starting = matches!(*current, ProcessState::Starting { .. });
    if starting {
        *current = ProcessState::Starting { init_error: Some(body) };
    }
    accepted(starting)
}

fn accepted(known: bool) -> Response<Body> {
    if known {
        http::json(StatusCode::ACCEPTED, &json!({"status": "OK"}))
    } else {
        refuse(StatusCode::BAD_REQUEST, "InvalidRequestID")
    }
}

fn refuse(status: StatusCode, kind: &str) -> Response<Body> {
    http::json(status, &json!({"errorType": kind, "errorMessage": kind}))
}
