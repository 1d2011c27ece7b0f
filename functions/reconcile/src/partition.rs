//! Reading a partition of the `due` index.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use ecs_bridge_aws::{DueRecord, Page, Table, TableError, now, telemetry::OVERDUE};
use ecs_bridge_core::{SubmissionId, Timestamp};

/// The look-ahead of a run. Rejected launches are retried within seconds.
pub const LOOK_AHEAD: Duration = Duration::from_secs(15);

/// The number of rows per read.
pub const PAGE: usize = 100;

/// A partition of the `due` index. It is read page by page, and from the beginning again after the last page.
#[derive(Debug)]
pub struct Partition {
    /// Its name.
    pub name: String,
    page: Page,
    due: VecDeque<SubmissionId>,
    /// Rows read earlier. The index is eventually consistent and can still show claimed rows, and an unreadable row
    /// must not be processed repeatedly.
    read: HashSet<DueRecord>,
    random: RandomState,
    is_ordered: bool,
    /// The due time of the next row, among those read since the beginning.
    pub next_due: Option<Timestamp>,
    /// Rows that were read more than five minutes late.
    pub overdue: usize,
}

impl Partition {
    /// Creates a partition with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            page: Page::default(),
            due: VecDeque::new(),
            read: HashSet::new(),
            random: RandomState::new(),
            is_ordered: false,
            next_due: None,
            overdue: 0,
        }
    }

    /// Creates a partition whose pages are served in index order. Only rows that are served together are shuffled.
    pub fn in_order(name: impl Into<String>) -> Self {
        Self { is_ordered: true, ..Self::new(name) }
    }

    /// Returns up to `limit` due records, or any records if `all` is set. Returns none at the end, and then restarts
    /// at the beginning.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn next(&mut self, table: &Table, limit: usize, all: bool) -> Result<Vec<SubmissionId>, TableError> {
        while self.due.is_empty() {
            if self.page.is_last() {
                self.next_due = None;
            }
            let at = now();
            let page = std::mem::take(&mut self.page);
            let horizon = if all { Timestamp::MAX } else { at.plus(LOOK_AHEAD) };
            self.page = table.due(&self.name, horizon, PAGE as i32, page).await?;
            self.take_page(if all { horizon } else { at });
            if self.page.is_last() {
                break;
            }
        }
        let mut ids: Vec<_> = self.due.drain(..limit.min(self.due.len())).collect();
        if self.is_ordered {
            self.mix(&mut ids);
        }
        Ok(ids)
    }

    /// Returns the number of due rows that were read and not taken yet.
    pub fn due_len(&self) -> usize {
        self.due.len()
    }

    /// Returns `true` if more rows may be due.
    pub fn has_more(&self) -> bool {
        !self.due.is_empty() || !self.page.is_last()
    }

    /// Shuffles the rows differently from other runs, so that two runs rarely claim the same row.
    fn mix<T: Hash>(&self, rows: &mut [T]) {
        rows.sort_by_cached_key(|row| self.random.hash_one(row));
    }

    fn take_page(&mut self, at: Timestamp) {
        let mut page: Vec<_> = std::mem::take(&mut self.page.records);
        page.retain(|record| !self.read.contains(record));
        let later = page.partition_point(|record| record.check_at <= at);
        self.next_due = self.next_due.or(page.get(later).map(|record| record.check_at));
        page.truncate(later);
        if !self.is_ordered {
            self.mix(&mut page);
        }
        self.overdue += page.iter().filter(|record| now().since(record.check_at) > OVERDUE).count();
        self.due.extend(page.iter().map(|record| record.submission_id.clone()));
        self.read.extend(page);
    }
}

#[cfg(test)]
mod tests {
    use ecs_bridge_core::{
        capacity::Shape,
        record::{DUE_SHARDS, QUEUE, REPEAT, RUNNERS, waiting},
    };
    use serde_json::{Value, json};

    /// The CLI and the Airflow UI plugin read the same partitions, and are tested against the same file.
    #[test]
    fn served_partitions_are_those_listed_for_readers() {
        let listed: Value = serde_json::from_str(include_str!("../../../tests/fixtures/due_partitions.json")).unwrap();
        let shards = (0..DUE_SHARDS).map(|shard| shard.to_string());
        let served: Vec<_> = shards.chain([QUEUE, REPEAT, RUNNERS].map(str::to_owned)).collect();
        assert_eq!(listed["partitions"], json!(served));
        assert_eq!(listed["runners"], RUNNERS);
        let option = Shape { profile: "etl".parse().unwrap(), placement: None }.choice(1);
        assert_eq!(waiting(&option), format!("{}{option}", listed["waiting_prefix"].as_str().unwrap()));
    }
}
