//! Checks of dead letters, schedule, alarms, durations, cold starts and cost.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricAlarm, MetricDataQuery, MetricStat, Statistic};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use serde_json::{Value, json};

use super::context::Context;
use super::report::Finding;
use crate::account::{Function, error_text};
use crate::output::{iso, now};

/// The time that metrics may take to appear.
const METRICS: Duration = Duration::from_secs(6 * 60);
/// Two retries of Lambda, after one and two minutes, and the delivery.
const RETRIES: Duration = Duration::from_secs(8 * 60);
/// The limit of the average duration, in milliseconds.
const SLOW_MS: f64 = 500.0;
/// The limit of a cold start, in milliseconds. docs/performance.md has local measurements.
const SLOW_START_MS: f64 = 300.0;

/// Sends an event that task-state cannot handle. The submission was stopped earlier, so task-state must stop the task, in a
/// cluster where it has no permission.
pub async fn dead_letters(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = (
        "an event that task-state cannot handle",
        "in the dead-letter queue after three tries, within about four minutes",
    );
    let Some(queue) = context.account.outputs.get("EventDeadLettersUrl").cloned() else {
        return vec![Finding::skipped(question, "the queue is not known: use --stack")];
    };
    let (Some(function), Ok(deployment)) = (context.account.function(Function::TaskState), context.bridge.deployment())
    else {
        return vec![Finding::skipped(question, "the function is not known")];
    };
    let (began, id) = (now(), context.id("stopped"));
    let body = json!({"submission_ids": [id], "reason": "verify-aws needs one that was stopped"});
    if let Err(error) = context.bridge.call("POST", "/v1/stops", Some(&body)).await {
        return vec![Finding::unknown(question, expected, crate::output::with_causes(&error))];
    }
    let cluster = format!("arn:aws:ecs:{}:123456789012:cluster/{}", context.region, context.name);
    let task = format!("arn:aws:ecs:{}:123456789012:task/{}/{:032x}", context.region, context.name, began);
    let event = json!({
        "version": "0", "id": context.name, "detail-type": "ECS Task State Change", "source": "aws.ecs", "account": "123456789012",
        "time": iso(began), "region": context.region, "resources": [task],
        "detail": {
            "clusterArn": cluster, "taskArn": task, "startedBy": format!("{deployment}/{id}/1"), "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING", "version": 3, "createdAt": iso(began), "updatedAt": iso(began), "startedAt": iso(began),
            "containers": [{"containerArn": task, "lastStatus": "RUNNING", "name": context.container, "taskArn": task}],
        },
    });
    let invoked = context.account.lambda.invoke().function_name(function).invocation_type(InvocationType::Event);
    if let Err(error) = invoked.payload(Blob::new(event.to_string())).send().await {
        return vec![Finding::unknown(question, expected, error_text(&error))];
    }
    let sqs = &context.account.sqs;
    let found = context
        .until(RETRIES, async || {
            let received = sqs.receive_message().queue_url(&queue).max_number_of_messages(10).visibility_timeout(5);
            let messages = received.wait_time_seconds(1).send().await.ok()?.messages.unwrap_or_default();
            let ours =
                messages.into_iter().find(|message| message.body().is_some_and(|body| body.contains(&context.name)))?;
            let handle = ours.receipt_handle;
            sqs.delete_message().queue_url(&queue).set_receipt_handle(handle).send().await.ok()
        })
        .await;
    let seen = match found {
        Some(_) => format!("there after {} s, and deleted", (now() - began) / 1_000),
        None => "not there".to_owned(),
    };
    vec![Finding::seen(question, expected, seen, found.is_some())]
}

/// Returns the sum, average or maximum of a metric of AWS/Lambda over the period `since`.
async fn statistic(
    context: &Context<'_>,
    function: &str,
    metric: &str,
    statistic: Statistic,
    since: Duration,
) -> Option<f64> {
    let (to, from) = (SystemTime::now() + Duration::from_secs(60), SystemTime::now().checked_sub(since)?);
    let answer = context
        .account
        .cloudwatch
        .get_metric_statistics()
        .namespace("AWS/Lambda")
        .metric_name(metric)
        .dimensions(Dimension::builder().name("FunctionName").value(function).build())
        .start_time(DateTime::from(from))
        .end_time(DateTime::from(to))
        .period(60)
        .statistics(statistic.clone())
        .send()
        .await
        .ok()?;
    let points = answer.datapoints();
    match statistic {
        Statistic::Sum => points.iter().filter_map(|point| point.sum()).reduce(|one, other| one + other),
        Statistic::Maximum => points.iter().filter_map(|point| point.maximum()).reduce(f64::max),
        _ => {
            let values: Vec<_> = points.iter().filter_map(|point| point.average()).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        }
    }
}

/// Checks that reconcile runs each minute.
pub async fn schedule(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = ("reconcile in the last 15 minutes", "one run a minute, or as ReconcileMinutes says");
    if !context.account.has("CLOUDWATCH") {
        return vec![Finding::skipped(question, "a local stack has no metrics")];
    }
    let Some(name) = context.account.function(Function::Reconcile) else {
        return vec![Finding::skipped(question, "the function's name is not known")];
    };
    let quarter = Duration::from_secs(15 * 60);
    let runs =
        context.until(METRICS, async || statistic(context, &name, "Invocations", Statistic::Sum, quarter).await).await;
    vec![match runs {
        Some(runs) => Finding::seen(question, expected, format!("{runs} runs"), runs >= 1.0),
        None => Finding::seen(question, expected, "no run", false),
    }]
}

/// Metrics of the bridge that exist once reconcile has run. Others appear when they count something for the first time.
const ALWAYS: [&str; 3] = ["OverdueChecks", "QueueAge", "ProfilesWithoutCapacity"];
/// Metrics that Lambda publishes with each invocation.
const OF_INVOCATIONS: [&str; 3] = ["Errors", "Throttles", "Invocations"];
/// The period in which data points are expected. A deployment may be idle, but its schedule runs.
const RECENT: Duration = Duration::from_secs(3 * 3_600);

/// Returns `true` if a metric of a healthy deployment has data points. Those of runner-api appear after the first poll.
fn is_certain(metric: &Metric, idle: Option<&str>) -> bool {
    let name = metric.metric_name().unwrap_or_default();
    let is_idle = || metric.dimensions().iter().any(|dimension| dimension.value() == idle);
    ALWAYS.contains(&name) || (OF_INVOCATIONS.contains(&name) && !(idle.is_some() && is_idle()))
}

/// Returns the metrics of an alarm.
fn metrics(alarm: &MetricAlarm) -> Vec<Metric> {
    let of_expressions = alarm.metrics().iter().filter_map(|query| query.metric_stat()?.metric().cloned());
    let own = alarm.metric_name().map(|name| {
        let metric = Metric::builder().set_namespace(alarm.namespace.clone()).metric_name(name);
        metric.set_dimensions(Some(alarm.dimensions().to_vec())).build()
    });
    of_expressions.chain(own).collect()
}

/// Checks that the metrics of every alarm exist. An alarm with a misspelled dimension never goes off.
pub async fn alarm_metrics(context: &mut Context<'_>) -> Vec<Finding> {
    let question = "the metrics of the alarms";
    if !context.account.has("CLOUDWATCH") {
        return vec![Finding::skipped(question, "a local stack has no alarms")];
    }
    let Ok(deployment) = context.bridge.deployment() else {
        return vec![Finding::skipped(question, "the deployment's name is not known")];
    };
    let alarms = match context.account.alarms(deployment).await {
        Ok(alarms) => alarms,
        Err(error) => return vec![Finding::unknown(question, "each is there", error)],
    };
    if alarms.is_empty() {
        return vec![Finding::seen(question, "the stack's alarms", "the deployment has no alarm", false)];
    }
    // Without a pool, nothing invokes runner-api.
    let runner_api = context.account.function(Function::RunnerApi).filter(|_| context.pool.is_none());
    let all: Vec<Metric> = alarms.iter().flat_map(metrics).collect();
    let certain = |metric: &Metric| is_certain(metric, runner_api.as_deref());
    // All metrics are awaited together, with one request at a time.
    let mut last = Err("no answer".to_owned());
    let seen = context
        .until(METRICS, async || {
            last = with_data(context, &all).await;
            let seen = last.as_ref().ok()?;
            all.iter().zip(seen).all(|(metric, seen)| *seen || !certain(metric)).then(|| seen.clone())
        })
        .await;
    let seen = match seen.map_or(last, Ok) {
        Ok(seen) => seen,
        Err(error) => return vec![Finding::unknown(question, "each is there", error)],
    };
    let mut seen = all.iter().zip(seen);
    let mut findings = Vec::new();
    for alarm in &alarms {
        let question = format!("the metrics of {}", alarm.alarm_name().unwrap_or_default());
        let absent: Vec<_> = seen.by_ref().take(metrics(alarm).len()).filter(|(_, seen)| !seen).collect();
        let names = |is: bool| {
            let named = absent.iter().filter(|(metric, _)| certain(metric) == is);
            named.filter_map(|(metric, _)| metric.metric_name()).collect::<Vec<_>>().join(", ")
        };
        let (missing, to_come) = (names(true), names(false));
        findings.push(if !missing.is_empty() {
            Finding::seen(&question, "there", format!("missing: {missing}"), false)
        } else if to_come.is_empty() {
            Finding::seen(&question, "there", "there", true)
        } else {
            let why = format!("{to_come} appear when they count something for the first time");
            Finding::unknown(&question, "there", why)
        });
    }
    findings
}

/// Returns which of these metrics have recent data points. ListMetrics may show a new metric a quarter of an hour late, and
/// GetMetricData shows its data points at once.
async fn with_data(context: &Context<'_>, metrics: &[Metric]) -> Result<Vec<bool>, String> {
    let (to, from) = (SystemTime::now() + Duration::from_secs(60), SystemTime::now().checked_sub(RECENT));
    let queries = metrics.iter().enumerate().map(|(at, metric)| {
        let statistic = MetricStat::builder().metric(metric.clone()).period(60).stat("SampleCount").build();
        MetricDataQuery::builder().id(format!("m{at}")).metric_stat(statistic).build()
    });
    // A request may have 500 queries. All alarms of the template together have about 50.
    let request = context.account.cloudwatch.get_metric_data().set_metric_data_queries(Some(queries.collect()));
    let mut pages =
        request.set_start_time(from.map(DateTime::from)).end_time(DateTime::from(to)).into_paginator().send();
    let mut with_data = vec![false; metrics.len()];
    while let Some(page) = pages.next().await {
        for result in page.map_err(|error| error_text(&error))?.metric_data_results.unwrap_or_default() {
            let at = result.id().and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok());
            if let Some(found) = at.and_then(|at| with_data.get_mut(at)) {
                *found |= !result.values().is_empty();
            }
        }
    }
    Ok(with_data)
}

/// Reads the durations of submit and task-state.
pub async fn durations(context: &mut Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in [Function::Submit, Function::TaskState] {
        let question = format!("{} on average and at most", function.short());
        if !context.account.has("CLOUDWATCH") {
            findings.push(Finding::skipped(&question, "a local stack has no metrics"));
            continue;
        }
        let Some(name) = context.account.function(function) else { continue };
        let hour = Duration::from_secs(3_600);
        let average = context
            .until(METRICS, async || statistic(context, &name, "Duration", Statistic::Average, hour).await)
            .await;
        let most = statistic(context, &name, "Duration", Statistic::Maximum, hour).await;
        let expected = format!("under {SLOW_MS} ms on average");
        findings.push(match (average, most) {
            (Some(average), Some(most)) => {
                let seen = format!("{average:.0} ms, {most:.0} ms");
                Finding::seen(&question, &expected, seen, average < SLOW_MS)
                    .sure("CloudWatch's Duration of the last hour")
            }
            _ => Finding::unknown(&question, &expected, "no Duration yet"),
        });
    }
    findings
}

/// Reads the durations of cold starts from the reports of Lambda. There are none if `SystemLogLevel` is WARN.
pub async fn cold_start(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = ("cold starts", format!("under {SLOW_START_MS} ms of initialisation"));
    if !context.account.has("CLOUDWATCH_LOGS") {
        return vec![Finding::skipped(question, "a local stack reports none")];
    }
    let mut starts = Vec::new();
    for function in Function::ALL {
        let Ok(configuration) = context.account.configuration(function).await else { continue };
        let request = context.account.logs.filter_log_events().log_group_name(&configuration.log_group);
        let request = request.filter_pattern("{ $.type = \"platform.report\" }").start_time(context.began - 3_600_000);
        let events = request.send().await.ok().and_then(|answer| answer.events).unwrap_or_default();
        let reports = events.iter().filter_map(|event| serde_json::from_str::<Value>(event.message()?).ok());
        starts.extend(reports.filter_map(|report| {
            let millis = report.pointer("/record/metrics/initDurationMs")?.as_f64()?;
            Some((function.short(), millis))
        }));
    }
    vec![match starts.iter().max_by(|one, other| one.1.total_cmp(&other.1)) {
        Some((function, most)) => {
            let seen = format!("{most:.0} ms at most, of {function}");
            let sure = format!("{} reports of the last hour", starts.len());
            Finding::seen(question, &expected, seen, *most < SLOW_START_MS).sure(sure)
        }
        None => {
            let why = "no report: set LoggingConfig.SystemLogLevel of the functions to INFO for a while to have them";
            Finding::unknown(question, &expected, why)
        }
    }]
}

/// Fargate, Linux on x86 in us-east-1 on 2025-10-01: dollars per vCPU and hour, per GB and hour.
const PRICES: (f64, f64) = (0.040_48, 0.004_445);
/// The billed time of a task, in hours. Fargate bills at least one minute.
const BILLED_HOURS: f64 = 1.5 / 60.0;
/// An upper limit for invocations, writes, queue and rule, in dollars.
const THE_REST: f64 = 0.01;

/// Returns the cost of a run with this number of tasks, in dollars.
fn dollars(tasks: usize, cpu: f64, memory: f64) -> f64 {
    let hour = cpu / 1_024.0 * PRICES.0 + memory / 1_024.0 * PRICES.1;
    tasks as f64 * BILLED_HOURS * hour + THE_REST
}

/// Computes the cost of the run.
pub fn cost(context: &mut Context<'_>) -> Vec<Finding> {
    let (cpu, memory) = context.size.unwrap_or((1_024.0, 2_048.0));
    let dollars = dollars(context.launched(), cpu, memory);
    let seen =
        format!("about {dollars:.2} dollars for {} tasks of {cpu} CPU units and {memory} MiB", context.launched());
    let sure = "computed from prices of us-east-1, not read from a bill";
    vec![Finding::seen("this run", "less than a dollar", seen, dollars < 1.0).sure(sure)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_costs_cents_for_small_tasks() {
        assert!(dollars(8, 256.0, 512.0) < 0.02);
        assert!(dollars(8, 16_384.0, 122_880.0) > 0.2);
    }
}
