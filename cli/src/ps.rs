//! `ecs-bridge ps`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::bridge::{Bridge, Record, Where, now};
use crate::output::{self, duration, millis, parse_time, text};
use crate::pools::waits;
use crate::show::ShowError;
use crate::submit::label;

/// List the submissions that have not ended, with what waits and for what
#[derive(Args)]
pub struct Ps {
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

/// Attributes that are internal to the bridge.
const INTERNAL: [&str; 9] =
    ["outbox", "request", "content_hash", "nonce", "rev", "due", "check_at", "feed", "changed_at"];

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
        let mut records = bridge.in_flight().await?;
        records.retain(|record| self.runners || !record.contains_key("runner"));
        records.sort_by_key(|record| millis(record, "created_at"));
        explain(bridge, &mut records).await?;
        if self.all {
            records.extend(bridge.ended(self.last).await?);
        }
        let now = now();
        records.retain(|record| self.is_asked_for(record, now));
        if self.json {
            for record in &mut records {
                record.retain(|name, _| !INTERNAL.contains(&name.as_str()));
            }
            output::say(json!(records));
        } else {
            let rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
            output::say(format!("{before}{}", output::table(HEADINGS, &rows).trim_end()));
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

/// Adds what it waits for, as its reason, to what waits for a runner.
async fn explain(bridge: &Bridge, records: &mut [Record]) -> Result<(), ShowError> {
    let mut places: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    let waiting = |record: &Record| Some((record.get("pool")?.as_str()?.to_owned(), millis(record, "rank")?));
    for record in records.iter().filter(|record| !record.contains_key("runner")) {
        if let Some((pool, rank)) = waiting(record) {
            places.entry(pool).or_default().push((rank, text(record, "submission_id")));
        }
    }
    places.values_mut().for_each(|places| places.sort());
    let mut rows = BTreeMap::new();
    for record in records.iter_mut().filter(|record| !record.contains_key("runner")) {
        let Some((pool, _)) = waiting(record) else { continue };
        let profile = text(record, "profile");
        if !rows.contains_key(&profile) {
            rows.insert(profile.clone(), bridge.pool(&profile).await?);
        }
        let (Some(row), Some(places)) = (rows.get(&profile), places.get(&pool)) else { continue };
        let id = text(record, "submission_id");
        let place = places.iter().position(|(_, other)| *other == id).map(|at| at + 1);
        record.insert("reason".to_owned(), waits(row, &pool, place, places.len()).into());
    }
    Ok(())
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
