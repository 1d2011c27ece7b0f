//! The hash by which two submissions are the same work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::id::ProfileName;

/// SHA-256 of command, overrides and profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(#[serde(with = "serde_bytes")] pub(super) [u8; 32]);

impl ContentHash {
    /// Hashes a submission. Its deadline and labels do not count, nor does the order of keys in an object.
    pub fn of(command: &[String], overrides: &Value, profile: &ProfileName) -> Self {
        let command = Value::from(command.to_vec());
        let mut digest = Sha256::new();
        for part in [&command, overrides, &Value::from(profile.as_str())] {
            digest.update(canonical(part));
            digest.update([0]);
        }
        Self(digest.finalize().into())
    }
}

/// Writes JSON with the keys of every object in order.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members =
                sorted.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_ignores_order_of_keys_and_nothing_else() {
        let profile = ProfileName::default_profile();
        let hash = |command: &[&str], overrides: &str| {
            let command: Vec<_> = command.iter().map(ToString::to_string).collect();
            ContentHash::of(&command, &serde_json::from_str(overrides).unwrap(), &profile)
        };
        assert_eq!(hash(&["a"], r#"{"x":1,"y":{"b":2,"a":[1]}}"#), hash(&["a"], r#"{"y":{"a":[1],"b":2},"x":1}"#));
        assert_ne!(hash(&["a"], "{}"), hash(&["a", ""], "{}"));
        assert_ne!(hash(&["a", "b"], "{}"), hash(&["ab"], "{}"));
        assert_ne!(hash(&["a"], r#"{"x":[1,2]}"#), hash(&["a"], r#"{"x":[2,1]}"#));
    }
}
