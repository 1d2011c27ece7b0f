//! What the functions are surrounded by: dead letters, the schedule, alarms, their own figures, and what all of it cost.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricAlarm, MetricDataQuery, MetricStat, Statistic};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use serde_json::{Value, json};

use super::context::Context;
use super::report::Finding;
use crate::account::{Function, words};
use crate::bridge::now;
use crate::output::iso;

/// How long metrics may take to appear.
const METRICS: Duration = Duration::from_secs(6 * 60);
/// Two retries of Lambda, after one and two minutes, and the delivery.
const RETRIES: Duration = Duration::from_secs(8 * 60);
/// What a submission that is not urgent may take, in milliseconds.
const SLOW_MS: f64 = 500.0;
/// What a cold start may take: see docs/performance.md for what it takes locally.
const SLOW_START_MS: f64 = 300.0;

/// An event that task-state cannot handle: of a submission that was stopped before it came, a task that it must stop, in a
/// cluster where it may not.
pub async fn dead_letters(probe: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = (
        "an event that task-state cannot handle",
        "in the dead-letter queue after three tries, within about four minutes",
    );
    let Some(queue) = probe.account.outputs.get("EventDeadLettersUrl").cloned() else {
        return vec![Finding::skipped(question, "the queue is not known: use --stack")];
    };
    let (Some(function), Ok(deployment)) = (probe.account.function(Function::TaskState), probe.bridge.deployment())
    else {
        return vec![Finding::skipped(question, "the function is not known")];
    };
    let (began, id) = (now(), probe.id("stopped"));
    let body = json!({"submission_ids": [id], "reason": "verify-aws needs one that was stopped"});
    if let Err(error) = probe.bridge.call("POST", "/v1/stops", Some(&body)).await {
        return vec![Finding::unknown(question, expected, crate::output::with_causes(&error))];
    }
    let cluster = format!("arn:aws:ecs:{}:123456789012:cluster/{}", probe.region, probe.name);
    let task = format!("arn:aws:ecs:{}:123456789012:task/{}/{:032x}", probe.region, probe.name, began);
    let event = json!({
        "version": "0", "id": probe.name, "detail-type": "ECS Task State Change", "source": "aws.ecs", "account": "123456789012",
        "time": iso(began), "region": probe.region, "resources": [task],
        "detail": {
            "clusterArn": cluster, "taskArn": task, "startedBy": format!("{deployment}/{id}/1"), "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING", "version": 3, "createdAt": iso(began), "updatedAt": iso(began), "startedAt": iso(began),
            "containers": [{"containerArn": task, "lastStatus": "RUNNING", "name": probe.container, "taskArn": task}],
        },
    });
    let invoked = probe.account.lambda.invoke().function_name(function).invocation_type(InvocationType::Event);
    if let Err(error) = invoked.payload(Blob::new(event.to_string())).send().await {
        return vec![Finding::unknown(question, expected, words(&error))];
    }
    let sqs = &probe.account.sqs;
    let found = probe
        .until(RETRIES, async || {
            let received = sqs.receive_message().queue_url(&queue).max_number_of_messages(10).visibility_timeout(5);
            let messages = received.wait_time_seconds(1).send().await.ok()?.messages.unwrap_or_default();
            let ours =
                messages.into_iter().find(|message| message.body().is_some_and(|body| body.contains(&probe.name)))?;
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

/// The sum, average or maximum of a metric of AWS/Lambda since `since`.
async fn statistic(
    probe: &Context<'_>,
    function: &str,
    metric: &str,
    statistic: Statistic,
    since: Duration,
) -> Option<f64> {
    let (to, from) = (SystemTime::now() + Duration::from_secs(60), SystemTime::now().checked_sub(since)?);
    let answer = probe
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

/// Whether reconcile runs each minute.
pub async fn schedule(probe: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = ("reconcile in the last 15 minutes", "one run a minute, or as ReconcileMinutes says");
    if !probe.account.has("CLOUDWATCH") {
        return vec![Finding::skipped(question, "a local stack has no metrics")];
    }
    let Some(name) = probe.account.function(Function::Reconcile) else {
        return vec![Finding::skipped(question, "the function's name is not known")];
    };
    let quarter = Duration::from_secs(15 * 60);
    let runs =
        probe.until(METRICS, async || statistic(probe, &name, "Invocations", Statistic::Sum, quarter).await).await;
    vec![match runs {
        Some(runs) => Finding::seen(question, expected, format!("{runs} runs"), runs >= 1.0),
        None => Finding::seen(question, expected, "no run", false),
    }]
}

/// Metrics of the bridge that are there once reconcile has run. The others appear when what they count has happened for the
/// first time.
const ALWAYS: [&str; 3] = ["OverdueChecks", "QueueAge", "ProfilesWithoutCapacity"];
/// Metrics that Lambda publishes with each invocation.
const OF_INVOCATIONS: [&str; 3] = ["Errors", "Throttles", "Invocations"];
/// How far back data points are looked for: a deployment may have been idle, but not its schedule.
const RECENT: Duration = Duration::from_secs(3 * 3_600);

/// Whether a metric has data points as soon as the deployment is healthy: those of runner-api only once a runner has asked it.
fn is_certain(metric: &Metric, idle: Option<&str>) -> bool {
    let name = metric.metric_name().unwrap_or_default();
    let is_idle = || metric.dimensions().iter().any(|dimension| dimension.value() == idle);
    ALWAYS.contains(&name) || (OF_INVOCATIONS.contains(&name) && !(idle.is_some() && is_idle()))
}

/// The metrics that an alarm watches.
fn metrics(alarm: &MetricAlarm) -> Vec<Metric> {
    let of_expressions = alarm.metrics().iter().filter_map(|query| query.metric_stat()?.metric().cloned());
    let own = alarm.metric_name().map(|name| {
        let metric = Metric::builder().set_namespace(alarm.namespace.clone()).metric_name(name);
        metric.set_dimensions(Some(alarm.dimensions().to_vec())).build()
    });
    of_expressions.chain(own).collect()
}

/// Whether every alarm watches something: a dimension that is misspelt never rings.
pub async fn alarm_metrics(probe: &mut Context<'_>) -> Vec<Finding> {
    let question = "the metrics of the alarms";
    if !probe.account.has("CLOUDWATCH") {
        return vec![Finding::skipped(question, "a local stack has no alarms")];
    }
    let Ok(deployment) = probe.bridge.deployment() else {
        return vec![Finding::skipped(question, "the deployment's name is not known")];
    };
    let alarms = match probe.account.alarms(deployment).await {
        Ok(alarms) => alarms,
        Err(error) => return vec![Finding::unknown(question, "each is there", error)],
    };
    if alarms.is_empty() {
        return vec![Finding::seen(question, "the stack's alarms", "the deployment has no alarm", false)];
    }
    // Without a pool, nothing invokes runner-api.
    let runner_api = probe.account.function(Function::RunnerApi).filter(|_| probe.pool.is_none());
    let all: Vec<Metric> = alarms.iter().flat_map(metrics).collect();
    let certain = |metric: &Metric| is_certain(metric, runner_api.as_deref());
    // One wait for all of them, and one request at a time.
    let mut last = Err("no answer".to_owned());
    let seen = probe
        .until(METRICS, async || {
            last = with_data(probe, &all).await;
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

/// Which of these metrics have recent data points. ListMetrics may show a new metric a quarter of an hour late, and
/// GetMetricData shows its data points at once.
async fn with_data(probe: &Context<'_>, metrics: &[Metric]) -> Result<Vec<bool>, String> {
    let (to, from) = (SystemTime::now() + Duration::from_secs(60), SystemTime::now().checked_sub(RECENT));
    let queries = metrics.iter().enumerate().map(|(at, metric)| {
        let statistic = MetricStat::builder().metric(metric.clone()).period(60).stat("SampleCount").build();
        MetricDataQuery::builder().id(format!("m{at}")).metric_stat(statistic).build()
    });
    // Up to 500 queries in a request: every alarm of the template together has a tenth of that.
    let request = probe.account.cloudwatch.get_metric_data().set_metric_data_queries(Some(queries.collect()));
    let mut pages =
        request.set_start_time(from.map(DateTime::from)).end_time(DateTime::from(to)).into_paginator().send();
    let mut with_data = vec![false; metrics.len()];
    while let Some(page) = pages.next().await {
        for result in page.map_err(|error| words(&error))?.metric_data_results.unwrap_or_default() {
            let at = result.id().and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok());
            if let Some(found) = at.and_then(|at| with_data.get_mut(at)) {
                *found |= !result.values().is_empty();
            }
        }
    }
    Ok(with_data)
}

/// How long submit and task-state take.
pub async fn durations(probe: &mut Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in [Function::Submit, Function::TaskState] {
        let question = format!("{} on average and at most", function.short());
        if !probe.account.has("CLOUDWATCH") {
            findings.push(Finding::skipped(&question, "a local stack has no metrics"));
            continue;
        }
        let Some(name) = probe.account.function(function) else { continue };
        let hour = Duration::from_secs(3_600);
        let average =
            probe.until(METRICS, async || statistic(probe, &name, "Duration", Statistic::Average, hour).await).await;
        let most = statistic(probe, &name, "Duration", Statistic::Maximum, hour).await;
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

/// How long the functions take to start, from Lambda's reports. Where `SystemLogLevel` is WARN, there are none.
pub async fn cold_start(probe: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = ("cold starts", format!("under {SLOW_START_MS} ms of initialisation"));
    if !probe.account.has("CLOUDWATCH_LOGS") {
        return vec![Finding::skipped(question, "a local stack reports none")];
    }
    let mut starts = Vec::new();
    for function in Function::ALL {
        let Ok(configuration) = probe.account.configuration(function).await else { continue };
        let request = probe.account.logs.filter_log_events().log_group_name(&configuration.log_group);
        let request = request.filter_pattern("{ $.type = \"platform.report\" }").start_time(probe.began - 3_600_000);
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
/// Of a run's tasks, the billed time: a minute at least.
const BILLED_HOURS: f64 = 1.5 / 60.0;
/// Everything else: invocations, writes, queue, rule. Generously.
const THE_REST: f64 = 0.01;

/// What a run of so many tasks costs, in dollars.
fn dollars(tasks: usize, cpu: f64, memory: f64) -> f64 {
    let hour = cpu / 1_024.0 * PRICES.0 + memory / 1_024.0 * PRICES.1;
    tasks as f64 * BILLED_HOURS * hour + THE_REST
}

/// What the run cost, computed.
pub fn cost(probe: &mut Context<'_>) -> Vec<Finding> {
    let (cpu, memory) = probe.size.unwrap_or((1_024.0, 2_048.0));
    let dollars = dollars(probe.launched(), cpu, memory);
    let seen = format!("about {dollars:.2} dollars for {} tasks of {cpu} CPU units and {memory} MiB", probe.launched());
    let sure = "computed from prices of us-east-1, not read from a bill";
    vec![Finding::seen("this run", "less than a dollar", seen, dollars < 1.0).sure(sure)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_costs_cents_unless_its_tasks_are_huge() {
        assert!(dollars(8, 256.0, 512.0) < 0.02);
        assert!(dollars(8, 16_384.0, 122_880.0) > 0.2);
    }
}
