//! Reading a partition of the `due` index.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use ecs_bridge_aws::{DueRecord, Page, Table, TableError, now, telemetry::OVERDUE};
use ecs_bridge_core::{SubmissionId, Timestamp};

/// How far ahead a run looks for what will be due: what was refused is launched again within seconds.
pub const LOOK_AHEAD: Duration = Duration::from_secs(15);

/// How many rows are read at a time.
pub const PAGE: usize = 100;

/// A partition of the `due` index, read page after page, and from its beginning again after the last.
#[derive(Debug)]
pub struct Partition {
    /// Its name.
    pub name: String,
    page: Page,
    due: VecDeque<SubmissionId>,
    /// What was read before. The index is eventually consistent, and shows for a while what was claimed since; and a
    /// row that cannot be read must not be met again and again.
    read: HashSet<DueRecord>,
    random: RandomState,
    is_ordered: bool,
    /// When the next row is due, of those read since the beginning.
    pub next_due: Option<Timestamp>,
    /// How many rows were read more than five minutes late.
    pub overdue: usize,
}

impl Partition {
    /// The partition of this name.
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

    /// The partition of this name, whose rows are served in their order: only those that are served together are mixed.
    pub fn in_order(name: impl Into<String>) -> Self {
        Self { is_ordered: true, ..Self::new(name) }
    }

    /// Up to `limit` of what is due by now, or of `all`; none at the end, after which it starts at the beginning.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// How many rows were read that are due, and not taken yet.
    pub fn due_len(&self) -> usize {
        self.due.len()
    }

    /// Whether there may be more that is due by now.
    pub fn has_more(&self) -> bool {
        !self.due.is_empty() || !self.page.is_last()
    }

    /// Puts them into another order than other runs have, so that they seldom want the same.
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
