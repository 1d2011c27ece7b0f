//! The settings of each part of a stack, from the options.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::LocalError;
use super::files::read;
use super::names::{ACCOUNT, RECONCILE, REGION, RUNNER_API};
use super::ready::Ready;
use crate::clock::Scale;
use crate::ecs::{EcsSettings, Location, MessageFaults, TaskDefinitions};
use crate::options::Options;
use crate::process::RUN_VARIABLE;
use crate::rng::Chance;
use crate::sessions::{Sessions, USER};
use crate::template::{self, Template};

const DEFAULT_PROFILES: &str = include_str!("../profiles.json");

pub(super) fn read_template(options: &Options, cluster: &str) -> Result<Template, LocalError> {
    let parameters = BTreeMap::from([("Deployment", options.deployment.as_str()), ("ClusterArn", cluster)]);
    Ok(match &options.template {
        Some(path) => Template::parse(&read(path)?, &parameters)?,
        None => Template::parse(template::BUILT_IN, &parameters)?,
    })
}

pub(super) fn ecs_settings(
    options: &Options,
    location: Location,
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
    // The runner program is built into the directory of the functions.
    let programs = functions_dir(options)?;
    for (_, path) in environment.iter_mut().filter(|(name, _)| name == "PATH") {
        *path = format!("{path}:{}", programs.display());
    }
    Ok(EcsSettings {
        location,
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

pub(super) fn inherited(names: &[&str]) -> Vec<(String, String)> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// The folder of the functions' programs.
pub(super) fn functions_dir(options: &Options) -> io::Result<PathBuf> {
    Ok(match &options.functions_dir {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    })
}

/// The environment of the functions.
pub(super) fn function_environment(options: &Options, ready: &Ready) -> Result<Vec<(String, String)>, LocalError> {
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
        Ok(_) => Err(failed("must be a JSON object whose keys are the names of profiles".into())),
        Err(error) => {
            let (line, column, text) = (error.line(), error.column(), error.to_string());
            let cause = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
            Err(failed(format!("line {line}, column {column}: {cause}")))
        }
    }
}
