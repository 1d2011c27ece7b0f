//! The whole stack: starts all parts, runs until it is asked to end, and ends all that it started.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::clock::{Millis, Scale};
use crate::dynamodb::{self, DynamoDbError};
use crate::ecs::{self, DefinitionError, Ecs, EcsSettings, MessageFaults, Place, TaskDefinitions};
use crate::events::{Bus, Delivery};
use crate::faults::Faults;
use crate::http::{self, Server};
use crate::index_lag;
use crate::lambda::{self, FunctionSettings, Lambda, LambdaSettings, StartError};
use crate::options::Options;
use crate::process::{self, RUN_VARIABLE};
use crate::rng::Chance;
use crate::sessions::{Sessions, USER};
use crate::template::{self, Template, TemplateError};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";
/// The names of the functions' binaries.
const SUBMIT: &str = "submit";
const TASK_STATE: &str = "task-state";
const RECONCILE: &str = "reconcile";
const RUNNER_API: &str = "runner-api";
const DEFAULT_PROFILES: &str = include_str!("profiles.json");
/// The arguments that make `ecs-bridge` the watchdog of a run; the name of the run follows.
pub const WATCHDOG: [&str; 2] = ["local", "watchdog"];

/// Why a stack did not start.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A file cannot be read or written.
    #[error("\"{}\": {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A port is not available.
    #[error("cannot listen on port {port}")]
    Port {
        /// 0 for any.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file of the profiles is not valid.
    #[error("profiles file \"{}\": {cause}", path.display())]
    Profiles {
        /// Its path.
        path: PathBuf,
        /// The cause, with the line if the file is not JSON.
        cause: String,
    },
    /// A function's binary is missing.
    #[error("function binary not found: \"{}\": build it, or pass --functions-dir", .0.display())]
    NoFunction(PathBuf),
    /// The template is not valid.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template has no such function.
    #[error("the template has no function whose binary is {0}")]
    NotInTemplate(&'static str),
    /// The task definitions are not valid.
    #[error("task definitions file \"{}\"", path.display())]
    Definitions {
        /// Their path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: DefinitionError,
    },
    /// DynamoDB did not start.
    #[error(transparent)]
    DynamoDb(#[from] DynamoDbError),
    /// A function did not start.
    #[error(transparent)]
    Lambda(#[from] StartError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Addresses and names of a running stack: the contents of the ready file.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// `<submit_url>/v1/submissions` is the API; none where the functions have no URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_url: Option<String>,
    /// The name of submit, for direct invocation.
    pub submit_function: &'static str,
    /// The endpoint of Lambda.
    pub lambda_url: String,
    /// DynamoDB's endpoint.
    pub dynamodb_url: String,
    /// ECS's endpoint.
    pub ecs_url: String,
    /// The URL of runner-api; none where the functions have no URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_api_url: Option<String>,
    /// The table's name.
    pub table: String,
    /// The cluster's ARN.
    pub cluster: String,
    /// The region.
    pub region: String,
    /// The deployment's name.
    pub deployment: String,
    /// The process of the stack.
    pub pid: u32,
    /// Where the output of functions and containers is, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
}

/// A running stack. Dropping it ends it.
#[derive(Debug)]
pub struct Stack {
    ready: Ready,
    environment: Vec<(String, String)>,
    _servers: Vec<Server>,
    _tasks: JoinSet<()>,
    /// Ended by the drop of its last owner.
    _lambda: Arc<Lambda>,
}

/// Runs a stack until SIGINT, SIGTERM or, without `outlive_parent`, the end of the parent.
///
/// # Errors
/// If it does not start.
pub fn run(options: &Options) -> Result<(), LocalError> {
    process::raise_file_limit();
    let run = Chance::new(Millis::now().0).uuid("run", &std::process::id().to_string());
    let program = std::env::current_exe()?;
    let mut watchdog = process::start_watchdog(&program, &[&WATCHDOG[..], &[run.as_str()]].concat())?;
    let (options, files) = Files::of(options, &run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // Before anything is started, so that a signal during the start ends the stack in order.
        let end = Ending::new(!options.outlive_parent)?;
        tokio::select! {
            result = serve(&options, &run) => result.map_err(|error| explain(error, &options, files.logs.is_none())),
            () = end.wait() => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The watchdog notices that its input closes, and ends what is left, grandchildren included.
    drop(watchdog.stdin.take());
    watchdog.wait()?;
    drop(files);
    result
}

/// Returns the ready file of a local stack that was started without `--ready-file`; none without a home directory.
#[must_use]
pub fn default_ready_file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("ecs-bridge/local.json"))
}

/// Returns whether a local stack is starting that will write this ready file.
#[must_use]
pub fn is_starting(ready_file: &Path) -> bool {
    let pid = std::fs::read_to_string(beside(ready_file, ".starting")).ok();
    let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid: &i32| *pid > 1);
    // Signal 0 checks only that the process exists.
    pid.is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The files of a run. Dropping them removes them.
struct Files {
    ready: Option<PathBuf>,
    logs: Option<PathBuf>,
}

impl Files {
    /// Fills in the default paths, and announces the start beside the ready file.
    fn of(options: &Options, run: &str) -> Result<(Options, Self), LocalError> {
        let mut options = options.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LocalError::File { path, source }
        };
        let mut files = Self { ready: None, logs: None };
        if options.ready_file.is_none() {
            // A home that cannot be written, as in some containers, is no reason not to start.
            options.ready_file = default_ready_file()
                .filter(|path| path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()));
        }
        if let Some(path) = &options.ready_file {
            // The file of an earlier run that was killed would name addresses at which nothing listens.
            let _ = std::fs::remove_file(path);
            let mark = beside(path, ".starting");
            std::fs::write(&mark, std::process::id().to_string()).map_err(failed(&mark))?;
            files.ready = Some(path.clone());
        }
        if options.log_dir.is_none() {
            let folder = std::env::temp_dir().join(format!("ecs-bridge-local-{run}"));
            DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
            files.logs = Some(folder.clone());
            options.log_dir = Some(folder);
        }
        Ok((options, files))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(path) = &self.ready {
            let mark = beside(path, ".starting");
            let own = std::process::id();
            // Another run may have replaced them.
            if std::fs::read_to_string(&mark).is_ok_and(|pid| pid == own.to_string()) {
                let _ = std::fs::remove_file(&mark);
            }
            let ready =
                std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            if ready.is_some_and(|ready| ready.get("pid") == Some(&own.into())) {
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(folder) = &self.logs {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Replaces the failed start of a function by the cause that the function logged. Names the log only if it is `kept`.
fn explain(error: LocalError, options: &Options, kept: bool) -> LocalError {
    // As the functions of the bridge log an environment that they cannot use.
    const INVALID: &str = "Error: the function's environment is not valid: ";
    const OF_PROFILES: &str = "profiles: ";
    let (LocalError::Lambda(StartError::Init { function, cause }), Some(folder)) = (&error, &options.log_dir) else {
        return error;
    };
    let logs = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs = logs.filter(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(function)));
    let problems = logs.find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().rev().find_map(|line| line.strip_prefix(INVALID)).map(str::to_owned)
    });
    let log = folder.join(format!("{function}-*.log")).display().to_string();
    match (problems, &options.profiles) {
        (Some(problems), Some(path)) if problems.starts_with(OF_PROFILES) => {
            LocalError::Profiles { path: path.clone(), cause: problems.replace(OF_PROFILES, "") }
        }
        (None, _) if kept => error,
        (problems, _) => {
            let cause = match problems {
                Some(problems) if kept => format!("{problems}; see {log}"),
                Some(problems) => problems,
                None => cause.replace(&format!("; see {log}"), "; pass --log-dir DIR to keep its log"),
            };
            LocalError::Lambda(StartError::Init { function: function.clone(), cause })
        }
    }
}

async fn serve(options: &Options, run: &str) -> Result<(), LocalError> {
    let stack = Stack::start(options, run).await?;
    // A closed pipe is not an error.
    let _ = writeln!(io::stdout(), "{}", stack.banner(options.ready_file.as_deref()));
    std::future::pending().await
}

/// What ends a run.
struct Ending {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    watch_parent: bool,
}

impl Ending {
    fn new(watch_parent: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            watch_parent,
        })
    }

    async fn wait(mut self) {
        let parent = nix::unistd::getppid();
        let orphaned = async {
            let mut look = tokio::time::interval(Duration::from_millis(250));
            while !self.watch_parent || nix::unistd::getppid() == parent {
                look.tick().await;
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            () = orphaned => {}
        }
    }
}

impl Stack {
    /// Starts all parts and waits until they answer. `run` is the name of the run, for the watchdog.
    ///
    /// # Errors
    /// If a part does not start. Parts that were started are ended.
    pub async fn start(options: &Options, run: &str) -> Result<Self, LocalError> {
        let place = Place { region: REGION.into(), account: ACCOUNT.into(), cluster: options.cluster.clone() };
        let cluster = place.cluster_arn();
        let template = read_template(options, &cluster)?;
        if let Some(dir) = &options.log_dir {
            std::fs::create_dir_all(dir).map_err(|source| LocalError::File { path: dir.clone(), source })?;
        }
        let [submit, lambda_api, dynamodb_api, ecs_api, runner_api] = listeners(options.port_base).await?;
        let url = |listener: &tokio::net::TcpListener| io::Result::Ok(format!("http://{}", listener.local_addr()?));
        let function_url = |listener| (!options.no_function_urls).then(|| url(listener)).transpose();
        let ready = Ready {
            submit_url: function_url(&submit)?,
            submit_function: SUBMIT,
            lambda_url: url(&lambda_api)?,
            dynamodb_url: url(&dynamodb_api)?,
            ecs_url: url(&ecs_api)?,
            runner_api_url: function_url(&runner_api)?,
            table: format!("ecs-bridge-{}", options.deployment),
            cluster,
            region: REGION.into(),
            deployment: options.deployment.clone(),
            pid: std::process::id(),
            log_dir: options.log_dir.as_ref().map(std::path::absolute).transpose()?,
        };
        let mut tasks = JoinSet::new();
        let mut servers = Vec::new();

        let chance = Chance::new(options.seed);
        let database = || dynamodb::database(&template, &ready.table);
        if *options.index_lag_ms.0.end() == 0 {
            tasks.spawn(dynamodb::serve(dynamodb_api, database()?));
        } else {
            let [table, indexes] = [http::listen(0).await?, http::listen(0).await?];
            let addresses = (table.local_addr()?, indexes.local_addr()?);
            tasks.spawn(dynamodb::serve(table, database()?));
            tasks.spawn(dynamodb::serve(indexes, database()?));
            let router = index_lag::router(addresses, options.index_lag_ms.clone(), chance);
            servers.push(http::serve(dynamodb_api, router)?);
        }
        let faults = Arc::new(Faults::default());
        let delivery =
            Delivery { duplicate: options.duplicate, drop: options.drop, delay_ms: options.delay_ms.0.clone(), chance };
        let bus = Arc::new(Bus::new(template.pattern.clone(), delivery, Arc::clone(&faults)));
        let sessions = Arc::new(Sessions::new(chance, ACCOUNT.into()));
        let settings = ecs_settings(options, place, chance, run, Arc::clone(&sessions), &ready.lambda_url)?;
        let ecs = Arc::new(Ecs::new(settings, Arc::clone(&bus), faults, ready.ecs_url.clone()));
        servers.push(http::serve(ecs_api, ecs::router(ecs))?);

        let environment = function_environment(options, &ready)?;
        let lambda = start_lambda(options, &template, &environment, chance, run)?;
        servers.push(http::serve(lambda_api, lambda::invoke_router(Arc::clone(&lambda)))?);
        let users = options.require_signature.then(|| Arc::clone(&sessions));
        if !options.no_function_urls {
            servers.push(http::serve(submit, lambda::url_router(Arc::clone(&lambda), SUBMIT.into(), users))?);
            servers.push(http::serve(
                runner_api,
                lambda::url_router(Arc::clone(&lambda), RUNNER_API.into(), Some(sessions)),
            )?);
        }
        lambda.ready().await?;
        if !options.no_functions {
            bus.set_target(Arc::clone(&lambda), TASK_STATE);
            if options.reconcile_every > 0.0 {
                tasks.spawn(reconcile(Arc::clone(&lambda), Duration::from_secs_f64(options.reconcile_every), chance));
            }
        }

        let stack = Self { ready, environment, _servers: servers, _tasks: tasks, _lambda: lambda };
        if let Some(path) = &options.env_file {
            let lines = stack.environment.iter().map(|(name, value)| format!("{name}={value}\n"));
            write_whole(path, &lines.collect::<String>())?;
        }
        if let Some(path) = &options.ready_file {
            write_whole(path, &json!(stack.ready).to_string())?;
            let _ = std::fs::remove_file(beside(path, ".starting"));
        }
        Ok(stack)
    }

    /// The addresses and names.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    fn banner(&self, ready_file: Option<&Path>) -> String {
        let Ready { submit_url, lambda_url, dynamodb_url, ecs_url, table, cluster, .. } = &self.ready;
        let how = match ready_file {
            Some(file) if default_ready_file().as_deref() == Some(file) => String::new(),
            Some(file) => format!(" --local {}", file.display()),
            None => match submit_url {
                Some(submit_url) => format!(" --url {submit_url} --dynamodb-url {dynamodb_url} --table {table}"),
                None => format!(" --function {SUBMIT} --dynamodb-url {dynamodb_url} --table {table}"),
            },
        };
        let logs = self.ready.log_dir.as_ref().map(|folder| format!("\n  logs         {}", folder.display()));
        let logs = logs.unwrap_or_default();
        let pid = self.ready.pid;
        let submissions = match submit_url {
            Some(submit_url) => format!("{submit_url}/v1/submissions"),
            None => format!("invocations of {SUBMIT} at {lambda_url}"),
        };
        format!(
            "\
The ECS bridge is running on this machine.

  submissions  {submissions}
  functions    {lambda_url}
  table        {table} at {dynamodb_url}
  cluster      {cluster} at {ecs_url}{logs}

To run a command, type this in another terminal:

  ecs-bridge submit{how} --wait -- echo hello

To stop the local stack and everything that it started, press Ctrl-C or run `kill {pid}`."
        )
    }
}

fn read(path: &Path) -> Result<String, LocalError> {
    std::fs::read_to_string(path).map_err(|source| LocalError::File { path: path.to_owned(), source })
}

/// Writes the file atomically: who waits for it reads all of it.
fn write_whole(path: &Path, text: &str) -> Result<(), LocalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = PathBuf::from(name);
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|source| LocalError::File { path: path.to_owned(), source })
}

fn read_template(options: &Options, cluster: &str) -> Result<Template, LocalError> {
    let parameters = BTreeMap::from([("Deployment", options.deployment.as_str()), ("ClusterArn", cluster)]);
    Ok(match &options.template {
        Some(path) => Template::parse(&read(path)?, &parameters)?,
        None => Template::parse(template::BUILT_IN, &parameters)?,
    })
}

async fn listeners(base: Option<u16>) -> Result<[tokio::net::TcpListener; 5], LocalError> {
    let listen = async |offset: u16| {
        let port = base.map_or(0, |base| base.saturating_add(offset));
        http::listen(port).await.map_err(|source| LocalError::Port { port, source })
    };
    Ok([listen(0).await?, listen(1).await?, listen(2).await?, listen(3).await?, listen(4).await?])
}

fn ecs_settings(
    options: &Options,
    place: Place,
    chance: Chance,
    run: &str,
    sessions: Arc<Sessions>,
    lambda_url: &str,
) -> Result<EcsSettings, LocalError> {
    let text = options.task_definitions.as_deref().map(read).transpose()?;
    let definitions = TaskDefinitions::parse(text.as_deref()).map_err(|source| LocalError::Definitions {
        path: options.task_definitions.clone().unwrap_or_default(),
        source,
    })?;
    let scale = Scale(options.time_scale);
    let delay = |seconds: f64| scale.shorten(Duration::from_secs_f64(seconds));
    let mut environment = inherited(&["PATH", "HOME"]);
    environment.push((RUN_VARIABLE.into(), run.into()));
    if options.no_function_urls {
        // A runner invokes runner-api. On AWS, its region is that of its task, and DNS leads it to Lambda.
        environment.push(("AWS_REGION".into(), REGION.into()));
        environment.push(("AWS_ENDPOINT_URL_LAMBDA".into(), lambda_url.into()));
    }
    environment.extend(options.container_env.iter().cloned());
    // The runner program is built beside the functions.
    let programs = functions_dir(options)?;
    for (_, path) in environment.iter_mut().filter(|(name, _)| name == "PATH") {
        *path = format!("{path}:{}", programs.display());
    }
    Ok(EcsSettings {
        place,
        definitions,
        scale,
        provisioning: delay(options.provision_s),
        pull: delay(options.pull_s),
        teardown: delay(options.teardown_s),
        consistency_lag: Duration::from_millis(options.consistency_lag_ms),
        api_latency: Duration::from_millis(options.api_latency_ms),
        throttle: options.throttle,
        capacity: options.capacity,
        no_capacity: options.no_capacity.clone(),
        fail_start: options.fail_start,
        api_error: options.api_error,
        launched_failure: options.launched_failure,
        messages: MessageFaults { lost: options.lost_messages, doubled: options.doubled_messages },
        simulate: options.simulate,
        environment,
        log_dir: options.log_dir.clone(),
        chance,
        sessions,
    })
}

fn inherited(names: &[&str]) -> Vec<(String, String)> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// The folder of the functions' programs.
fn functions_dir(options: &Options) -> io::Result<PathBuf> {
    Ok(match &options.functions_dir {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    })
}

/// The environment of the functions.
fn function_environment(options: &Options, ready: &Ready) -> Result<Vec<(String, String)>, LocalError> {
    let mut environment: Vec<(String, String)> = [
        ("AWS_REGION", ready.region.as_str()),
        ("AWS_ACCESS_KEY_ID", USER),
        ("AWS_SECRET_ACCESS_KEY", USER),
        ("AWS_ENDPOINT_URL_DYNAMODB", &ready.dynamodb_url),
        ("AWS_ENDPOINT_URL_ECS", &ready.ecs_url),
        ("AWS_ENDPOINT_URL_SFN", &ready.ecs_url),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", &ready.ecs_url),
        ("AWS_ENDPOINT_URL_SQS", &ready.ecs_url),
        ("AWS_ENDPOINT_URL_LAMBDA", &ready.lambda_url),
        ("ECS_BRIDGE_DEPLOYMENT", &ready.deployment),
        ("ECS_BRIDGE_TABLE", &ready.table),
        ("ECS_BRIDGE_CLUSTER", &ready.cluster),
        ("ECS_BRIDGE_RUNNER_API_URL", ready.runner_api_url.as_deref().unwrap_or_default()),
        ("ECS_BRIDGE_RUNNER_API_FUNCTION", RUNNER_API),
        ("ECS_BRIDGE_DIRECT_INVOCATION", if options.no_function_urls { "true" } else { "false" }),
        ("ECS_BRIDGE_TASK_TOKENS", "true"),
        ("ECS_BRIDGE_EVENT_BUSES", "default"),
        ("ECS_BRIDGE_TASK_ROLES", &format!("arn:aws:iam::{ACCOUNT}:role/*")),
        ("ECS_BRIDGE_TIMER_SCALE", &options.timer_scale.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    environment.push(match &options.profiles {
        // Functions run in directories of their own.
        Some(path) => {
            let whole = path.canonicalize().map_err(|source| LocalError::File { path: path.clone(), source })?;
            check_profiles(path)?;
            ("ECS_BRIDGE_PROFILES_FILE".into(), whole.display().to_string())
        }
        None => {
            let compact = DEFAULT_PROFILES.lines().map(str::trim).collect::<String>();
            ("ECS_BRIDGE_PROFILES".into(), compact)
        }
    });
    if options.reconcile_every > 0.0 {
        environment.push(("ECS_BRIDGE_RECONCILE_FUNCTION".into(), RECONCILE.into()));
    }
    environment.extend(options.function_env.iter().cloned());
    Ok(environment)
}

/// Reports a file that is not a JSON object once, before each process of each function does.
fn check_profiles(path: &Path) -> Result<(), LocalError> {
    let failed = |cause| LocalError::Profiles { path: path.to_owned(), cause };
    match serde_json::from_str::<serde_json::Value>(&read(path)?) {
        Ok(profiles) if profiles.is_object() => Ok(()),
        Ok(_) => Err(failed("must be a JSON object: a profile by each name".into())),
        Err(error) => {
            let (line, column, text) = (error.line(), error.column(), error.to_string());
            let cause = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
            Err(failed(format!("line {line}, column {column}: {cause}")))
        }
    }
}

fn start_lambda(
    options: &Options,
    template: &Template,
    environment: &[(String, String)],
    chance: Chance,
    run: &str,
) -> Result<Arc<Lambda>, LocalError> {
    let mut functions = Vec::new();
    let names: &[_] = if options.no_functions { &[] } else { &[SUBMIT, TASK_STATE, RECONCILE, RUNNER_API] };
    for name in names {
        let executable = functions_dir(options)?.join(name);
        if !executable.is_file() {
            return Err(LocalError::NoFunction(executable));
        }
        let timeout = template.functions.get(*name).ok_or(LocalError::NotInTemplate(name))?.timeout;
        let mut environment = environment.to_vec();
        environment.extend(inherited(&["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE"]));
        environment.push((RUN_VARIABLE.into(), run.into()));
        functions.push(FunctionSettings {
            name: (*name).to_owned(),
            executable,
            environment,
            timeout,
            processes: options.processes.max(1),
        });
    }
    let settings = LambdaSettings {
        region: REGION.into(),
        account: ACCOUNT.into(),
        scale: Scale(options.time_scale),
        log_dir: options.log_dir.clone(),
        chance,
    };
    Ok(Arc::new(Lambda::start(settings, functions)))
}

/// The stand-in for EventBridge's schedule.
async fn reconcile(lambda: Arc<Lambda>, every: Duration, chance: Chance) {
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    for number in 0_u64.. {
        ticks.tick().await;
        let event = json!({
            "version": "0", "id": chance.uuid("schedule", &number.to_string()), "detail-type": "Scheduled Event",
            "source": "aws.events", "account": ACCOUNT, "time": Millis::now().iso(), "region": REGION,
            "resources": [format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/reconcile")], "detail": {},
        });
        // The function exists: the stack was started with it.
        let _ = lambda.invoke_event(RECONCILE, event.to_string().into());
    }
}
