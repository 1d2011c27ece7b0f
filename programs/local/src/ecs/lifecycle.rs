//! The lifecycle of a task from PROVISIONING to STOPPED: starts, monitors and ends its containers, and sends events.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::behavior::{HOST_REASON, OUT_OF_MEMORY, SPOT_REASON, Shape, Shapes};
use super::container::{Restart, Running, Spec, Stop};
use super::definition;
use super::state::Ecs;
use super::task::{Order, Status, Task};
use crate::clock::Millis;
use crate::http::lock;

/// ECS's default stop timeout.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a newly created task until it is STOPPED.
pub(super) async fn live(ecs: Arc<Ecs>, id: String) {
    let Some((mut orders, shapes)) =
        lock(&ecs.state).tasks.get(&id).map(|task| (task.orders.subscribe(), task.shapes.clone()))
    else {
        return;
    };
    ecs.send_event(&id);
    let began = start(&ecs, &id, &mut orders, &shapes).await;
    if let Some((exits, stop)) = began {
        run(&ecs, &id, &mut orders, exits, &stop, &shapes).await;
    }
    tear_down(&ecs, &id).await;
}

/// Containers with their exit codes, in the order of the exits.
type Exits = mpsc::UnboundedReceiver<(usize, i32)>;

/// Takes a task from PROVISIONING to running containers. Returns none if they do not start.
async fn start(
    ecs: &Arc<Ecs>,
    id: &str,
    orders: &mut watch::Receiver<Order>,
    shapes: &Shapes,
) -> Option<(Exits, watch::Sender<Stop>)> {
    let undisturbed = pause(ecs.settings.provisioning, orders).await;
    if undisturbed {
        ecs.change(id, |task| {
            task.status = Status::Pending;
            task.times.connected = Some(Millis::now());
            task.times.pull_started = Some(Millis::now());
        });
    }
    if !undisturbed || !pause(ecs.settings.pull, orders).await {
        return None;
    }
    if let Some((container, whole)) = start_failure(shapes) {
        ecs.change(id, |task| fail_to_start(task, task.named_container(), container, whole));
        return None;
    }
    ecs.change(id, |task| {
        task.status = Status::Activating;
        task.times.pull_stopped = Some(Millis::now());
    });

    let specs = lock(&ecs.state).tasks.get(id).map(|task| specs(ecs, task))?;
    let stop = watch::Sender::new(Stop::No);
    let (ended, mut exits) = mpsc::unbounded_channel();
    for (at, spec) in specs.into_iter().enumerate() {
        match Running::start(spec) {
            Ok(running) => {
                count_start(ecs, id, at);
                let again: Arc<dyn Fn() + Send + Sync> = {
                    let (ecs, id) = (Arc::clone(ecs), id.to_owned());
                    Arc::new(move || count_start(&ecs, &id, at))
                };
                let (ended, stop) = (ended.clone(), stop.subscribe());
                tokio::spawn(async move {
                    let code = running.run(stop, again).await;
                    // The task may have ended before its containers. No one receives the exit codes then.
                    let _ = ended.send((at, code));
                });
            }
            Err(error) => {
                let reason = format!("CannotStartContainerError: Error response from daemon: {error}");
                drop(ended);
                stop.send_replace(Stop::Kill);
                let mut killed = Vec::new();
                while let Some(exit) = exits.recv().await {
                    killed.push(exit);
                }
                ecs.change(id, |task| {
                    for (at, code) in killed {
                        end_container(task, at, code);
                    }
                    fail_to_start(task, at, Some(&reason), "Task failed to start");
                });
                return None;
            }
        }
    }
    Some((exits, stop))
}

/// Waits. Returns false if the task was stopped in the meantime.
async fn pause(time: Duration, orders: &mut watch::Receiver<Order>) -> bool {
    tokio::select! {
        biased;
        _ = orders.wait_for(|order| *order > Order::Live) => false,
        () = tokio::time::sleep(time) => true,
    }
}

/// Returns the reasons of the container and of the task for a start that fails by its shape.
fn start_failure(shapes: &Shapes) -> Option<(Option<&'static str>, &'static str)> {
    let whole = "Task failed to start";
    if shapes.has(Shape::CannotPull) {
        Some((Some("CannotPullContainerError: pull image manifest has been retried 1 time(s): not found"), whole))
    } else if shapes.has(Shape::CannotCreate) {
        Some((Some("CannotCreateContainerError: invalid mount config"), whole))
    } else if shapes.has(Shape::ResourceInit) {
        Some((
            None,
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed",
        ))
    } else if shapes.has(Shape::NetworkTimeout) {
        Some((None, "Timeout waiting for network interface provisioning to complete."))
    } else if shapes.has(Shape::PullInTaskReason) {
        Some((None, "CannotPullContainerError: ref pull has been retried 5 time(s): request canceled"))
    } else if shapes.has(Shape::CapacityGivenUp) {
        Some((None, "TaskFailedToStart: RESOURCE:GPU"))
    } else {
        None
    }
}

fn fail_to_start(task: &mut Task, container: usize, reason: Option<&str>, whole: &str) {
    task.begin_to_stop("TaskFailedToStart", whole);
    task.status = Status::Deprovisioning;
    if let Some(container) = task.containers.get_mut(container) {
        container.reason = reason.map(str::to_owned);
    }
    for container in &mut task.containers {
        container.status = "STOPPED";
    }
}

fn count_start(ecs: &Ecs, id: &str, at: usize) {
    if let Some(task) = lock(&ecs.state).tasks.get_mut(id)
        && at == task.named_container()
    {
        task.start_count += 1;
    }
}

/// Returns the specification of each container: its definition with the overrides of the request.
fn specs(ecs: &Ecs, task: &Task) -> Vec<Spec> {
    let settings = &ecs.settings;
    let role = task.request.overrides.task_role_arn.as_ref().or(task.definition.task_role_arn.as_ref());
    let authorization = role.map(|role| settings.sessions.begin(&task.id, role));
    let spec = |container: &definition::ContainerDefinition| {
        let overridden =
            task.request.overrides.containers.iter().find(|other| other.name.as_ref() == Some(&container.name));
        let command = overridden.and_then(|other| other.command.as_ref()).unwrap_or(&container.command);
        let mut environment = settings.environment.clone();
        let metadata = format!("{}/v4/{}/{}", ecs.url, task.id, container.name);
        environment.push(("ECS_CONTAINER_METADATA_URI_V4".into(), metadata));
        environment.push(("AWS_EXECUTION_ENV".into(), "AWS_ECS_FARGATE".into()));
        if let Some(authorization) = &authorization {
            // The absolute form is used because the address of the relative form, 169.254.170.2, does not exist on
            // this machine.
            let url = format!("{}/credentials/{}", ecs.url, task.id);
            environment.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), url));
            environment.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN".into(), authorization.clone()));
        }
        // This stops Python's setproctitle, which Airflow's workers call, from overwriting the variables in
        // /proc/PID/environ. The emulator finds the processes of a container by these variables.
        environment.push(("SPT_NOENV".into(), "1".into()));
        environment.push(("AWS_REGION".into(), settings.location.region.clone()));
        let over = overridden.map(|other| other.environment.as_slice()).unwrap_or_default();
        environment.extend(
            container.environment.iter().chain(over).map(|variable| (variable.name.clone(), variable.value.clone())),
        );
        let stop_timeout = container.stop_timeout.map_or(STOP_TIMEOUT, Duration::from_secs);
        let restart = container.restart_policy.as_ref().filter(|policy| policy.enabled);
        Spec {
            argv: container.entry_point.iter().chain(command).cloned().collect(),
            environment,
            directory: container.working_directory.clone(),
            stop_timeout: settings.scale.shorten(stop_timeout),
            restart: restart.map(|policy| Restart {
                ignored: policy.ignored_exit_codes.clone(),
                after: settings.scale.shorten(Duration::from_secs(policy.restart_attempt_period)),
            }),
            log: settings.log_dir.as_ref().map(|dir| dir.join(format!("{}-{}.log", task.id, container.name))),
            simulate: settings.simulate.then_some(settings.scale),
            mark: authorization
                .as_ref()
                .map(|authorization| format!("AWS_CONTAINER_AUTHORIZATION_TOKEN={authorization}")),
        }
    };
    task.definition.containers.iter().map(spec).collect()
}

/// Takes a task from RUNNING to the exit of its last container.
async fn run(
    ecs: &Arc<Ecs>,
    id: &str,
    orders: &mut watch::Receiver<Order>,
    mut exits: Exits,
    stop: &watch::Sender<Stop>,
    shapes: &Shapes,
) {
    let all_up = |task: &mut Task| {
        for container in &mut task.containers {
            container.status = "RUNNING";
            container.was_started = true;
        }
    };
    let mut left = lock(&ecs.state).tasks.get(id).map_or(0, |task| task.containers.len());
    if shapes.has(Shape::FailedToStartAfterExit) {
        // The task is never reported as RUNNING because its sidecars did not start.
        ecs.update(id, all_up);
    } else {
        ecs.change(id, |task| {
            all_up(task);
            task.status = Status::Running;
            task.times.started = Some(Millis::now());
        });
    }
    if shapes.has(Shape::SpotInterruption) {
        ecs.order(id, Order::Stop, "SpotInterruption", SPOT_REASON);
    } else if shapes.has(Shape::SpotNotice) {
        ecs.order(id, Order::Live, "SpotInterruption", SPOT_REASON);
    } else if shapes.has(Shape::TerminationNotice) {
        ecs.order(id, Order::Live, "TerminationNotice", SPOT_REASON);
    } else if shapes.has(Shape::InfrastructureHealth) {
        ecs.order(id, Order::LoseHost, "InfrastructureHealth", HOST_REASON);
    } else if shapes.has(Shape::SeemsLost) {
        let members = json!({"stopCode": "InfrastructureHealth", "stoppedReason": HOST_REASON});
        ecs.report_stopped(id, &members, None);
    }

    let mut last = Order::Live;
    while left > 0 {
        tokio::select! {
            biased;
            order = next_order(orders, last) => {
                last = order;
                raise(stop, if order == Order::LoseHost { Stop::Kill } else { Stop::Terminate });
            }
            exit = exits.recv() => {
                let Some((at, code)) = exit else { return };
                left -= 1;
                if last == Order::LoseHost {
                    continue;
                }
                let ends = note_exit(ecs, id, at, code, left, shapes);
                if ends {
                    raise(stop, Stop::Terminate);
                }
            }
        }
    }
}

fn raise(stop: &watch::Sender<Stop>, to: Stop) {
    stop.send_if_modified(|present| {
        let more = to > *present;
        if more {
            *present = to;
        }
        more
    });
}

async fn next_order(orders: &mut watch::Receiver<Order>, last: Order) -> Order {
    match orders.wait_for(|order| *order > last).await.map(|order| *order) {
        Ok(order) => order,
        Err(_) => std::future::pending().await,
    }
}

/// Records a container's exit. Returns true if the other containers must also end.
fn note_exit(ecs: &Arc<Ecs>, id: &str, at: usize, code: i32, left: usize, shapes: &Shapes) -> bool {
    let mut ends = false;
    ecs.change(id, |task| {
        end_container(task, at, code);
        let essential = task.definition.containers.get(at).is_some_and(|container| container.essential);
        ends = essential || left == 0;
        if !ends {
            return;
        }
        // On AWS, the task's status in the first event of an exit varies.
        let status = if left == 0 {
            let choices = [Status::Running, Status::Deactivating, Status::Deprovisioning];
            ecs.settings.chance.pick(choices, "status at exit", id)
        } else {
            ecs.settings.chance.pick([Status::Running, Status::Deactivating], "status at exit", id)
        };
        task.status = task.status.max(status);
        if shapes.has(Shape::FailedToStartAfterExit) {
            task.status = Status::Deprovisioning;
            task.begin_to_stop("TaskFailedToStart", "Task failed to start");
        } else {
            task.begin_to_stop("EssentialContainerExited", "Essential container in task exited");
        }
    });
    ends
}

fn end_container(task: &mut Task, at: usize, code: i32) {
    if at == task.named_container() {
        task.process_exit_code = Some(code);
        task.process_exited = Some(Millis::now());
    }
    let (hidden, killed) = (task.shapes.has(Shape::NoExitCode), task.shapes.has(Shape::OutOfMemory));
    let named = task.named_container();
    if let Some(container) = task.containers.get_mut(at) {
        container.status = "STOPPED";
        container.was_started = true;
        let code = if task.stopping && task.shapes.has(Shape::StopReports0) { 0 } else { code };
        container.exit_code = (!hidden).then_some(code);
        if at == named && killed {
            container.reason = Some(OUT_OF_MEMORY.to_owned());
        }
    }
}

/// Takes a task from the exit of its last container to STOPPED.
async fn tear_down(ecs: &Arc<Ecs>, id: &str) {
    ecs.change_if(id, |task| {
        let now = Millis::now();
        let early =
            task.times.started.filter(|_| task.shapes.has(Shape::ClockSkew)).map(|started| started.before(1_500));
        task.times.execution_stopped = early.or(Some(now));
        let is_change = task.status < Status::Deprovisioning;
        task.status = Status::Deprovisioning;
        is_change
    });
    tokio::time::sleep(ecs.settings.teardown).await;
    {
        let mut state = lock(&ecs.state);
        state.live = state.live.saturating_sub(1);
    }
    ecs.change(id, |task| {
        task.status = Status::Stopped;
        task.times.stopped = Some(Millis::now());
        task.stopped = Some(tokio::time::Instant::now());
        task.forgotten |= task.shapes.has(Shape::Forgotten);
        for container in &mut task.containers {
            container.status = "STOPPED";
        }
    });
}
