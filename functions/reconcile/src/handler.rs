//! One run: all that is due, claimed one by one, until nothing is, or the time is up.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use ecs_bridge_aws::{
    Bridge, BridgeError, DESCRIBED, DueRecord, Settled, TableError, now,
    telemetry::{self, OVERDUE},
};
use ecs_bridge_core::{Action, Input, Record, State, SubmissionId, Timestamp, decide};
use futures_util::{StreamExt, stream};
use serde::Serialize;

/// How long a run goes on finding work; the schedule starts another every minute.
const RUN: Duration = Duration::from_secs(55);

/// What is left for the last calls before Lambda ends the process.
const MARGIN: Duration = Duration::from_secs(20);

/// How far ahead a run looks, and waits, for what will be due: a refusal is tried again within seconds.
const LOOK_AHEAD: Duration = Duration::from_secs(15);

/// The wait where launch tokens are missing, or a round came to nothing: tokens gather meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

/// How many times timers are worked on within the time that a stop may take to be repeated.
const GATHERINGS: u32 = 6;

/// How many rounds in a row may come to nothing before a run ends.
const ROUNDS_FOR_NOTHING: u32 = 3;

/// How many records a round takes from each partition of the index.
const ROUND: i32 = 100;

/// How many records are worked on side by side.
const SIDE_BY_SIDE: usize = 32;

/// What a run did; also its answer.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that were due, claimed by this run.
    pub claimed: usize,
    /// RunTask calls.
    pub launches: usize,
    /// Tasks that DescribeTasks was asked for.
    pub described: usize,
    /// Lookups of unanswered launches.
    pub looked_up: usize,
    /// StopTask calls.
    pub stops: usize,
    /// What ended, or went on, by what this run learnt and no event had told.
    pub repaired: usize,
    /// The most timers that were met more than five minutes late; the launch queue is not counted.
    pub overdue: usize,
    /// Records that could not be worked on now; they stay due.
    pub errors: usize,
    /// Whether something that is due was left for the next run.
    pub unfinished: bool,
}

/// The function's state between runs.
#[derive(Debug)]
pub struct Reconcile {
    /// Table, ECS and rules.
    pub bridge: Bridge,
}

impl Reconcile {
    /// Works on what is due until nothing is, or `deadline` is near.
    ///
    /// # Errors
    /// Where the index cannot be read at all. What was claimed until then is due again when its lease is over.
    pub async fn run(&self, deadline: SystemTime) -> Result<Report, TableError> {
        // One that is over before the start is none at all: `cargo lambda watch` tells a moment in 1970.
        let left = deadline.duration_since(SystemTime::now()).map_or(RUN, |left| left.saturating_sub(MARGIN));
        let until = Instant::now() + left.min(RUN);
        let mut report = Report::default();
        let mut rounds_for_nothing = 0;
        let mut earliest = Instant::now();
        let mut tokens = 0;
        while rounds_for_nothing < ROUNDS_FOR_NOTHING {
            let horizon = now().plus(LOOK_AHEAD);
            let due = self.bridge.table.due(horizon, ROUND).await?;
            let queued = self.bridge.table.queued(horizon, ROUND).await?;
            let Some(first) = due.iter().chain(&queued).map(|record| record.check_at).min() else { break };
            let long_ago = |record: &&DueRecord| now().since(record.check_at) > OVERDUE;
            report.overdue = report.overdue.max(due.iter().filter(long_ago).count());

            // Timers gather for a while, so that a round describes many at once; a launch does not wait for them.
            let gathered = if queued.is_empty() { earliest } else { Instant::now() };
            let at = gathered.max(Instant::now() + first.since(now()));
            if at + PAUSE >= until {
                report.unfinished = true;
                break;
            }
            tokio::time::sleep_until(at.into()).await;
            earliest = at + self.bridge.rules.timers.stop_every / GATHERINGS;

            let claimed = report.claimed;
            let out_of_tokens = self.round(due, queued, &mut tokens, &mut report).await?;
            // Without progress, the index still shows what another claimed, or holds a row that cannot be read.
            rounds_for_nothing = if report.claimed > claimed || out_of_tokens { 0 } else { rounds_for_nothing + 1 };
            if out_of_tokens || rounds_for_nothing > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        telemetry::reconciled(report.repaired, report.overdue);
        tracing::info!(?report, "reconciled");
        Ok(report)
    }

    /// Works once on what is due by now. Answers whether launch tokens were missing.
    ///
    /// `tokens` are those that the rounds before took and did not use: where several runs are at work, the queue's first
    /// are often another's by the time they are claimed, and a launch less than the rate allows is lost for good.
    async fn round(
        &self,
        due: Vec<DueRecord>,
        queued: Vec<DueRecord>,
        tokens: &mut usize,
        report: &mut Report,
    ) -> Result<bool, TableError> {
        let by_now = now();
        let ids = |due: Vec<DueRecord>| -> Vec<SubmissionId> {
            due.into_iter().filter(|record| record.check_at <= by_now).map(|record| record.submission_id).collect()
        };
        let timers = self.bridge.table.get_all(&ids(due)).await?;
        let (mut repeats, mut claims): (Vec<_>, Vec<_>) =
            timers.into_iter().partition(|record| self.would_launch(record, by_now));
        let mut queued = ids(queued);
        let wanted = repeats.len() + queued.len();
        *tokens += self.bridge.launch_tokens(wanted.saturating_sub(*tokens)).await;
        let out_of_tokens = *tokens < wanted;
        repeats.truncate(*tokens);
        // What has a token is read, and no more: however long the queue is, a round costs what it launches.
        queued.truncate(*tokens - repeats.len());
        claims.append(&mut repeats);
        claims.append(&mut self.bridge.table.get_all(&queued).await?);

        let claims = claims.into_iter().map(|record| self.claim(record));
        let mut to_describe = Vec::new();
        for outcome in stream::iter(claims).buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>().await {
            match outcome {
                Ok(Claimed::ToDescribe(record, task_arn)) => to_describe.push((record, task_arn)),
                Ok(Claimed::Done { before, after, action }) => {
                    // One that another left in need of a launch in between has none of its own.
                    *tokens = tokens.saturating_sub(usize::from(matches!(action, Some(Action::RunTask(_)))));
                    report.count(before, &after, action.as_ref());
                }
                Ok(Claimed::ByAnother) => {}
                Err(error) => {
                    // It may have been launched.
                    *tokens = tokens.saturating_sub(1);
                    report.failed(&error);
                }
            }
        }
        self.describe(to_describe, report).await;
        Ok(out_of_tokens)
    }

    fn would_launch(&self, record: &Record, at: Timestamp) -> bool {
        matches!(decide(record, &Input::Due, at, &self.bridge.rules).action, Some(Action::RunTask(_)))
    }

    /// Claims one record and does what is due; all but a description, which is done for many together.
    async fn claim(&self, record: Record) -> Result<Claimed, BridgeError> {
        let before = record.clone();
        let Settled { record, action } = self.bridge.decide(record, &Input::Due).await?;
        if record.rev == before.rev {
            return Ok(Claimed::ByAnother);
        }
        if let Some(Action::Describe { task_arn }) = action {
            return Ok(Claimed::ToDescribe(Box::new(record), task_arn));
        }
        let after = self.bridge.carry_out(Settled { record, action: action.clone() }).await?;
        Ok(Claimed::Done { before: before.state, after: Box::new(after), action })
    }

    /// Describes the tasks of claimed records, in as few calls as there are clusters and hundreds.
    async fn describe(&self, claimed: Vec<(Box<Record>, String)>, report: &mut Report) {
        let mut by_cluster: BTreeMap<String, Vec<(Box<Record>, String)>> = BTreeMap::new();
        for (record, task_arn) in claimed {
            by_cluster.entry(record.cluster.clone()).or_default().push((record, task_arn));
        }
        for (cluster, claimed) in by_cluster {
            for hundred in claimed.chunks(DESCRIBED) {
                self.describe_hundred(&cluster, hundred, report).await;
            }
        }
    }

    async fn describe_hundred(&self, cluster: &str, claimed: &[(Box<Record>, String)], report: &mut Report) {
        let tasks: Vec<_> = claimed.iter().map(|(record, task_arn)| (&**record, task_arn.as_str())).collect();
        report.claimed += claimed.len();
        report.described += claimed.len();
        let inputs = self.bridge.describe_all(cluster, &tasks).await;
        let settles = tasks.into_iter().zip(inputs).map(|((record, _), input)| {
            let (record, before) = (record.clone(), record.state);
            async move { self.bridge.settle(record, input).await.map(|after| (before, after)) }
        });
        for outcome in stream::iter(settles).buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>().await {
            match outcome {
                Ok((before, after)) => report.repaired += usize::from(before != after.state),
                Err(error) => report.failed(&error),
            }
        }
    }
}

/// What came of claiming a record.
enum Claimed {
    /// Another was quicker, or it was not due after all.
    ByAnother,
    /// Its task is to be described.
    ToDescribe(Box<Record>, String),
    /// All that was due is done.
    Done {
        /// Its state before.
        before: State,
        /// As it is now.
        after: Box<Record>,
        /// The first thing that was done.
        action: Option<Action>,
    },
}

impl Report {
    fn count(&mut self, before: State, after: &Record, action: Option<&Action>) {
        self.claimed += 1;
        match action {
            Some(Action::RunTask(_)) => self.launches += 1,
            Some(Action::LookUp(_)) => {
                self.looked_up += 1;
                self.repaired += usize::from(after.state != before);
            }
            Some(Action::Stop { .. }) => self.stops += 1,
            Some(Action::Describe { .. }) | None => {}
        }
    }

    fn failed(&mut self, error: &BridgeError) {
        tracing::error!(%error, "a record could not be worked on; it stays due");
        self.errors += 1;
    }
}
