//! The size of a row, and how its texts are shortened to fit one write unit.

use serde_json::Value;

use crate::record::Record;

/// The size in bytes that the texts of a record are shortened for: DynamoDB's write unit. The limit holds for clusters
/// and containers with names of usual length.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>
pub const RECORD_BYTES: usize = 1024;

/// The length in bytes below which no text is shortened.
const SHORTEST_TEXT: usize = 16;

impl Record {
    /// Shortens its texts, the longest first, until the row without its request and pending notifications fits into
    /// [`RECORD_BYTES`].
    pub(crate) fn fit(&mut self) {
        let mut excess = self.bytes().saturating_sub(RECORD_BYTES - 1);
        while excess > 0 {
            let texts =
                self.attempts.iter_mut().chain(&mut self.attempt.reason).chain(&mut self.attempt.stopped_reason);
            let texts = texts.chain(self.stop_requested.as_mut().map(|stop| &mut stop.reason));
            let Some(longest) = texts.max_by_key(|text| text.len()).filter(|text| text.len() > SHORTEST_TEXT) else {
                return;
            };
            let before = longest.len();
            cut(longest, before.saturating_sub(excess).max(before / 2).max(SHORTEST_TEXT));
            excess = excess.saturating_sub(before - longest.len());
        }
    }

    /// Returns the size of its row in bytes, without request and pending notifications, as DynamoDB counts it: names and
    /// values in UTF-8; a number as one byte per two digits, and one more; a list or map as 3 bytes, and one more per
    /// entry. The table's `nonce` of 20 digits is included.
    ///
    /// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
    pub fn bytes(&self) -> usize {
        const NONCE: usize = "nonce".len() + 11;
        let bare = Self { request: None, pending_notifications: None, content_hash: None, ..self.clone() };
        let hash = self.content_hash.map_or(0, |hash| "content_hash".len() + hash.0.len());
        NONCE
            + hash
            + match serde_json::to_value(bare) {
                Ok(Value::Object(members)) => {
                    members.iter().map(|(name, value)| name.len() + bytes_of(value)).sum::<usize>()
                }
                Ok(_) | Err(_) => 0,
            }
    }
}

/// Shortens a text to at most `bytes`, at the boundary of a character, and marks the place with an ellipsis.
fn cut(text: &mut String, bytes: usize) {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes {
        let end = bytes.saturating_sub(ELLIPSIS.len());
        text.truncate((0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0));
        text.push_str(ELLIPSIS);
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(number) => number.to_string().len().div_ceil(2) + 1,
        Value::String(text) => text.len(),
        Value::Array(items) => 3 + items.iter().map(|item| 1 + bytes_of(item)).sum::<usize>(),
        Value::Object(members) => {
            3 + members.iter().map(|(name, value)| 1 + name.len() + bytes_of(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{now, rules, submission};

    #[test]
    fn texts_are_shortened_until_the_row_fits() {
        let mut record = Record::queued(submission("cut"), now(), &rules());
        record.attempt.reason = Some("ä".repeat(2000));
        record.attempts = vec!["x".repeat(500); 5];
        record.attempt.stopped_reason = Some("why ".repeat(300));
        record.fit();
        assert!(record.bytes() < RECORD_BYTES, "{}", record.bytes());
        assert!(record.attempt.reason.unwrap().ends_with('…'));
        assert_eq!(record.attempts.len(), 5);
    }
}
