//! `ecs-bridge stats`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::client::find::BridgeOptions;
use crate::error::CommandError;
use crate::flags::parse_time;
use crate::output::{self, duration, now};
use crate::record::{Record, millis, text};

/// Show counts, durations and usage of submissions
///
/// Reads submissions that have not ended, and those that ended recently, from the indexes of the table. Usage is that of the
/// last attempt, from its launch to the end of its task and at least one minute, as Fargate counts. Dollars are for tasks on
/// Fargate only, at the given prices.
#[derive(Args)]
pub struct Stats {
    /// Count submissions that ended within this time: a number of seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    since: Duration,
    /// Read up to N submissions that have ended, the newest first
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    most: usize,
    /// Only submissions of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Sum the usage by this label, such as dag_id
    #[arg(long, value_name = "LABEL")]
    by: Option<String>,
    /// Dollars per vCPU and hour on Fargate, to estimate the cost of the usage
    #[arg(long, value_name = "USD", requires = "gb_hour", help_heading = "Prices")]
    vcpu_hour: Option<f64>,
    /// Dollars per GB of memory and hour on Fargate
    #[arg(long, value_name = "USD", requires = "vcpu_hour", help_heading = "Prices")]
    gb_hour: Option<f64>,
    /// Discount of Fargate Spot, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, help_heading = "Prices")]
    spot_discount: f64,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

fn percent(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).ok_or("must be a number from 0 to 100")
}

/// The times between two moments of a submission, by the attributes that hold them.
const SPANS: [(&str, &str, &str); 5] = [
    ("submitted to launched", "created_at", "launched_at"),
    ("launched to started", "launched_at", "started_at"),
    ("submitted to started", "created_at", "started_at"),
    ("started to exited", "started_at", "container_exited_at"),
    ("exited to recorded", "container_exited_at", "changed_at"),
];

/// The shortest time that Fargate bills for a task, in milliseconds.
const LEAST: i64 = 60_000;

impl Stats {
    pub fn run(self) -> Result<(), CommandError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = self.bridge.find().await?;
            let since = now() - i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX);
            let mut records = client.in_flight().await?;
            let ended = client.ended_since(since, self.most).await?;
            let is_cut = ended.len() >= self.most;
            records.extend(ended);
            records.retain(|record| {
                let is_asked_for = self.profile.as_deref().is_none_or(|it| record.get("profile") == Some(&it.into()));
                is_asked_for && !record.contains_key("runner")
            });
            let summary = Summary::of(&records, self.by.as_deref(), |usage| self.dollars(usage));
            if self.json {
                output::say(summary.json(is_cut));
            } else {
                output::say(summary.text(self.by.as_deref(), is_cut).trim_end());
            }
            Ok(())
        })
    }

    fn dollars(&self, usage: &Usage) -> Option<f64> {
        let (vcpu, gb) = (self.vcpu_hour?, self.gb_hour?);
        let price = |hours: Hours| hours.vcpu * vcpu + hours.gb * gb;
        Some(price(usage.on_demand) + price(usage.spot) * (1.0 - self.spot_discount / 100.0))
    }
}

/// Hours of vCPUs and of GB of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Hours {
    vcpu: f64,
    gb: f64,
}

/// The usage of submissions with the same label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    submissions: usize,
    /// On Fargate.
    on_demand: Hours,
    /// On Fargate Spot.
    spot: Hours,
    /// On other capacity, which has no price of its own.
    other: Hours,
    /// Submissions of unknown size or times: not launched, run by a pool, or recorded by an older version.
    unknown: usize,
}

impl Usage {
    fn add(&mut self, record: &Record) {
        self.submissions += 1;
        let number = |name| record.get(name).and_then(Value::as_f64);
        let begin = millis(record, "launched_at");
        let end = ["stopped_at", "container_exited_at"].into_iter().find_map(|name| millis(record, name));
        let (Some(cpu), Some(memory), Some(begin)) = (number("cpu"), number("memory"), begin) else {
            self.unknown += 1;
            return;
        };
        let hours = (end.unwrap_or_else(now) - begin).max(LEAST) as f64 / 3_600_000.0;
        let of = match record.get("runs_on").and_then(Value::as_str) {
            Some("FARGATE") => &mut self.on_demand,
            Some("FARGATE_SPOT") => &mut self.spot,
            Some(_) | None => &mut self.other,
        };
        of.vcpu += cpu / 1024.0 * hours;
        of.gb += memory / 1024.0 * hours;
    }

    fn total(&self) -> Hours {
        let of = [self.on_demand, self.spot, self.other];
        Hours { vcpu: of.iter().map(|of| of.vcpu).sum(), gb: of.iter().map(|of| of.gb).sum() }
    }
}

/// The figures that are shown.
struct Summary {
    states: BTreeMap<String, usize>,
    profiles: BTreeMap<String, usize>,
    spans: Vec<(&'static str, Vec<i64>)>,
    usage: Vec<(String, Usage, Option<f64>)>,
}

impl Summary {
    fn of(records: &[Record], by: Option<&str>, dollars: impl Fn(&Usage) -> Option<f64>) -> Self {
        let count = |name: &str| {
            let mut counts = BTreeMap::new();
            records.iter().for_each(|record| *counts.entry(text(record, name)).or_default() += 1);
            counts
        };
        let span = |from: &str, to: &str| {
            let both = records.iter().filter_map(|record| Some(millis(record, to)? - millis(record, from)?));
            // The clocks of AWS services differ slightly.
            let mut span: Vec<_> = both.map(|span| span.max(0)).collect();
            span.sort_unstable();
            span
        };
        let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
        for record in records {
            let label = |by: &str| record.get("labels").and_then(|labels| labels.get(by)?.as_str());
            let key = by.map_or("all", |by| label(by).unwrap_or("-"));
            usage.entry(key.to_owned()).or_default().add(record);
        }
        let mut usage: Vec<_> = usage.into_iter().map(|(key, usage)| (key, usage, dollars(&usage))).collect();
        // The largest usage comes first.
        usage.sort_by(|(_, one, _), (_, other, _)| other.total().vcpu.total_cmp(&one.total().vcpu));
        Self {
            states: count("state"),
            profiles: count("profile"),
            spans: SPANS.into_iter().map(|(name, from, to)| (name, span(from, to))).collect(),
            usage,
        }
    }

    fn json(&self, is_cut: bool) -> Value {
        let spans = self.spans.iter().filter(|(_, span)| !span.is_empty()).map(|(name, span)| {
            let at = |share| percentile(span, share);
            (
                name.replace(' ', "_"),
                json!({"count": span.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "max_ms": at(1.0)}),
            )
        });
        let usage = self.usage.iter().map(|(key, usage, dollars)| {
            let hours = |hours: Hours| json!({"vcpu_hours": hours.vcpu, "gb_hours": hours.gb});
            json!({"label": key, "submissions": usage.submissions, "unknown": usage.unknown, "dollars": dollars,
                   "fargate": hours(usage.on_demand), "fargate_spot": hours(usage.spot), "other": hours(usage.other)})
        });
        json!({"states": self.states, "profiles": self.profiles, "incomplete": is_cut,
               "times": spans.collect::<serde_json::Map<_, _>>(), "usage": usage.collect::<Vec<_>>()})
    }

    fn text(&self, by: Option<&str>, is_cut: bool) -> String {
        let counts = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("states    {}\nprofiles  {}\n", counts(&self.states), counts(&self.profiles));
        if is_cut {
            text.push_str("There are more that ended in this time: see --most.\n");
        }
        let rows = self.spans.iter().filter(|(_, span)| !span.is_empty()).map(|(name, span)| {
            let at = |share| duration(percentile(span, share));
            [(*name).to_owned(), span.len().to_string(), at(0.5), at(0.95), at(1.0)]
        });
        text += &format!("\n{}", output::table(["TIME", "COUNT", "P50", "P95", "MAX"], &rows.collect::<Vec<_>>()));
        if let Some((name, span)) = self.spans.get(2).filter(|(_, span)| !span.is_empty()) {
            text += &format!("\n{name}\n{}", plot(span));
        }
        let rows = self.usage.iter().map(|(key, usage, dollars)| {
            let Hours { vcpu, gb } = usage.total();
            let spot = if vcpu > 0.0 { format!("{:.0} %", usage.spot.vcpu / vcpu * 100.0) } else { "-".to_owned() };
            let dollars = dollars.map_or_else(|| "-".to_owned(), |dollars| format!("${dollars:.4}"));
            let count = |count: usize| count.to_string();
            [
                key.clone(),
                count(usage.submissions),
                format!("{vcpu:.3}"),
                format!("{gb:.3}"),
                spot,
                dollars,
                count(usage.unknown),
            ]
        });
        let label = by.unwrap_or("label").to_ascii_uppercase();
        let headings = [&label, "SUBMISSIONS", "VCPU HOURS", "GB HOURS", "ON SPOT", "FARGATE COST", "SIZE UNKNOWN"];
        text + &format!("\n{}", output::table(headings, &rows.collect::<Vec<_>>()))
    }
}

/// Returns the smallest value that this share of the values does not exceed. `sorted` is not empty.
fn percentile(sorted: &[i64], share: f64) -> i64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Plots the number of durations in classes, each twice as long as the one before.
fn plot(sorted: &[i64]) -> String {
    const WIDTH: usize = 40;
    let class = |millis: i64| (millis.max(125) as f64 / 125.0).log2().ceil() as u32;
    let mut classes: BTreeMap<u32, usize> = BTreeMap::new();
    sorted.iter().for_each(|&millis| *classes.entry(class(millis)).or_default() += 1);
    let most = classes.values().copied().max().unwrap_or(1);
    let (Some((&first, _)), Some((&last, _))) = (classes.first_key_value(), classes.last_key_value()) else {
        return String::new();
    };
    let rows = (first..=last).map(|class| {
        let count = classes.get(&class).copied().unwrap_or_default();
        let bar = "▇".repeat((count * WIDTH).div_ceil(most));
        format!("  up to {:>7}  {bar} {count}\n", duration(125 << class))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(runs_on: &str, minutes: i64) -> Record {
        let value = json!({"state": "succeeded", "profile": "default", "labels": {"dag_id": "etl"}, "runs_on": runs_on,
            "cpu": 512, "memory": 2048, "created_at": 0, "launched_at": 1_000, "started_at": 31_000,
            "stopped_at": 1_000 + minutes * 60_000});
        value.as_object().unwrap().clone()
    }

    #[test]
    fn usage_counts_at_least_one_minute() {
        let mut usage = Usage::default();
        usage.add(&record("FARGATE", 60));
        usage.add(&record("FARGATE_SPOT", 0));
        usage.add(&record("my-instances", 120));
        usage.add(&Record::new());
        assert_eq!(usage.on_demand, Hours { vcpu: 0.5, gb: 2.0 });
        assert_eq!(usage.spot, Hours { vcpu: 0.5 / 60.0, gb: 2.0 / 60.0 });
        assert_eq!(usage.other, Hours { vcpu: 1.0, gb: 4.0 });
        assert_eq!((usage.submissions, usage.unknown), (4, 1));
    }

    #[test]
    fn percentile_is_an_observed_value() {
        let sorted: Vec<_> = (1..=100).collect();
        assert_eq!([0.5, 0.95, 1.0].map(|share| percentile(&sorted, share)), [50, 95, 100]);
        assert_eq!(percentile(&[7], 0.5), 7);
    }

    #[test]
    fn plot_has_one_bar_per_class() {
        assert_eq!(plot(&[100, 1_900, 2_000, 7_000]).lines().count(), 7);
        assert!(plot(&[100, 1_900, 2_000, 7_000]).contains("up to    2.0s  ▇▇"));
    }

    #[test]
    fn usage_by_label_is_sorted_descending() {
        let mut other = record("FARGATE", 600);
        other.insert("labels".to_owned(), json!({"dag_id": "big"}));
        let summary =
            Summary::of(&[record("FARGATE", 60), other, record("FARGATE", 60)], Some("dag_id"), |_| Some(1.0));
        let keys: Vec<_> = summary.usage.iter().map(|(key, usage, _)| (key.as_str(), usage.submissions)).collect();
        assert_eq!(keys, [("big", 1), ("etl", 2)]);
        assert!(summary.text(Some("dag_id"), false).contains("$1.0000"));
    }
}
