//! What people watch: metrics, as CloudWatch's embedded format on standard output, and the log of transitions.
//!
//! Namespace `EcsBridge`, dimension `Deployment`; what dashboards and alarms rest on is listed in docs/operating.md.

use std::time::Duration;

use ecs_bridge_core::{Alarm, Deployment, LaunchAnswer, Record, State, Timestamp, task_id};
use metrics::{Unit, counter, describe_histogram, gauge, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};

/// Begins to log to standard output, as Lambda's own settings ask: `AWS_LAMBDA_LOG_LEVEL` (`INFO` unless set), and JSON,
/// an object a line, where `AWS_LAMBDA_LOG_FORMAT` says so.
///
/// Release builds have no `TRACE`: the SDK would log whole requests, with what is secret in them.
///
/// A line names its span once: CloudWatch charges by the byte. Filters by module are not understood: their regular
/// expressions would be a part of each cold start.
pub fn log() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let level = variable("AWS_LAMBDA_LOG_LEVEL").parse().unwrap_or(tracing::Level::INFO);
    let lines = tracing_subscriber::fmt().with_max_level(level).with_target(false).without_time();
    if variable("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        lines.json().with_span_list(false).init();
    } else {
        lines.init();
    }
}

/// The metrics of a function; those of one invocation are written after it.
#[derive(Clone, Copy)]
pub struct Metrics(Option<&'static Collector>);

impl Metrics {
    /// Begins to collect. Where that is not possible, which is only so a second time, the function goes without.
    pub fn new(deployment: &Deployment) -> Self {
        let builder =
            Builder::new().cloudwatch_namespace("EcsBridge").with_dimension("Deployment", deployment.to_string());
        let collector = builder.init();
        if let Err(error) = &collector {
            tracing::error!(%error, "no metrics");
        }
        describe_histogram!("SubmissionToStart", Unit::Seconds, "");
        describe_histogram!("ExitToRecord", Unit::Seconds, "");
        Self(collector.ok())
    }

    /// Writes what was counted since the last time.
    pub fn flush(self) {
        if let Some(collector) = self.0
            && let Err(error) = collector.flush(std::io::stdout())
        {
            tracing::error!(%error, "metrics were not written");
        }
    }
}

/// A new submission was recorded.
pub fn accepted(record: &Record) {
    tracing::info!(submission_id = %record.submission_id, to = %record.state, "accepted");
    counter!("Submissions").increment(1);
}

/// A run of reconcile found so much out, and met so many records that were due for long.
pub fn reconciled(repairs: usize, overdue: usize) {
    counter!("Repairs").increment(repairs as u64);
    gauge!("Overdue").set(overdue as f64);
}

/// A record was written.
pub(crate) fn written(from: &Record, to: &Record, now: Timestamp) {
    if from.state == to.state {
        return;
    }
    tracing::info!(
        submission_id = %to.submission_id,
        attempt = to.attempt.get(),
        from = %from.state,
        to = %to.state,
        task = to.task_arn.as_deref().map(task_id),
        exit_code = to.exit_code,
        stop_code = to.stop_code,
        "transition"
    );
    if to.state == State::Running {
        histogram!("SubmissionToStart").record(to.started_at.unwrap_or(now).since(to.created_at));
    }
    if to.state.is_terminal() {
        counter!("Terminal", "State" => to.state.as_str()).increment(1);
        if let Some(exited_at) = to.container_exited_at {
            histogram!("ExitToRecord").record(now.since(exited_at));
        }
    }
}

/// RunTask was answered, or was not.
pub(crate) fn answered(record: &Record, answer: &LaunchAnswer) {
    let (submission_id, attempt) = (&record.submission_id, record.attempt.get());
    match answer {
        LaunchAnswer::Task { .. } => counter!("Launches").increment(1),
        LaunchAnswer::RefusedForNow(obstacle, reason) => {
            tracing::warn!(%submission_id, attempt, ?obstacle, reason, "RunTask was refused for now");
            refused(reason);
        }
        LaunchAnswer::RefusedForGood(reason) => {
            tracing::warn!(%submission_id, attempt, reason, "RunTask was refused for good");
            refused(reason);
        }
        LaunchAnswer::Unanswered(reason) => {
            tracing::warn!(%submission_id, attempt, reason, "RunTask was not answered");
            refused("Unanswered");
        }
    }
}

/// Counts by the error's code, or the first words of a failure: each value is a metric that costs.
fn refused(reason: &str) {
    const LONGEST: usize = 40;
    let code: String = reason.split(": ").next().unwrap_or_default().chars().take(LONGEST).collect();
    counter!("LaunchRefusals", "Reason" => code).increment(1);
}

/// Logs and counts an alarm.
pub(crate) fn raised(record: &Record, alarm: Option<Alarm>) {
    let submission_id = &record.submission_id;
    let kind = match alarm {
        None => return,
        Some(Alarm::OrphanTask) => {
            tracing::error!(%submission_id, state = %record.state, "stopping a task whose submission has ended");
            "orphan_task"
        }
        Some(Alarm::SecondTask) => {
            tracing::error!(%submission_id, "stopping a second task of one attempt");
            "second_task"
        }
        Some(Alarm::AccessDenied) => {
            tracing::error!(%submission_id, "ECS denies access to RunTask");
            "access_denied"
        }
        Some(Alarm::GivenUp) => {
            tracing::error!(%submission_id, "the submission is lost: ECS did not answer for its task for too long");
            "given_up"
        }
    };
    counter!("Alarms", "Kind" => kind).increment(1);
}

/// How long past its time a record is overdue: reconcile comes every minute.
pub const OVERDUE: Duration = Duration::from_secs(5 * 60);
