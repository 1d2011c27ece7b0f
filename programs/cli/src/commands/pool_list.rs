//! `ecs-bridge pool list`

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

use crate::client::find::BridgeOptions;
use crate::client::pool_row::{Limits, PoolRow};
use crate::client::pools::Waiting;
use crate::error::CommandError;
use crate::output::{self, duration, iso, now};
use crate::record::Record;

/// List pools with their waiting submissions, runners and limits
#[derive(Args)]
#[command(after_help = "\
STARTED 15M is the number of commands that runners started in the last 15 minutes. WARM % is the share of all started commands \
that found an idle runner. IDLE TIME is the sum of the idle times of the idle runners. TARGET is the number of runners that \
reconcile works towards.")]
pub struct PoolList {
    /// Price of a runner per hour, to show the cost of the idle runners
    #[arg(long, value_name = "DOLLARS")]
    price: Option<f64>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

/// The submissions and runners of a pool.
#[derive(Debug, Default)]
struct Counts {
    waiting: i64,
    /// The waiting submissions that no runner will serve.
    stuck: i64,
    /// The wait of the oldest submission, in milliseconds.
    oldest_ms: Option<i64>,
    starting: i64,
    idle: i64,
    busy: i64,
    closing: i64,
    idle_ms: i64,
}

impl Counts {
    fn runner(&mut self, record: &Record, now: i64) {
        let runner = record.get("runner").and_then(Value::as_object);
        let has = |name: &str| runner.is_some_and(|runner| runner.contains_key(name));
        if runner.and_then(|runner| runner.get("closing")).and_then(Value::as_bool).unwrap_or_default() {
            self.closing += 1;
        } else if has("serves") {
            self.busy += 1;
        } else if has("incarnation") {
            self.idle += 1;
            let since = runner.and_then(|runner| runner.get("idle_since")).and_then(Value::as_i64);
            self.idle_ms += since.map_or(0, |since| (now - since).max(0));
        } else {
            self.starting += 1;
        }
    }
}

impl PoolList {
    pub fn run(self) -> Result<(), CommandError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = self.bridge.find().await?;
            let now = now();
            let mut pools = Vec::new();
            for profile in client.pools().await? {
                let row = client.pool(&profile).await?;
                let mut counts = Counts::default();
                let stuck = row.stuck();
                for key in row.keys() {
                    let waiting = Waiting::read(&client, &key).await?;
                    counts.waiting += waiting.count;
                    counts.stuck += if stuck.contains_key(&key) { waiting.count } else { 0 };
                    counts.oldest_ms = counts.oldest_ms.max(waiting.oldest_at.map(|at| (now - at).max(0)));
                    for record in client.records(&client.in_pool(&format!("{key}/runners")).await?).await? {
                        counts.runner(&record, now);
                    }
                }
                pools.push((profile, row, counts));
            }
            if self.json {
                let pools: Vec<_> = pools.iter().map(|(profile, row, counts)| shown(profile, row, counts)).collect();
                output::say(json!(pools));
            } else {
                let rows: Vec<_> = pools.iter().map(|(profile, row, counts)| self.row(profile, row, counts)).collect();
                output::say(output::table(HEADINGS, &rows).trim_end());
            }
            Ok(())
        })
    }

    fn row(&self, profile: &str, row: &PoolRow, counts: &Counts) -> [String; 15] {
        let Limits { max, min_idle } = row.limits();
        let failure = || Some(format!("runners fail to start: {}", row.failure()?));
        let stuck: BTreeSet<_> = row.stuck().into_values().map(|reason| format!("stuck: {reason}")).collect();
        let notes =
            [row.is_paused().then(|| "paused".to_owned()), failure().filter(|_| stuck.is_empty()), changed(row)];
        let notes: Vec<_> = stuck.into_iter().chain(notes.into_iter().flatten()).collect();
        let cost = self.price.map(|price| format!(" (${:.2}/h)", price * counts.idle as f64));
        [
            profile.to_owned(),
            counts.waiting.to_string(),
            counts.oldest_ms.map_or_else(|| "-".to_owned(), duration),
            counts.stuck.to_string(),
            counts.starting.to_string(),
            counts.idle.to_string(),
            counts.busy.to_string(),
            counts.closing.to_string(),
            target(row, counts).to_string(),
            max.to_string(),
            min_idle.to_string(),
            row.minutes().sum::<i64>().to_string(),
            warm_percent(row).map_or_else(|| "-".to_owned(), |share| format!("{share:.0}")),
            format!("{}{}", duration(counts.idle_ms), cost.unwrap_or_default()),
            if notes.is_empty() { "-".to_owned() } else { notes.join("; ") },
        ]
    }
}

const HEADINGS: [&str; 15] = [
    "PROFILE",
    "WAITING",
    "OLDEST",
    "STUCK",
    "STARTING",
    "IDLE",
    "BUSY",
    "CLOSING",
    "TARGET",
    "MAX",
    "MIN IDLE",
    "STARTED 15M",
    "WARM %",
    "IDLE TIME",
    "NOTES",
];

/// Returns the number of runners that reconcile works towards: for running and waiting submissions and idle capacity, up to
/// `max`.
fn target(row: &PoolRow, counts: &Counts) -> i64 {
    let Limits { max, min_idle } = row.limits();
    let spare = row.number("to_keep").unwrap_or_default().max(min_idle);
    if row.is_paused() { counts.busy } else { max.min(counts.busy + counts.waiting + spare) }
}

/// Returns the percentage of started commands that found an idle runner.
fn warm_percent(row: &PoolRow) -> Option<f64> {
    let taken = row.number("taken").filter(|taken| *taken > 0)?;
    Some(100.0 * row.number("found_idle").unwrap_or_default() as f64 / taken as f64)
}

/// Returns who changed the limits last, and when.
fn changed(row: &PoolRow) -> Option<String> {
    let (by, at) = (row.get("changed_by")?.as_str()?, row.number("changed_at")?);
    Some(format!("changed by {by} at {}", iso(at)))
}

fn shown(profile: &str, row: &PoolRow, counts: &Counts) -> Value {
    let Limits { max, min_idle } = row.limits();
    json!({
        "profile": profile, "waiting": counts.waiting, "oldest_seconds": counts.oldest_ms.map(|ms| ms as f64 / 1000.0),
        "stuck": counts.stuck, "wait_reasons": row.get("wait_reasons"), "starting": counts.starting, "idle": counts.idle, "busy": counts.busy,
        "closing": counts.closing, "target": target(row, counts), "max": max, "min_idle": min_idle, "paused": row.is_paused(),
        "started_15_minutes": row.minutes().sum::<i64>(), "warm_percent": warm_percent(row),
        "idle_seconds": counts.idle_ms as f64 / 1000.0, "failure": row.failure(),
        "changed_by": row.get("changed_by"), "changed_at": row.get("changed_at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_never_exceeds_max() {
        let pool = |more: Value| {
            let mut row =
                json!({"current": "etl#1", "specs": {"etl#1": {"pool": {"max": 5, "min_idle": 1}}}, "to_keep": 2});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            PoolRow::new(row.as_object().unwrap().clone())
        };
        let counts = Counts { waiting: 1, busy: 1, ..Counts::default() };
        assert_eq!(target(&pool(json!({})), &counts), 4);
        assert_eq!(target(&pool(json!({"max": 3})), &counts), 3);
        assert_eq!(target(&pool(json!({"paused": true})), &counts), 1);
    }
}
