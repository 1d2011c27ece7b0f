//! Metrics, in CloudWatch's embedded format on standard output, and the log of transitions.
//!
//! The namespace is `EcsBridge` and the dimension is `Deployment`. docs/operating.md lists the metrics on which
//! dashboards and alarms depend.

use std::time::Duration;

use ecs_bridge_core::{
    Alarm, Deployment, Input, LaunchAnswer, Record, State, SubmissionId, Timestamp, event::EventError,
    notify::Delivery, task_id,
};
use metrics::{Unit, counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::fmt::{
    SubscriberBuilder,
    format::{Format, Json, JsonFields},
};

/// Starts logging to standard output at `AWS_LAMBDA_LOG_LEVEL` (default `INFO`), as text, or as JSON if
/// `AWS_LAMBDA_LOG_FORMAT` is `JSON`. Lambda sets both.
///
/// Release builds have no `TRACE`, because the SDK would log whole requests, including secrets.
///
/// Filters by module are not supported, because their regular expressions would lengthen each cold start.
pub fn log() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let level = variable("AWS_LAMBDA_LOG_LEVEL").parse().unwrap_or(Level::INFO);
    if variable("AWS_LAMBDA_LOG_FORMAT").eq_ignore_ascii_case("json") {
        json(level).init();
    } else {
        tracing_subscriber::fmt().with_max_level(level).with_target(false).without_time().init();
    }
}

/// Returns the JSON Lines format. Lambda reads `level` and an RFC 3339 `timestamp` from each line. Without a valid
/// timestamp it sets the level to INFO ("Log-level filtering" in the Lambda Developer Guide). The current span
/// appears once per line, because CloudWatch Logs charges by the byte.
fn json(level: Level) -> SubscriberBuilder<JsonFields, Format<Json>, LevelFilter> {
    tracing_subscriber::fmt().with_max_level(level).with_target(false).json().with_span_list(false)
}

/// The metrics of a function. Those of one invocation are written after it.
#[derive(Clone, Copy)]
pub struct Metrics(Option<&'static Collector>);

impl Metrics {
    /// Starts to collect metrics. If this fails, which only happens on a second call, the function runs without
    /// metrics.
    pub fn new(deployment: &Deployment) -> Self {
        let builder =
            Builder::new().cloudwatch_namespace("EcsBridge").with_dimension("Deployment", deployment.to_string());
        let collector = builder.init();
        if let Err(error) = &collector {
            tracing::error!(%error, "no metrics");
        }
        describe_histogram!("SubmissionToStart", Unit::Seconds, "");
        describe_histogram!("ExitToRecord", Unit::Seconds, "");
        describe_gauge!("QueueAge", Unit::Seconds, "");
        Self(collector.ok())
    }

    /// Writes the metrics counted since the last flush.
    pub fn flush(self) {
        if let Some(collector) = self.0
            && let Err(error) = collector.flush(std::io::stdout())
        {
            tracing::error!(%error, "failed to write metrics");
        }
    }
}

/// Counts a new submission.
pub fn accepted(record: &Record) {
    tracing::info!(submission_id = %record.submission_id, to = %record.state(), "accepted");
    counter!("Submissions").increment(1);
}

/// Counts a caller of the runner API that is not the runner it claims to be.
pub fn refused_runner(submission_id: &SubmissionId, reason: &str) {
    tracing::warn!(%submission_id, reason, "refused a caller of the runner API");
    counter!("RunnersRefused").increment(1);
}

/// Counts an event that was ignored because it is invalid. The next check detects the result of its task.
pub fn unusable_event(error: &EventError) {
    tracing::error!(%error, "ignored invalid event");
    counter!("UnusableEvents").increment(1);
}

/// Reports the totals of all pools: waiting submissions, runners that are starting, idle and busy, and pools whose
/// runners have failed to start for long.
pub fn pools(waiting: u32, [starting, idle, busy]: [u32; 3], failing: usize) {
    gauge!("PoolWaiting").set(f64::from(waiting));
    gauge!("RunnersStarting").set(f64::from(starting));
    gauge!("RunnersIdle").set(f64::from(idle));
    gauge!("RunnersBusy").set(f64::from(busy));
    gauge!("PoolsFailing").set(failing as f64);
}

/// Reports the number of submissions that wait in pools and that no runner can serve.
pub fn stuck_in_pools(submissions: u32) {
    gauge!("StuckInPools").set(f64::from(submissions));
}

/// Reports the number of submissions that wait for a launch, the age of the oldest, and the number of profiles
/// without capacity.
pub fn queue(depth: usize, age: Duration, blocked: usize) {
    gauge!("QueueDepth").set(depth as f64);
    gauge!("QueueAge").set(age.as_secs_f64());
    gauge!("ProfilesWithoutCapacity").set(blocked as f64);
}

/// Counts the repairs and overdue records of one reconcile run.
pub fn reconciled(repairs: usize, overdue: usize) {
    counter!("ReconciledSubmissions").increment(repairs as u64);
    gauge!("OverdueChecks").set(overdue as f64);
}

/// Logs a decision before it is written. With the record at this `rev`, it contains the complete input of
/// [`decide`](ecs_bridge_core::decide). The chaos tests replay it (docs/guarantees.md).
pub(crate) fn decided(record: &Record, input: &Input, now: Timestamp) {
    if tracing::enabled!(Level::DEBUG) {
        let masked = match input {
            Input::Resubmitted(notify) => &Input::Resubmitted(notify.clone().masked()),
            other => other,
        };
        let input = serde_json::to_string(masked).unwrap_or_default();
        tracing::debug!(submission_id = %record.submission_id, rev = record.rev, now = now.millis(), input, "decided");
    }
}

/// Logs and counts a delivered or failed notification.
pub(crate) fn delivered(record: &Record, delivery: &Delivery) {
    let submission_id = &record.submission_id;
    match &delivery.error {
        Some(code) => tracing::warn!(%submission_id, code, "notification failed; will retry"),
        None if delivery.event_bus && delivery.task_token => tracing::info!(%submission_id, "notification delivered"),
        None => {}
    }
}

/// Logs and counts a written record.
pub(crate) fn written(from: &Record, to: &Record, now: Timestamp) {
    if from.state() == to.state() {
        return;
    }
    tracing::info!(
        submission_id = %to.submission_id,
        attempt = to.attempt.number.get(),
        from = %from.state(),
        to = %to.state(),
        task = to.attempt.task_arn.as_deref().map(task_id),
        exit_code = to.attempt.exit_code,
        stop_code = to.attempt.stop_code,
        "transition"
    );
    if to.runner().is_some() {
        // It belongs to no submission.
        return;
    }
    if to.state() == State::Running {
        histogram!("SubmissionToStart").record(to.attempt.started_at.unwrap_or(now).since(to.created_at));
    }
    if to.state().is_terminal() {
        counter!("SubmissionsEnded", "State" => to.state().as_str()).increment(1);
        if let Some(exited_at) = to.attempt.container_exited_at {
            histogram!("ExitToRecord").record(now.since(exited_at));
        }
    }
}

/// Logs and counts a RunTask response or its absence.
pub(crate) fn answered(record: &Record, answer: &LaunchAnswer) {
    let (submission_id, attempt) = (&record.submission_id, record.attempt.number.get());
    match answer {
        LaunchAnswer::Task { .. } => {
            counter!("Launches").increment(1);
            if record.attempt.fallback > 0 {
                tracing::info!(%submission_id, attempt, fallback = record.attempt.fallback, "launched with a fallback");
                counter!("FallbackLaunches").increment(1);
            }
        }
        LaunchAnswer::RefusedForNow(blocker, reason) => {
            tracing::warn!(%submission_id, attempt, ?blocker, reason, "RunTask failed; will retry");
            refused(reason);
        }
        LaunchAnswer::RefusedForGood(reason) => {
            tracing::warn!(%submission_id, attempt, reason, "RunTask failed permanently");
            refused(reason);
        }
        LaunchAnswer::Unanswered(reason) => {
            tracing::warn!(%submission_id, attempt, reason, "RunTask got no response");
            refused("Unanswered");
        }
    }
}

/// Counts by the error code, or by the first words of a failure, because each value is a metric that costs money.
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
            tracing::error!(%submission_id, state = %record.state(), "stopping a task whose submission has ended");
            "orphan_task"
        }
        Some(Alarm::SecondTask) => {
            tracing::error!(%submission_id, "stopping a second task of one attempt");
            "second_task"
        }
        Some(Alarm::RefusedTask) => {
            tracing::error!(%submission_id, "adopted a task that ECS had refused to launch");
            "refused_task"
        }
        Some(Alarm::AccessDenied) => {
            tracing::error!(%submission_id, "ECS denies access to RunTask");
            "access_denied"
        }
        Some(Alarm::GivenUp) => {
            tracing::error!(%submission_id, "the submission is lost: ECS did not answer for its task for too long");
            "given_up"
        }
        Some(Alarm::NotificationsFailed) => {
            tracing::error!(%submission_id, "notification failed for a day; giving up");
            "notifications_failed"
        }
        Some(Alarm::IllegalChange(illegal)) => {
            tracing::error!(%submission_id, from = %illegal.from, to = %illegal.to, "state change refused; nothing was written");
            "illegal_change"
        }
    };
    counter!("Anomalies", "Kind" => kind).increment(1);
}

/// The delay after which a record is overdue. Reconcile runs every minute.
pub const OVERDUE: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_log_line_has_timestamp_and_level() {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = json(Level::INFO).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("filtered");
            tracing::info_span!("invoke", requestId = "r").in_scope(|| tracing::warn!(attempt = 2, "refused"));
        });
        let line: serde_json::Value = serde_json::from_slice(&output.0.lock().unwrap()).unwrap();
        assert!(Timestamp::parse_iso(line["timestamp"].as_str().unwrap()).is_some(), "{line}");
        assert_eq!((&line["level"], &line["fields"]["attempt"]), (&"WARN".into(), &2.into()), "{line}");
        assert_eq!(
            (&line["fields"]["message"], &line["span"]["requestId"]),
            (&"refused".into(), &"r".into()),
            "{line}"
        );
    }
}
