//! Checks of the lifecycle of tasks, as ECS reports it.

use std::time::Duration;

use aws_sdk_ecs::types::DesiredStatus;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::PREFIX;
use super::context::{A_TASK, Context};
use super::events::{Received, Watch};
use super::report::Finding;
use crate::account::error_text;
use crate::output::duration;
use crate::record::{Record, is_terminal, millis, text};

const ENDS: [(&str, &str, i64); 3] =
    [("exit-0", "exit 0", 0), ("exit-7", "exit 7", 7), ("exit-137", "sh -c 'kill -9 $$'; exit $?", 137)];

/// Starts to receive events, if the identity has the permissions.
async fn listen(context: &mut Context<'_>) -> Result<(), String> {
    if context.watch.is_some() {
        return Ok(());
    }
    if !context.account.has("SQS") || !context.account.has("EVENTBRIDGE") {
        return Err("a local stack has neither queues nor rules".to_owned());
    }
    let answer = context.account.ecs.describe_clusters().clusters(&context.cluster).send().await;
    let clusters = answer.map_err(|error| error_text(&error))?.clusters.unwrap_or_default();
    let arn = clusters.into_iter().next().and_then(|cluster| cluster.cluster_arn).unwrap_or_default();
    context.watch = Some(Watch::begin(context.account, &context.name, &arn).await?);
    Ok(())
}

/// Checks the exit codes in the records.
pub async fn exit_codes(context: &mut Context<'_>) -> Vec<Finding> {
    // The check `events` reports the error.
    let _ = listen(context).await;
    let mut findings = Vec::new();
    let mut submitted = Vec::new();
    for (what, command, code) in ENDS {
        let profile = context.profile.clone();
        submitted.push((code, context.submit(what, &profile, &["sh", "-c", command]).await));
    }
    for (code, id) in submitted {
        let question = format!("a command that ends with {code}");
        let state = if code == 0 { "succeeded" } else { "failed" };
        let expected = format!("{state}, exit code {code}");
        let record = match id {
            Ok(id) => context.record(&id, is_terminal).await,
            Err(error) => Err(error),
        };
        findings.push(match record {
            Ok(record) => {
                let seen =
                    format!("{}, exit code {}{}", text(&record, "state"), text(&record, "exit_code"), because(&record));
                let fits = text(&record, "state") == state && millis(&record, "exit_code") == Some(code);
                Finding::seen(&question, &expected, seen, fits)
            }
            Err(error) => Finding::unknown(&question, &expected, error),
        });
    }
    findings
}

fn because(record: &Record) -> String {
    record.get("reason").and_then(Value::as_str).map(|reason| format!(" ({reason})")).unwrap_or_default()
}

/// Checks that events report the exit of a container before ECS stops its task.
pub async fn events(context: &mut Context<'_>) -> Vec<Finding> {
    let (first, delivery, last, record) = (
        "the first event with the exit code",
        "its delivery",
        "the event STOPPED",
        "the record of the end, after the first event with it",
    );
    if let Err(why) = listen(context).await {
        return vec![Finding::skipped(first, why)];
    }
    let Ok(deployment) = context.bridge.deployment().map(str::to_owned) else {
        return vec![Finding::skipped(first, "the deployment's name is not known")];
    };
    let first_of_them = context.id(ENDS[0].0);
    if !context.has_submitted(&first_of_them) {
        exit_codes(context).await;
    }
    let Some(watch) = context.watch.as_ref() else { return Vec::new() };
    let (mut before, mut after, mut delays, mut recorded_after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut late = 0;
    for (what, ..) in ENDS {
        let id = context.id(what);
        let started_by = format!("{deployment}/{id}/1");
        let is_stopped = |received: &Received| received.event.pointer("/detail/lastStatus") == Some(&"STOPPED".into());
        let received =
            context.until(A_TASK, async || Some(watch.of(&started_by)).filter(|all| all.iter().any(is_stopped))).await;
        let Some(received) = received else { continue };
        let exit = received.iter().find(|received| exit_code(&received.event, &context.container).is_some());
        let stopped = received.iter().find(|received| is_stopped(received));
        let (Some(exit), Some(stopped)) = (exit, stopped) else { continue };
        let ended = received.iter().find_map(|received| at(&received.event, "/detail/executionStoppedAt"));
        let (exit_at, stopped_at) = (happened_at(&exit.event), happened_at(&stopped.event));
        late += usize::from(is_stopped(exit));
        if let (Some(ended), Some(exit_at), Some(stopped_at)) = (ended, exit_at, stopped_at) {
            before.push(exit_at - ended);
            delays.push(exit.at - exit_at);
            after.push(stopped_at - ended);
        }
        let row = context.bridge.records(&[id]).await.ok().and_then(|rows| rows.into_iter().next());
        if let (Some(exit_at), Some(recorded)) = (exit_at, row.as_ref().and_then(|row| millis(row, "changed_at"))) {
            recorded_after.push(recorded - exit_at);
        }
    }
    if before.is_empty() {
        return vec![Finding::unknown(first, "before STOPPED", "no event of an exit was received")];
    }
    let count = before.len();
    let sure = format!("seen {count} times");
    let expected = "before STOPPED, so that the exit code is known before the task is torn down";
    let seen = format!("{} after the container's end; in {late} of {count} only with STOPPED", span(&before));
    let mut findings = vec![
        Finding::seen(first, expected, seen, late == 0).sure(&sure),
        Finding::seen(delivery, "seconds", span(&delays), delays.iter().all(|millis| *millis < 60_000)).sure(&sure),
        Finding::seen(last, "later", format!("{} after the container's end", span(&after)), true).sure(&sure),
    ];
    if !recorded_after.is_empty() {
        let quick = recorded_after.iter().all(|millis| *millis < 10_000);
        findings.push(Finding::seen(record, "a second or two", span(&recorded_after), quick).sure(sure));
    }
    findings
}

/// Returns the smallest and the largest duration.
fn span(millis: &[i64]) -> String {
    // The clocks of ECS differ slightly.
    let signed = |millis: i64| if millis < 0 { format!("-{}", duration(-millis)) } else { duration(millis) };
    let (least, most) =
        (millis.iter().min().copied().unwrap_or_default(), millis.iter().max().copied().unwrap_or_default());
    if least == most { signed(least) } else { format!("{} to {}", signed(least), signed(most)) }
}

fn exit_code(event: &Value, container: &str) -> Option<i64> {
    let containers = event.pointer("/detail/containers")?.as_array()?;
    let mut named = containers.iter().filter(|other| other.get("name").and_then(Value::as_str) == Some(container));
    named.find_map(|container| container.get("exitCode")?.as_i64())
}

/// Returns the time of the change in milliseconds. The time of the event itself has whole seconds.
fn happened_at(event: &Value) -> Option<i64> {
    at(event, "/detail/updatedAt").or_else(|| at(event, "/time"))
}

fn at(event: &Value, pointer: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(event.pointer(pointer)?.as_str()?, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Checks a stop.
pub async fn stop(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) =
        ("a command that is stopped", "cancelled, stop code UserInitiated, exit code 143 or 137");
    let profile = context.profile.clone();
    let result = async {
        let id = context.submit("stop", &profile, &["sh", "-c", "sleep 600"]).await?;
        let running = |record: &Record| text(record, "state") == "running" || is_terminal(record);
        context.record(&id, running).await?;
        let body = json!({"submission_ids": [id], "reason": "verify-aws stops it"});
        context
            .bridge
            .call("POST", "/v1/stops", Some(&body))
            .await
            .map_err(|error| crate::output::with_causes(&error))?;
        context.record(&id, |record| is_terminal(record) && record.contains_key("stop_code")).await
    };
    vec![match result.await {
        Ok(record) => {
            let (state, stop_code) = (text(&record, "state"), text(&record, "stop_code"));
            let code = millis(&record, "exit_code");
            let seen = format!("{state}, stop code {stop_code}, exit code {}", text(&record, "exit_code"));
            let fits = state == "cancelled" && stop_code == "UserInitiated" && matches!(code, Some(137 | 143));
            Finding::seen(question, expected, seen, fits)
        }
        Err(error) => Finding::unknown(question, expected, error),
    }]
}

/// Checks what ECS returns for a task that has ended.
pub async fn after_the_end(context: &mut Context<'_>) -> Vec<Finding> {
    let (list, describe) = ("ListTasks by startedBy and STOPPED", "DescribeTasks after the end");
    let id = context.id("exit-7");
    if !context.has_submitted(&id) {
        exit_codes(context).await;
    }
    let deployment = match context.bridge.deployment() {
        Ok(deployment) => deployment.to_owned(),
        Err(error) => return vec![Finding::skipped(list, error.to_string())],
    };
    let record = match context.record(&id, is_terminal).await {
        Ok(record) => record,
        Err(error) => return vec![Finding::unknown(list, "the task", error)],
    };
    let (cluster, arn) = (text(&record, "cluster"), text(&record, "task_arn"));
    // The record is terminal when the container has exited. The task is STOPPED later.
    let described = context
        .until(A_TASK, async || {
            let answer = context.account.ecs.describe_tasks().cluster(&cluster).tasks(&arn).send().await.ok()?;
            let task = answer.tasks().first().cloned();
            match task {
                Some(task) if task.last_status() != Some("STOPPED") => None,
                task => Some(task),
            }
        })
        .await
        .flatten();
    let listed = context.account.ecs.list_tasks().cluster(&cluster).desired_status(DesiredStatus::Stopped);
    let listed = listed.started_by(format!("{deployment}/{id}/1")).send().await;
    let code = described.as_ref().and_then(|task| task.containers().iter().find_map(|it| it.exit_code()));
    let seen = match (&described, code) {
        (None, _) => "nothing".to_owned(),
        (Some(_), None) => "the task without an exit code".to_owned(),
        (Some(_), Some(code)) => format!("the task with exit code {code}"),
    };
    vec![
        match listed {
            Ok(answer) => {
                let found = answer.task_arns().contains(&arn);
                let seen = if found { "the task" } else { "nothing" };
                Finding::seen(list, "the task: an unanswered launch is found by it", seen, found)
            }
            Err(error) => Finding::seen(list, "the task", error_text(&error), false),
        },
        Finding::seen(describe, "the task with its exit code, for an hour", seen, code == Some(7)),
    ]
}

/// Checks a container that cannot start.
pub async fn cannot_pull(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = (
        "an image that does not exist",
        "STOPPED, TaskFailedToStart, CannotPullContainerError as the container's reason, no exit code",
    );
    vec![match never_pulled(context).await {
        Ok((stop_code, reason, exit_code)) => {
            let fits =
                stop_code == "TaskFailedToStart" && reason.contains("CannotPullContainer") && exit_code.is_none();
            let exit_code = exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
            Finding::seen(question, expected, format!("{stop_code}, {reason}, {exit_code}"), fits)
        }
        Err(error) => Finding::unknown(question, expected, error),
    }]
}

async fn never_pulled(context: &mut Context<'_>) -> Result<(String, String, Option<i32>), String> {
    let name = context.task_definition().ok_or("the profile has no task definition")?.to_owned();
    let answer = context.account.ecs.describe_task_definition().task_definition(name).send().await;
    let definition = answer.map_err(|error| error_text(&error))?.task_definition.ok_or("no task definition")?;
    let mut containers = definition.container_definitions.unwrap_or_default();
    for container in &mut containers {
        container.image = Some("public.ecr.aws/docker/library/busybox:does-not-exist".to_owned());
    }
    let registered = context
        .account
        .ecs
        .register_task_definition()
        .family(format!("{PREFIX}cannot-pull"))
        .set_container_definitions(Some(containers))
        .set_cpu(definition.cpu)
        .set_memory(definition.memory)
        .set_network_mode(definition.network_mode)
        .set_execution_role_arn(definition.execution_role_arn)
        .set_requires_compatibilities(definition.requires_compatibilities)
        .set_runtime_platform(definition.runtime_platform)
        .set_volumes(definition.volumes.filter(|volumes| !volumes.is_empty()))
        .send()
        .await
        .map_err(|error| error_text(&error))?;
    let arn = registered.task_definition.and_then(|it| it.task_definition_arn).unwrap_or_default();
    let request = context.request("pull", &["true"], &json!({"taskDefinition": arn}));
    let task = context.run_task(&request).await.map_err(|(code, text)| format!("{code}: {text}"))?;
    let arn = task.task_arn.unwrap_or_default();
    let stopped = context
        .until(A_TASK, async || {
            let answer =
                context.account.ecs.describe_tasks().cluster(&context.cluster).tasks(&arn).send().await.ok()?;
            answer.tasks().iter().find(|task| task.last_status() == Some("STOPPED")).cloned()
        })
        .await
        .ok_or("the task has not ended")?;
    let container = stopped.containers().iter().find(|it| it.name() == Some(&context.container));
    let reason = container.and_then(|it| it.reason()).or(stopped.stopped_reason()).unwrap_or_default().to_owned();
    let stop_code = stopped.stop_code().map(|code| code.as_str().to_owned()).unwrap_or_default();
    Ok((stop_code, reason, container.and_then(|it| it.exit_code())))
}

/// Checks the session name of a task role, by which runner-api authenticates a runner.
pub async fn session_name(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) =
        ("a command on a pool", "succeeded: the session of a task's role has the task's id as its name");
    let Some(pool) = context.pool.clone() else {
        return vec![Finding::skipped(question, "no profile has a pool")];
    };
    let patience = context.within(2 * A_TASK) + Duration::from_secs(30);
    let result = async {
        let id = context.submit("pool", &pool, &["sh", "-c", "exit 0"]).await?;
        context.record(&id, is_terminal).await
    };
    vec![match tokio::time::timeout(patience, result).await {
        Ok(Ok(record)) => {
            let state = text(&record, "state");
            Finding::seen(question, expected, format!("{state}{}", because(&record)), state == "succeeded")
        }
        Ok(Err(error)) => Finding::seen(question, expected, error, false),
        Err(_) => Finding::seen(question, expected, "it has not ended", false),
    }]
}
