//! `ecs-bridge ps`

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::connection::Client;
use crate::client::find::BridgeOptions;
use crate::client::in_flight::{InFlight, Selection};
use crate::error::CommandError;
use crate::flags::{label, parse_pause, parse_time};
use crate::ids;
use crate::output::{self, duration, now};
use crate::record::{Record, millis, task_id, text};
use crate::wait_reasons::pool_wait_reason;

/// List the submissions that have not ended, with their wait reasons
#[derive(Args)]
#[command(after_help = COST)]
pub struct Ps {
    /// List up to N submissions, in the order in which they are due
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Also list the submissions that ended last
    #[arg(long)]
    all: bool,
    /// With --all, list up to N submissions that have ended
    #[arg(long, value_name = "N", default_value_t = 100, requires = "all")]
    last: usize,
    /// Also list the runners of pools
    #[arg(long)]
    runners: bool,
    /// Only submissions in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = STATES, hide_possible_values = false)]
    state: Vec<String>,
    /// Only submissions of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only submissions with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Only submissions that are older than this: a number of seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    older: Option<Duration>,
    /// Refresh the list at this interval: a number of seconds, or a number with s, m, h or d [default: 2s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", conflicts_with = "json",
          value_parser = parse_pause)]
    watch: Option<Duration>,
    /// Show complete ids, and the columns ATTEMPT, ECS STATUS and TASK, in lines of any width
    #[arg(long)]
    wide: bool,
    /// Write the records as a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

const COST: &str = "\
The column SUBMISSION shows the beginnings of long ids, which other commands accept if they are unambiguous.

A listing takes about 0.6 read units for each submission that it shows. It reads the keys of the other submissions to count \
them, which takes 16 read units per 1,000. With --state, --profile, --label or --older it reads up to 10,000 rows. With --watch \
it does not count, and it reads up to 1,000 rows for each refresh. At an interval of 2 seconds, 200 submissions cost about \
$0.03 per hour, and 1,000 submissions cost about $0.15 per hour (us-east-1, $0.125 per million read units).";

/// The maximum number of rows that a listing with filters reads, and that a refresh reads.
const MOST: usize = 10_000;
const MOST_WATCHED: usize = 1_000;

/// The attributes that are read: all but the request and those that are internal to the bridge.
static ATTRIBUTES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let listed: Vec<Attribute> =
        serde_json::from_str(include_str!("../../../../shared/schema/attributes.json")).unwrap_or_default();
    listed.into_iter().filter(|it| it.readers.contains(&"cli")).map(|it| it.name).collect()
});

/// An attribute of a record, and who reads it.
#[derive(Deserialize)]
struct Attribute {
    name: &'static str,
    readers: Vec<&'static str>,
}

/// Attributes that are read and not shown.
const INTERNAL: [&str; 2] = ["due", "changed_at"];

impl Ps {
    pub fn run(self) -> Result<(), CommandError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = self.bridge.find().await?;
            let Some(pause) = self.watch else { return self.list(&client, "").await };
            loop {
                self.list(&client, CLEAR).await?;
                tokio::time::sleep(pause).await;
            }
        })
    }

    async fn list(&self, client: &Client, before: &str) -> Result<(), CommandError> {
        let (now, limit) = (now(), self.limit as usize);
        let has_filter =
            !(self.state.is_empty() && self.profile.is_none() && self.label.is_empty() && self.older.is_none());
        let max_rows = match (has_filter, self.watch) {
            (true, None) => MOST,
            (true, Some(_)) => MOST_WATCHED,
            (false, None) => limit,
            (false, Some(_)) => limit.min(MOST_WATCHED),
        };
        let selection =
            Selection { limit: limit.min(max_rows), max_rows, runners: self.runners, attributes: &ATTRIBUTES };
        let matches = |record: &Record| self.matches(record, now);
        let InFlight { mut records, has_more, read } = client.first_in_flight(selection, matches).await?;
        records.sort_by_cached_key(|record| millis(record, "created_at"));
        explain(client, &mut records, limit).await?;
        if self.all {
            let ended = client.ended(self.last).await?;
            records.extend(ended.into_iter().filter(matches));
        }
        let more = match (has_more, has_filter) {
            (false, _) => None,
            (true, true) => Some("more submissions may match; raise --limit, or add filters".to_owned()),
            (true, false) if self.watch.is_some() => Some("more submissions are not listed".to_owned()),
            (true, false) => {
                let left = client.count_in_flight(self.runners).await?.saturating_sub(read).max(1);
                Some(format!("{left} more submissions are not listed; raise --limit"))
            }
        };
        if self.json {
            for record in &mut records {
                record.retain(|name, _| !INTERNAL.contains(&name.as_str()));
            }
            output::say(json!(records));
            if let Some(more) = more {
                eprintln!("ecs-bridge: {more}");
            }
        } else {
            let more = more.map(|more| format!("\n{more}")).unwrap_or_default();
            let colors = output::has_colors();
            let table = if self.wide {
                let rows: Vec<_> = records.iter().map(|record| wide_row(record, now)).collect();
                output::colored_table(WIDE_HEADINGS, &rows, colors)
            } else {
                output::colored_table(HEADINGS, &rows(&records, now), colors)
            };
            output::say(format!("{before}{}{more}", table.trim_end()));
        }
        Ok(())
    }

    fn matches(&self, record: &Record, now: i64) -> bool {
        let has_label = |(key, value): &(String, String)| {
            record.get("labels").and_then(|labels| labels.get(key)?.as_str()) == Some(value)
        };
        let age = millis(record, "created_at").map_or(0, |created| now - created);
        (self.state.is_empty() || self.state.contains(&text(record, "state")))
            && self.profile.as_ref().is_none_or(|profile| text(record, "profile") == *profile)
            && self.label.iter().all(has_label)
            && self.older.is_none_or(|older| u128::try_from(age).is_ok_and(|age| age > older.as_millis()))
    }
}

/// Clears a terminal, and moves to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Sets the wait reason of submissions that wait for a runner. Reads up to `limit` rows of each pool.
async fn explain(client: &Client, records: &mut [Record], limit: usize) -> Result<(), CommandError> {
    let (mut places, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for record in records.iter_mut().filter(|record| !record.contains_key("runner")) {
        let Some(key) = record.get("pool").and_then(Value::as_str).map(str::to_owned) else { continue };
        if !places.contains_key(&key) {
            places.insert(key.clone(), Places::read(client, &key, limit).await?);
        }
        let profile = text(record, "profile");
        if !rows.contains_key(&profile) {
            rows.insert(profile.clone(), client.pool(&profile).await?);
        }
        let (Some(row), Some(Places { of, by_id })) = (rows.get(&profile), places.get(&key)) else { continue };
        let place = by_id.get(&text(record, "submission_id")).copied();
        record.insert("reason".to_owned(), pool_wait_reason(row, &key, place, of).into());
    }
    Ok(())
}

/// The first places in a pool.
struct Places {
    /// The number of waiting submissions, as text.
    of: String,
    by_id: HashMap<String, usize>,
}

impl Places {
    async fn read(client: &Client, key: &str, limit: usize) -> Result<Self, CommandError> {
        let (ids, has_more) = client.first_in_pool(key, limit).await?;
        let of = if has_more { format!("more than {}", ids.len()) } else { ids.len().to_string() };
        Ok(Self { of, by_id: ids.into_iter().zip(1..).collect() })
    }
}

/// The states of a submission, in the order of its lifecycle.
const STATES: [&str; 10] =
    ["queued", "launching", "launched", "running", "succeeded", "failed", "rejected", "expired", "cancelled", "lost"];

const HEADINGS: [&str; 7] = ["SUBMISSION", "PROFILE", "LABELS", "STATE", "EXIT", "AGE", "REASON"];

const WIDE_HEADINGS: [&str; 10] =
    ["SUBMISSION", "PROFILE", "LABELS", "STATE", "EXIT", "ATTEMPT", "ECS STATUS", "AGE", "TASK", "REASON"];

/// The width of a table without `--wide`.
const WIDTH: usize = 100;

/// Returns rows that fit into [`WIDTH`]. Profile and labels are cut first, and the reason gets the rest.
fn rows(records: &[Record], now: i64) -> Vec<[String; 7]> {
    const PROFILE: usize = 14;
    const LABELS: usize = 26;
    const LEAST_REASON: usize = 12;
    let ids: Vec<_> = records.iter().map(|record| text(record, "submission_id")).collect();
    let mut rows: Vec<_> = records
        .iter()
        .zip(ids::shorten(&ids))
        .map(|(record, id)| {
            let [_, profile, labels, state, exit, _, _, age, _, reason] = wide_row(record, now);
            [id, output::cut(&profile, PROFILE), output::cut(&labels, LABELS), state, exit, age, reason]
        })
        .collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let [first @ .., _] = widths;
    let used: usize = first.iter().map(|width| width + 2).sum();
    for [.., reason] in &mut rows {
        *reason = output::cut(reason, WIDTH.saturating_sub(used).max(LEAST_REASON));
    }
    rows
}

/// Returns the labels of an Airflow task as `dag.task`, and other labels as they are.
fn labels(record: &Record) -> String {
    let labels = record.get("labels").and_then(Value::as_object);
    let of = |name: &str| labels.and_then(|labels| labels.get(name)?.as_str());
    if let (Some(dag), Some(task)) = (of("dag_id"), of("task_id")) {
        let index = of("map_index").map(|index| format!("[{index}]")).unwrap_or_default();
        return format!("{dag}.{task}{index}");
    }
    let pairs =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let text = pairs.collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}

fn wide_row(record: &Record, now: i64) -> [String; 10] {
    let age = millis(record, "created_at").map_or_else(|| "-".into(), |created| duration(now - created));
    let reason = ["reason", "stopped_reason"].into_iter().find_map(|name| record.get(name).and_then(Value::as_str));
    [
        text(record, "submission_id"),
        text(record, "profile"),
        labels(record),
        text(record, "state"),
        text(record, "exit_code"),
        text(record, "attempt"),
        text(record, "last_status"),
        age,
        task_id(record),
        reason.unwrap_or("-").to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_reads_no_secret_and_no_request() {
        assert!(ATTRIBUTES.contains(&"submission_id") && ATTRIBUTES.contains(&"reason"), "{ATTRIBUTES:?}");
        for hidden in ["request", "content_hash", "pending_notifications"] {
            assert!(!ATTRIBUTES.contains(&hidden), "{hidden}");
        }
    }

    #[test]
    fn rows_fit_the_width_and_name_airflow_tasks() {
        let record = json!({"submission_id": "0b6b1f5c-2f5e-4a53-9a3e-5c7d8e9f0a1b", "profile": "a-profile-with-a-long-name",
            "labels": {"dag_id": "sales", "task_id": "load", "map_index": "3", "run_id": "manual"}, "state": "succeeded",
            "exit_code": 0, "created_at": 0, "reason": "waits for a runner, place 1,234 of 12,345; the pool is paused"});
        let records = [record.as_object().unwrap().clone()];
        let table = output::table(HEADINGS, &rows(&records, 400_000_000));
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        assert!(table.contains("sales.load[3]") && table.contains("0b6b1f5c  "), "{table}");
        assert_eq!(labels(json!({"labels": {"a": "b", "c": "d"}}).as_object().unwrap()), "a=b,c=d");
    }
}
