//! `ecs-bridge pool list` and `ecs-bridge pool set`

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgGroup, Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::bridge::{Bridge, BridgeError, Record, Where};
use crate::output::{self, duration, iso, millis, text};

/// The limit on a pool's runners.
const MOST: i64 = 10_000;

/// List pools with their waiting submissions, runners and limits
#[derive(Args)]
#[command(after_help = "\
STARTED 15M is the number of commands that runners started in the last 15 minutes. WARM % is the share of all started commands \
that found an idle runner. IDLE TIME is the sum of the idle times of the idle runners. TARGET is the number of runners that \
reconcile works towards.")]
pub struct Pools {
    /// Price of a runner per hour, to show the cost of the idle runners
    #[arg(long, value_name = "DOLLARS")]
    price: Option<f64>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

/// List or change pools
#[derive(Args)]
pub struct PoolCommand {
    #[command(subcommand)]
    command: PoolSubcommand,
}

#[derive(Subcommand)]
enum PoolSubcommand {
    List(Pools),
    Set(Set),
}

/// Override the limits of a pool, or pause it; reconcile applies the change within one minute
#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
struct Set {
    /// The profile
    profile: String,
    /// Run up to N runners, from 1 to 10000
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(i64).range(1..=MOST))]
    max: Option<i64>,
    /// Keep at least N idle runners
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(i64).range(0..=MOST))]
    min_idle: Option<i64>,
    /// Launch no runners and dispatch no commands
    #[arg(long, group = "change", conflicts_with = "resume")]
    pause: bool,
    /// End a pause
    #[arg(long, group = "change")]
    resume: bool,
    /// Return to the limits of the profile
    #[arg(long, group = "change", conflicts_with_all = ["max", "min_idle"])]
    reset: bool,
    #[command(flatten)]
    bridge: Where,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum PoolsError {
    /// The bridge failed.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No profile of that name has a pool, or reconcile has not seen it yet.
    #[error("profile \"{profile}\" has no pool; profiles with a pool: {known}")]
    NoPool {
        /// The profile.
        profile: String,
        /// The profiles with a pool.
        known: String,
    },
    /// The limits do not fit together.
    #[error("min_idle is {min_idle}; it must not exceed max, which is {max}: pass --max or --min-idle")]
    Limits {
        /// The idle runners to keep.
        min_idle: i64,
        /// The runners at most.
        max: i64,
    },
    /// Another process wrote the row each time.
    #[error("other processes changed the pool at the same time; try again")]
    Busy,
}

/// The limits of a version of the profile.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Limits {
    max: i64,
    #[serde(default)]
    min_idle: i64,
}

/// Why submissions wait, beyond their turn.
#[derive(Clone, Debug, Deserialize)]
struct WaitReason {
    reason: String,
    /// Nothing serves them.
    #[serde(default)]
    stuck: bool,
}

/// A pool's row.
#[derive(Debug)]
pub struct Row(Record);

impl Row {
    pub fn new(row: Record) -> Self {
        Self(row)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// The row's revision; none if only the runner API has written it.
    pub fn rev(&self) -> Option<i64> {
        self.number("rev")
    }

    pub fn is_paused(&self) -> bool {
        self.0.get("paused").and_then(Value::as_bool).unwrap_or_default()
    }

    /// Why its runners fail to start, if they do.
    pub fn failure(&self) -> Option<&str> {
        self.0.get("failing_since")?;
        Some(self.0.get("failure").and_then(Value::as_str).unwrap_or("they end without a poll"))
    }

    /// The keys in use: that of the profile, those of its earlier versions that something still waits or runs under, and
    /// those that nothing serves.
    fn keys(&self) -> BTreeSet<String> {
        let of = |name: &str| self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        of("specs").chain(of("wait_reasons")).map(|(key, _)| key.clone()).collect()
    }

    /// Why reconcile has found that what waits under a key is not about to be served.
    fn wait_reason(&self, key: &str) -> Option<WaitReason> {
        WaitReason::deserialize(self.0.get("wait_reasons")?.get(key)?).ok()
    }

    /// The keys under which submissions are stuck, with the reasons.
    pub fn stuck(&self) -> BTreeMap<String, String> {
        let stuck = |key: String| self.wait_reason(&key).filter(|it| it.stuck).map(|it| (key, it.reason));
        self.keys().into_iter().filter_map(stuck).collect()
    }

    /// The limits that hold: an operator's, else the profile's.
    fn limits(&self) -> Limits {
        let current = self.0.get("current").and_then(Value::as_str);
        let spec = current.and_then(|key| self.0.get("specs")?.get(key)?.get("pool"));
        let of_profile = spec.and_then(|pool| Limits::deserialize(pool).ok()).unwrap_or_default();
        Limits {
            max: self.number("max").unwrap_or(of_profile.max),
            min_idle: self.number("min_idle").unwrap_or(of_profile.min_idle),
        }
    }

    fn minutes(&self) -> impl Iterator<Item = i64> {
        self.0.get("minutes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_i64)
    }

    /// Who changed the limits last, and when.
    fn changed(&self) -> Option<String> {
        let by = self.0.get("changed_by").and_then(Value::as_str)?;
        Some(format!("changed by {by} at {}", iso(millis(&self.0, "changed_at")?)))
    }
}

/// What a pool has.
#[derive(Debug, Default)]
struct Seen {
    waiting: i64,
    /// Those of them that nothing serves.
    stuck: i64,
    /// How long the oldest has waited, in milliseconds.
    oldest_ms: Option<i64>,
    starting: i64,
    idle: i64,
    busy: i64,
    closing: i64,
    idle_ms: i64,
}

impl Seen {
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

/// What waits under a key.
pub struct Waiting {
    /// The number of submissions.
    pub count: i64,
    /// When the oldest of the first ones was submitted, in epoch milliseconds.
    pub oldest_at: Option<i64>,
}

impl Waiting {
    /// Reads the first ones alone: a later one with a lower priority may be older by up to ten minutes.
    pub async fn read(bridge: &Bridge, key: &str) -> Result<Self, BridgeError> {
        const FIRST: usize = 25;
        let ids = bridge.in_pool(key).await?;
        let first = bridge.records(ids.get(..FIRST).unwrap_or(&ids)).await?;
        let oldest_at = first.iter().filter_map(|record| millis(record, "created_at")).min();
        Ok(Self { count: ids.len() as i64, oldest_at })
    }
}

impl Pools {
    pub fn run(self) -> Result<(), PoolsError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let bridge = self.bridge.find().await?;
            let now = now();
            let mut pools = Vec::new();
            for profile in bridge.pools().await? {
                let row = bridge.pool(&profile).await?;
                let mut seen = Seen::default();
                let stuck = row.stuck();
                for key in row.keys() {
                    let waiting = Waiting::read(&bridge, &key).await?;
                    seen.waiting += waiting.count;
                    seen.stuck += if stuck.contains_key(&key) { waiting.count } else { 0 };
                    seen.oldest_ms = seen.oldest_ms.max(waiting.oldest_at.map(|at| (now - at).max(0)));
                    for record in bridge.records(&bridge.in_pool(&format!("{key}/runners")).await?).await? {
                        seen.runner(&record, now);
                    }
                }
                pools.push((profile, row, seen));
            }
            if self.json {
                let pools: Vec<_> = pools.iter().map(|(profile, row, seen)| shown(profile, row, seen)).collect();
                output::say(json!(pools));
            } else {
                let rows: Vec<_> = pools.iter().map(|(profile, row, seen)| self.row(profile, row, seen)).collect();
                output::say(output::table(HEADINGS, &rows).trim_end());
            }
            Ok(())
        })
    }

    fn row(&self, profile: &str, row: &Row, seen: &Seen) -> [String; 15] {
        let Limits { max, min_idle } = row.limits();
        let failure = || Some(format!("runners fail to start: {}", row.failure()?));
        let stuck: BTreeSet<_> = row.stuck().into_values().map(|reason| format!("stuck: {reason}")).collect();
        let notes =
            [row.is_paused().then(|| "paused".to_owned()), failure().filter(|_| stuck.is_empty()), row.changed()];
        let notes: Vec<_> = stuck.into_iter().chain(notes.into_iter().flatten()).collect();
        let cost = self.price.map(|price| format!(" (${:.2}/h)", price * seen.idle as f64));
        [
            profile.to_owned(),
            seen.waiting.to_string(),
            seen.oldest_ms.map_or_else(|| "-".to_owned(), duration),
            seen.stuck.to_string(),
            seen.starting.to_string(),
            seen.idle.to_string(),
            seen.busy.to_string(),
            seen.closing.to_string(),
            target(row, seen).to_string(),
            max.to_string(),
            min_idle.to_string(),
            row.minutes().sum::<i64>().to_string(),
            warm_percent(row).map_or_else(|| "-".to_owned(), |share| format!("{share:.0}")),
            format!("{}{}", duration(seen.idle_ms), cost.unwrap_or_default()),
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

/// How many runners reconcile wants: no more than `max`, for what runs and waits, and to spare.
fn target(row: &Row, seen: &Seen) -> i64 {
    let Limits { max, min_idle } = row.limits();
    let spare = row.number("to_keep").unwrap_or_default().max(min_idle);
    if row.is_paused() { seen.busy } else { max.min(seen.busy + seen.waiting + spare) }
}

/// The share, in percent, of what was ever taken that found a runner idle.
fn warm_percent(row: &Row) -> Option<f64> {
    let taken = row.number("taken").filter(|taken| *taken > 0)?;
    Some(100.0 * row.number("found_idle").unwrap_or_default() as f64 / taken as f64)
}

fn shown(profile: &str, row: &Row, seen: &Seen) -> Value {
    let Limits { max, min_idle } = row.limits();
    json!({
        "profile": profile, "waiting": seen.waiting, "oldest_seconds": seen.oldest_ms.map(|ms| ms as f64 / 1000.0),
        "stuck": seen.stuck, "wait_reasons": row.0.get("wait_reasons"), "starting": seen.starting, "idle": seen.idle, "busy": seen.busy,
        "closing": seen.closing, "target": target(row, seen), "max": max, "min_idle": min_idle, "paused": row.is_paused(),
        "started_15_minutes": row.minutes().sum::<i64>(), "warm_percent": warm_percent(row),
        "idle_seconds": seen.idle_ms as f64 / 1000.0, "failure": row.failure(),
        "changed_by": row.0.get("changed_by"), "changed_at": row.0.get("changed_at"),
    })
}

impl PoolCommand {
    pub fn run(self) -> Result<(), PoolsError> {
        let set = match self.command {
            PoolSubcommand::List(list) => return list.run(),
            PoolSubcommand::Set(set) => set,
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(set.run())
    }
}

impl Set {
    async fn run(self) -> Result<(), PoolsError> {
        const TRIES: usize = 5;
        let bridge = self.bridge.find().await?;
        let known: BTreeSet<_> = bridge.pools().await?.into_iter().collect();
        if !known.contains(&self.profile) {
            let known = if known.is_empty() { "none".to_owned() } else { Vec::from_iter(known).join(", ") };
            return Err(PoolsError::NoPool { profile: self.profile, known });
        }
        let by = bridge.who().await?;
        for _ in 0..TRIES {
            let row = bridge.pool(&self.profile).await?;
            if bridge.set_pool(&self.profile, row.rev(), &self.changes(&row, &by)?).await? {
                let row = bridge.pool(&self.profile).await?;
                let Limits { max, min_idle } = row.limits();
                let paused = if row.is_paused() { ", paused" } else { "" };
                output::say(format!("{}: max {max}, min_idle {min_idle}{paused}", self.profile));
                return Ok(());
            }
        }
        Err(PoolsError::Busy)
    }

    /// The attributes to set, and those to remove.
    fn changes(&self, row: &Row, by: &str) -> Result<BTreeMap<&'static str, Option<Value>>, PoolsError> {
        let before = row.limits();
        let limits = Limits {
            max: self.max.unwrap_or(before.max),
            min_idle: self.min_idle.unwrap_or(if self.reset { 0 } else { before.min_idle }),
        };
        if limits.min_idle > limits.max {
            return Err(PoolsError::Limits { min_idle: limits.min_idle, max: limits.max });
        }
        let mut changes = BTreeMap::from([("changed_by", Some(json!(by))), ("changed_at", Some(json!(now())))]);
        for (name, value) in [("max", self.max), ("min_idle", self.min_idle)] {
            if self.reset || value.is_some() {
                changes.insert(name, value.map(Value::from));
            }
        }
        if self.pause || self.resume {
            changes.insert("paused", Some(json!(self.pause)));
        }
        Ok(changes)
    }
}

/// What a submission that has not been launched waits for, in words; none for any other.
pub async fn waits_for(bridge: &Bridge, record: &Record) -> Result<Option<String>, BridgeError> {
    if text(record, "state") != "queued" {
        return Ok(None);
    }
    let Some(key) = record.get("pool").and_then(Value::as_str) else {
        return Ok(Some("waits for a launch".to_owned()));
    };
    let row = bridge.pool(&text(record, "profile")).await?;
    let ids = bridge.in_pool(key).await?;
    let id = text(record, "submission_id");
    let place = ids.iter().position(|other| *other == id).map(|at| at + 1);
    Ok(Some(waits(&row, key, place, &ids.len().to_string())))
}

/// What a submission at this place in its pool waits for, `of` so many.
pub fn waits(row: &Row, key: &str, place: Option<usize>, of: &str) -> String {
    let mut words = "waits for a runner".to_owned();
    if let Some(place) = place {
        words += &format!(", place {place} of {of}");
    }
    let reason = row.wait_reason(key);
    if let Some(WaitReason { reason, .. }) = reason.as_ref().filter(|reason| reason.stuck) {
        words += &format!("; stuck: {reason}");
    } else if row.is_paused() {
        words += "; the pool is paused";
    } else if let Some(WaitReason { reason, .. }) = reason {
        words += &format!("; {reason}");
    } else if let Some(failure) = row.failure() {
        words += &format!("; runners fail to start: {failure}");
    }
    words
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(row: Value) -> Row {
        Row(row.as_object().unwrap().clone())
    }

    #[test]
    fn an_operators_limits_hold_before_the_profiles() {
        let specs = json!({"etl#1": {"pool": {"max": 5, "min_idle": 1}}});
        let limits = row(json!({"current": "etl#1", "specs": specs})).limits();
        assert_eq!((limits.max, limits.min_idle), (5, 1));
        let limits = row(json!({"current": "etl#1", "specs": specs, "max": 9, "min_idle": 0})).limits();
        assert_eq!((limits.max, limits.min_idle), (9, 0));
    }

    #[test]
    fn what_waits_says_for_what() {
        let waits = |pool: Value, place, of| waits(&row(pool), "etl#1", place, of);
        assert_eq!(waits(json!({}), Some(3), "17"), "waits for a runner, place 3 of 17");
        assert_eq!(waits(json!({"paused": true}), None, "0"), "waits for a runner; the pool is paused");
        assert_eq!(
            waits(json!({"failing_since": 1, "failure": "no such image"}), Some(1), "1"),
            "waits for a runner, place 1 of 1; runners fail to start: no such image"
        );
        let reason =
            |key: &str, stuck| json!({"paused": true, "wait_reasons": {key: {"reason": "no spec", "stuck": stuck}}});
        assert_eq!(waits(reason("etl#1", true), None, "0"), "waits for a runner; stuck: no spec");
        assert_eq!(waits(reason("etl#1", false), None, "0"), "waits for a runner; the pool is paused");
        assert_eq!(waits(reason("etl#2", true), None, "0"), "waits for a runner; the pool is paused");
    }

    #[test]
    fn keys_that_nothing_serves_are_listed_beside_those_with_runners() {
        let row = row(json!({"specs": {"etl#1": {}}, "wait_reasons": {"etl#1": {"reason": "paused"},
            "etl#2": {"reason": "no spec", "stuck": true}}}));
        assert_eq!(Vec::from_iter(row.keys()), ["etl#1", "etl#2"]);
        assert_eq!(row.stuck(), [("etl#2".to_owned(), "no spec".to_owned())].into());
    }

    #[test]
    fn no_more_runners_are_wanted_than_the_maximum() {
        let pool = |more: Value| {
            let mut row =
                json!({"current": "etl#1", "specs": {"etl#1": {"pool": {"max": 5, "min_idle": 1}}}, "to_keep": 2});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Row(row.as_object().unwrap().clone())
        };
        let seen = Seen { waiting: 1, busy: 1, ..Seen::default() };
        assert_eq!(target(&pool(json!({})), &seen), 4);
        assert_eq!(target(&pool(json!({"max": 3})), &seen), 3);
        assert_eq!(target(&pool(json!({"paused": true})), &seen), 1);
    }
}
