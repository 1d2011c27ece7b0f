//! The row of a pool: limits, pool keys in use, and wait reasons.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::record::Record;

/// The limits of a pool.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Limits {
    /// The maximum number of runners.
    pub max: i64,
    /// The minimum number of idle runners.
    #[serde(default)]
    pub min_idle: i64,
}

/// The reason why submissions wait, except for their place in the queue.
#[derive(Clone, Debug, Deserialize)]
pub struct WaitReason {
    /// The reason, for people.
    pub reason: String,
    /// `true` if no runner will serve them.
    #[serde(default)]
    pub stuck: bool,
}

/// The row of a pool.
#[derive(Debug)]
pub struct PoolRow(Record);

impl PoolRow {
    /// Creates a row from its attributes.
    pub fn new(row: Record) -> Self {
        Self(row)
    }

    /// Returns a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// Returns the revision of the row, or none if only the runner API has written it.
    pub fn rev(&self) -> Option<i64> {
        self.number("rev")
    }

    /// Returns `true` if an operator has paused the pool.
    pub fn is_paused(&self) -> bool {
        self.0.get("paused").and_then(Value::as_bool).unwrap_or_default()
    }

    /// Returns the reason why runners fail to start, if they do.
    pub fn failure(&self) -> Option<&str> {
        self.0.get("failing_since")?;
        Some(self.0.get("failure").and_then(Value::as_str).unwrap_or("they end without a poll"))
    }

    /// Returns the keys in use: that of the profile, those of earlier versions that still have submissions or runners, and
    /// those that no runner serves.
    pub fn keys(&self) -> BTreeSet<String> {
        let of = |name: &str| self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        of("specs").chain(of("wait_reasons")).map(|(key, _)| key.clone()).collect()
    }

    /// Returns the reason that reconcile found for submissions that wait under a key.
    pub fn wait_reason(&self, key: &str) -> Option<WaitReason> {
        WaitReason::deserialize(self.0.get("wait_reasons")?.get(key)?).ok()
    }

    /// Returns the keys under which submissions are stuck, with the reasons.
    pub fn stuck(&self) -> BTreeMap<String, String> {
        let stuck = |key: String| self.wait_reason(&key).filter(|it| it.stuck).map(|it| (key, it.reason));
        self.keys().into_iter().filter_map(stuck).collect()
    }

    /// Returns the limits of the operator, or those of the profile.
    pub fn limits(&self) -> Limits {
        let current = self.0.get("current").and_then(Value::as_str);
        let spec = current.and_then(|key| self.0.get("specs")?.get(key)?.get("pool"));
        let of_profile = spec.and_then(|pool| Limits::deserialize(pool).ok()).unwrap_or_default();
        Limits {
            max: self.number("max").unwrap_or(of_profile.max),
            min_idle: self.number("min_idle").unwrap_or(of_profile.min_idle),
        }
    }

    /// Returns the numbers of started commands in the last minutes.
    pub fn minutes(&self) -> impl Iterator<Item = i64> {
        self.0.get("minutes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_i64)
    }

    /// Returns an attribute as it is.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(row: Value) -> PoolRow {
        PoolRow::new(row.as_object().unwrap().clone())
    }

    #[test]
    fn operator_limits_override_profile_limits() {
        let specs = json!({"etl#1": {"pool": {"max": 5, "min_idle": 1}}});
        let limits = row(json!({"current": "etl#1", "specs": specs})).limits();
        assert_eq!((limits.max, limits.min_idle), (5, 1));
        let limits = row(json!({"current": "etl#1", "specs": specs, "max": 9, "min_idle": 0})).limits();
        assert_eq!((limits.max, limits.min_idle), (9, 0));
    }

    #[test]
    fn unserved_keys_are_listed_with_served_keys() {
        let row = row(json!({"specs": {"etl#1": {}}, "wait_reasons": {"etl#1": {"reason": "paused"},
            "etl#2": {"reason": "no spec", "stuck": true}}}));
        assert_eq!(Vec::from_iter(row.keys()), ["etl#1", "etl#2"]);
        assert_eq!(row.stuck(), [("etl#2".to_owned(), "no spec".to_owned())].into());
    }
}
