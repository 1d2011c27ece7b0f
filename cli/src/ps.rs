//! `ecs-bridge ps`

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::bridge::{Bridge, InFlight, Record, Wanted, Where, now};
use crate::output::{self, duration, millis, parse_time, text};
use crate::pools::waits;
use crate::show::ShowError;
use crate::submit::label;

/// List the submissions that have not ended, with what waits and for what
#[derive(Args)]
#[command(after_help = COST)]
pub struct Ps {
    /// The number of submissions to list at most, those that are due first
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Also list those that ended last
    #[arg(long)]
    all: bool,
    /// The number of ended ones to list at most
    #[arg(long, value_name = "N", default_value_t = 100, requires = "all")]
    last: usize,
    /// Also list the runners of pools
    #[arg(long)]
    runners: bool,
    /// Only submissions in this state; may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only submissions of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only submissions with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Only submissions that are older than this: a number and s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    older: Option<Duration>,
    /// List them anew every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", conflicts_with = "json",
          value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// Write the records as a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

const COST: &str = "\
A listing reads its rows and their places in the indexes, eventually consistent: about 0.6 read units for each submission \
that it lists, and the keys of the others to count them, 16 read units for each 1,000. With --state, --profile, --label or \
--older it reads up to 10,000 rows to find those. With --watch it counts none and reads up to 1,000 rows each time. Every 2 \
seconds, 200 submissions cost about $0.03 an hour and 1,000 about $0.15 (us-east-1, $0.125 a million); every second, twice \
that.";

/// The number of rows that a listing with filters reads at most, and one that is repeated.
const MOST: usize = 10_000;
const MOST_WATCHED: usize = 1_000;

/// What is read of a row: everything but the request and what is internal to the bridge.
const ATTRIBUTES: [&str; 55] = [
    "submission_id",
    "profile",
    "container_name",
    "cluster",
    "state",
    "attempt",
    "attempts",
    "fallback",
    "labels",
    "priority",
    "policy",
    "launch_deadline",
    "created_at",
    "updated_at",
    "launched_at",
    "started_at",
    "container_exited_at",
    "stopped_at",
    "changed_at",
    "task_arn",
    "ecs_version",
    "last_status",
    "desired_status",
    "runs_on",
    "cpu",
    "memory",
    "exit_code",
    "stop_code",
    "stopped_reason",
    "stop_requested",
    "reason",
    "hint",
    "refusals",
    "launch_calls",
    "unanswered_since",
    "denied_since",
    "no_capacity_since",
    "due",
    "pool",
    "rank",
    "pooled",
    "runner",
    "schema",
    "first_choice",
    "given_up",
    "uncounted",
    "last_call_at",
    "lookups",
    "looked_up_at",
    "missing_count",
    "missing_at",
    "seen_running",
    "ran_before",
    "notified",
    "lookup_failed_since",
];

/// Attributes that are read and not shown.
const INTERNAL: [&str; 2] = ["due", "changed_at"];

impl Ps {
    pub fn run(self) -> Result<(), ShowError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let bridge = self.bridge.find().await?;
            let Some(seconds) = self.watch else { return self.list(&bridge, "").await };
            loop {
                self.list(&bridge, CLEAR).await?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        })
    }

    async fn list(&self, bridge: &Bridge, before: &str) -> Result<(), ShowError> {
        let (now, limit) = (now(), self.limit as usize);
        let has_filter =
            !(self.state.is_empty() && self.profile.is_none() && self.label.is_empty() && self.older.is_none());
        let most = match (has_filter, self.watch) {
            (true, None) => MOST,
            (true, Some(_)) => MOST_WATCHED,
            (false, None) => limit,
            (false, Some(_)) => limit.min(MOST_WATCHED),
        };
        let wanted = Wanted { limit: limit.min(most), most, runners: self.runners, attributes: &ATTRIBUTES };
        let is_wanted = |record: &Record| self.is_asked_for(record, now);
        let InFlight { mut records, has_more, read } = bridge.first_in_flight(wanted, is_wanted).await?;
        records.sort_by_cached_key(|record| millis(record, "created_at"));
        explain(bridge, &mut records, limit).await?;
        if self.all {
            let ended = bridge.ended(self.last).await?;
            records.extend(ended.into_iter().filter(is_wanted));
        }
        let more = match (has_more, has_filter) {
            (false, _) => None,
            (true, true) => Some("more may match: use --limit, or other filters".to_owned()),
            (true, false) if self.watch.is_some() => Some("more are not listed".to_owned()),
            (true, false) => {
                let left = bridge.count_in_flight(self.runners).await?.saturating_sub(read).max(1);
                Some(format!("{left} more are not listed: use --limit"))
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
            let rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
            let more = more.map(|more| format!("\n{more}")).unwrap_or_default();
            output::say(format!("{before}{}{more}", output::table(HEADINGS, &rows).trim_end()));
        }
        Ok(())
    }

    fn is_asked_for(&self, record: &Record, now: i64) -> bool {
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

/// Clears a terminal, and begins at its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Adds what it waits for, as its reason, to what waits for a runner. It reads no more than `limit` places of each pool.
async fn explain(bridge: &Bridge, records: &mut [Record], limit: usize) -> Result<(), ShowError> {
    let (mut places, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for record in records.iter_mut().filter(|record| !record.contains_key("runner")) {
        let Some(key) = record.get("pool").and_then(Value::as_str).map(str::to_owned) else { continue };
        if !places.contains_key(&key) {
            places.insert(key.clone(), Places::read(bridge, &key, limit).await?);
        }
        let profile = text(record, "profile");
        if !rows.contains_key(&profile) {
            rows.insert(profile.clone(), bridge.pool(&profile).await?);
        }
        let (Some(row), Some(Places { of, by_id })) = (rows.get(&profile), places.get(&key)) else { continue };
        let place = by_id.get(&text(record, "submission_id")).copied();
        record.insert("reason".to_owned(), waits(row, &key, place, of).into());
    }
    Ok(())
}

/// The first places in a pool.
struct Places {
    /// How many there are, in words.
    of: String,
    by_id: HashMap<String, usize>,
}

impl Places {
    async fn read(bridge: &Bridge, key: &str, limit: usize) -> Result<Self, ShowError> {
        let (ids, has_more) = bridge.first_in_pool(key, limit).await?;
        let of = if has_more { format!("more than {}", ids.len()) } else { ids.len().to_string() };
        Ok(Self { of, by_id: ids.into_iter().zip(1..).collect() })
    }
}

const HEADINGS: [&str; 8] = ["SUBMISSION", "STATE", "EXIT", "ATTEMPT", "ECS STATUS", "AGE", "TASK", "REASON"];

fn row(record: &Record, now: i64) -> [String; 8] {
    let age = millis(record, "created_at").map_or_else(|| "-".into(), |created| duration(now - created));
    let reason = ["reason", "stopped_reason"].into_iter().find_map(|name| record.get(name).and_then(Value::as_str));
    [
        text(record, "submission_id"),
        text(record, "state"),
        text(record, "exit_code"),
        text(record, "attempt"),
        text(record, "last_status"),
        age,
        output::task_id(record),
        reason.unwrap_or("-").to_owned(),
    ]
}
