//! The parts of a running stack, and their start.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::error::LocalError;
use super::files::{default_ready_file, with_suffix, write_whole};
use super::names::{ACCOUNT, RECONCILE, REGION, RUNNER_API, SUBMIT, TASK_STATE};
use super::ready::Ready;
use super::settings::{ecs_settings, function_environment, functions_dir, inherited, read_template};
use crate::clock::{Millis, Scale};
use crate::dynamodb;
use crate::ecs::{self, Ecs, Location};
use crate::events::{Bus, DeliveryFaults};
use crate::faults::Faults;
use crate::http::{self, Server};
use crate::index_lag;
use crate::lambda::{self, FunctionSettings, Lambda, LambdaSettings};
use crate::options::Options;
use crate::process::RUN_VARIABLE;
use crate::rng::Chance;
use crate::sessions::Sessions;
use crate::template::Template;

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

impl Stack {
    /// Starts all parts and waits until they respond. `run` is the name of the run, for the watchdog.
    ///
    /// # Errors
    /// If a part does not start. Parts that were started are ended.
    pub async fn start(options: &Options, run: &str) -> Result<Self, LocalError> {
        let location = Location { region: REGION.into(), account: ACCOUNT.into(), cluster: options.cluster.clone() };
        let cluster = location.cluster_arn();
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
        let delivery = DeliveryFaults {
            duplicate: options.duplicate,
            drop: options.drop,
            delay_ms: options.delay_ms.0.clone(),
            chance,
        };
        let bus = Arc::new(Bus::new(template.pattern.clone(), delivery, Arc::clone(&faults)));
        let sessions = Arc::new(Sessions::new(chance, ACCOUNT.into()));
        let settings = ecs_settings(options, location, chance, run, Arc::clone(&sessions), &ready.lambda_url)?;
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
            let _ = std::fs::remove_file(with_suffix(path, ".starting"));
        }
        Ok(stack)
    }

    /// Returns the addresses and names.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    pub(super) fn banner(&self, ready_file: Option<&Path>) -> String {
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

async fn listeners(base: Option<u16>) -> Result<[tokio::net::TcpListener; 5], LocalError> {
    let listen = async |offset: u16| {
        let port = base.map_or(0, |base| base.saturating_add(offset));
        http::listen(port).await.map_err(|source| LocalError::Port { port, source })
    };
    Ok([listen(0).await?, listen(1).await?, listen(2).await?, listen(3).await?, listen(4).await?])
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

/// Invokes reconcile periodically, as EventBridge's schedule does.
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
