//! Submissions that have not ended, from the index `due`.

use std::collections::{BTreeSet, HashSet};

use super::connection::Client;
use super::error::ClientError;
use super::table::{BATCH, Item, LAUNCH_RATE, Table, submission_id};
use crate::record::Record;

/// The partitions of the index `due`: timers, first and repeated launches, and runners. The partitions of submissions that
/// wait for capacity begin with [`WAITING`].
const DUE_PARTITIONS: [&str; 7] = ["0", "1", "2", "3", "queued", "repeat", RUNNERS];

/// The partition of runners to launch.
const RUNNERS: &str = "runners";

/// The prefix of the partitions of submissions that wait for capacity, by capacity option.
const WAITING: &str = "waiting/";

/// The prefix of the ids of runners.
const RUNNER: &str = "runner-";

/// The limits of [`Client::first_in_flight`].
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// The maximum number of records.
    pub limit: usize,
    /// The maximum number of rows to read for them.
    pub max_rows: usize,
    /// `true` to include runners.
    pub runners: bool,
    /// The attributes to read.
    pub attributes: &'a [&'a str],
}

/// The records that were found.
#[derive(Debug)]
pub struct InFlight {
    /// The records.
    pub records: Vec<Record>,
    /// `true` if there may be more.
    pub has_more: bool,
    /// The number of rows that were read.
    pub read: usize,
}

/// A partition of the index `due`, which is read as far as needed.
struct Cursor {
    partition: String,
    /// The rows that were read and not returned yet, with their timers, in reverse order.
    rows: Vec<(u64, String)>,
    next: Option<Item>,
    is_at_end: bool,
}

impl Cursor {
    fn new(partition: String) -> Self {
        Self { partition, rows: Vec::new(), next: None, is_at_end: false }
    }
}

impl Client {
    /// Returns the ids with this prefix among submissions that have not ended, and the last 10,000 that ended.
    pub async fn ids_with_prefix(&self, prefix: &str) -> Result<Vec<String>, ClientError> {
        const MOST: usize = 10_000;
        let table = self.table()?;
        let mut ids: BTreeSet<_> = table.ids_in_due().await?.into_iter().collect();
        if let Some(deployment) = &self.deployment {
            ids.extend(table.ids_since(deployment, 0, MOST).await?);
        }
        Ok(ids.into_iter().filter(|id| id.starts_with(prefix)).collect())
    }

    /// Returns the records of all submissions that have not ended.
    pub async fn in_flight(&self) -> Result<Vec<Record>, ClientError> {
        let table = self.table()?;
        let ids = table.ids_in_due().await?;
        let mut records = table.records(&ids).await?;
        records.retain(is_in_flight);
        Ok(records)
    }

    /// Reads submissions that have not ended, in the order in which they are due, until `limit` of them match or `max_rows`
    /// were read.
    ///
    /// Index and rows are read eventually consistent, at half a read unit for each 4 KB.
    pub async fn first_in_flight(
        &self,
        Selection { limit, max_rows, runners, attributes }: Selection<'_>,
        matches: impl Fn(&Record) -> bool,
    ) -> Result<InFlight, ClientError> {
        let table = self.table()?;
        let mut cursors: Vec<_> = table.due_partitions(runners).await?.into_iter().map(Cursor::new).collect();
        // A row that moves between partitions may appear in both.
        let (mut records, mut seen) = (Vec::new(), HashSet::new());
        // Whole batches are read to find a few matches among many rows.
        let (page, at_once) = if max_rows > limit { (10 * BATCH, BATCH) } else { (limit, 0) };
        while records.len() < limit && seen.len() < max_rows {
            let left = at_once.max(limit - records.len()).min(BATCH).min(max_rows - seen.len());
            let mut ids = Vec::new();
            while ids.len() < left {
                let Some(id) = table.next_due(&mut cursors, page).await? else { break };
                if (runners || !id.starts_with(RUNNER)) && seen.insert(id.clone()) {
                    ids.push(id);
                }
            }
            if ids.is_empty() {
                break;
            }
            let rows = table.projected(&ids, Some(attributes)).await?;
            records.extend(rows.into_iter().filter(|record| is_in_flight(record) && matches(record)));
        }
        let has_more = records.len() > limit || table.next_due(&mut cursors, page).await?.is_some();
        records.truncate(limit);
        Ok(InFlight { records, has_more, read: seen.len() })
    }

    /// Counts the submissions that have not ended, with `runners` also the runners. Reads all keys, at 16 read units per
    /// 1,000.
    pub async fn count_in_flight(&self, runners: bool) -> Result<usize, ClientError> {
        let table = self.table()?;
        let mut count = 0;
        for partition in table.due_partitions(runners).await? {
            count += table
                .ids_of("due", &partition, usize::MAX, true)
                .await?
                .iter()
                .filter(|id| runners || !id.starts_with(RUNNER))
                .count();
        }
        Ok(count)
    }
}

impl Table {
    /// Returns the keys of the index `due`, with a query for each partition. It holds exactly the submissions that have not
    /// ended.
    async fn ids_in_due(&self) -> Result<Vec<String>, ClientError> {
        let mut ids = BTreeSet::new();
        for partition in self.due_partitions(true).await? {
            // A row that moves between partitions may appear in both.
            ids.extend(self.ids_of("due", &partition, usize::MAX, true).await?);
        }
        Ok(ids.into_iter().collect())
    }

    /// Returns the names of the partitions.
    async fn due_partitions(&self, runners: bool) -> Result<BTreeSet<String>, ClientError> {
        let row = self.row(LAUNCH_RATE).await?;
        // Submissions wait for capacity in one partition per capacity option that has an entry.
        let of_option = |name: &String| Some(format!("{WAITING}{}", name.strip_prefix("capacity/")?));
        let fixed = DUE_PARTITIONS.into_iter().filter(|partition| runners || *partition != RUNNERS);
        Ok(row.keys().filter_map(of_option).chain(fixed.map(str::to_owned)).collect())
    }

    /// Returns the next id of all cursors, in the order in which they are due.
    async fn next_due(&self, cursors: &mut [Cursor], page: usize) -> Result<Option<String>, ClientError> {
        for cursor in cursors.iter_mut() {
            while cursor.rows.is_empty() && !cursor.is_at_end {
                let (items, next) = self.page("due", &cursor.partition, page, cursor.next.take()).await?;
                let due = |item: &Item| {
                    let at = item.get("check_at").and_then(|at| at.as_n().ok()?.parse().ok());
                    Some((at.unwrap_or_default(), submission_id(item)?))
                };
                cursor.rows = items.iter().rev().filter_map(due).collect();
                cursor.is_at_end = next.is_none();
                cursor.next = next;
            }
        }
        let first = cursors.iter_mut().filter(|cursor| !cursor.rows.is_empty());
        let first = first.min_by_key(|cursor| cursor.rows.last().map(|(at, _)| *at));
        Ok(first.and_then(|cursor| cursor.rows.pop()).map(|(_, id)| id))
    }
}

/// Returns `true` if the submission has not ended. The index is eventually consistent, so it may still show one that has
/// just ended. It also shows one that has ended with pending notifications.
fn is_in_flight(record: &Record) -> bool {
    record.contains_key("due") && !record.contains_key("changed_at")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn due_partitions_are_those_that_reconcile_serves() {
        let served: Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/due_partitions.json")).unwrap();
        assert_eq!(served["partitions"], serde_json::json!(DUE_PARTITIONS));
        assert_eq!(served["waiting_prefix"], WAITING);
        assert_eq!(served["runners"], RUNNERS);
    }
}
