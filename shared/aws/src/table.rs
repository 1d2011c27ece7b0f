//! The table: records by key, and the `due` index. The launch rate's row and the pools have separate modules.

mod launches;
mod pool;

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        put_item::PutItemError,
        query::builders::QueryFluentBuilder,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure, Select},
};
use ecs_bridge_core::{Record, SubmissionId, Timestamp};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};

pub use launches::{Begun, WOKEN_LOOKS};
pub use pool::Ranked;

use launches::LaunchRow;

type Item = HashMap<String, AttributeValue>;

/// DynamoDB's maximum number of keys per BatchGetItem.
const BATCH: usize = 100;

/// The first wait before unprocessed keys are requested again. It doubles each time.
const UNPROCESSED: Duration = Duration::from_millis(50);

/// The maximum of these waits.
const UNPROCESSED_MOST: Duration = Duration::from_secs(2);

const KEY: &str = "submission_id";

const NONCE: &str = "nonce";

/// The cause of a failed table call.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB failed. The text is its error code and message, never an item.
    #[error("{operation}: {reason}")]
    Call {
        /// The operation.
        operation: &'static str,
        /// The error.
        reason: String,
    },
    /// The row cannot be parsed as a record.
    #[error("the row of {submission_id} is no record of a submission")]
    Row {
        /// The row's key.
        submission_id: String,
        /// The parse error.
        #[source]
        source: serde_dynamo::Error,
    },
}

impl TableError {
    fn call<E: ProvideErrorMetadata, R>(operation: &'static str) -> impl Fn(SdkError<E, R>) -> Self {
        move |error| {
            let kind = match &error {
                SdkError::TimeoutError(_) => "timeout",
                SdkError::DispatchFailure(_) => "no connection",
                SdkError::ConstructionFailure(_) => "no request could be made",
                SdkError::ResponseError(_) => "the answer was not understood",
                _ => "refused",
            };
            let code = error.code().unwrap_or(kind);
            Self::Call { operation, reason: format!("{code}: {}", error.message().unwrap_or(kind)) }
        }
    }
}

/// The outcome of creating a record.
#[derive(Debug)]
pub enum Created {
    /// The record was created.
    New,
    /// The key already exists, with this record.
    Known(Box<Record>),
}

/// A row of the `due` index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DueRecord {
    /// The record's key.
    pub submission_id: SubmissionId,
    /// The due time.
    pub check_at: Timestamp,
}

/// A page of a partition of the `due` index, and the start of the next page.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows, earliest due first.
    pub records: Vec<DueRecord>,
    next: Option<Item>,
}

impl Page {
    /// Returns `true` if this is the last page.
    pub const fn is_last(&self) -> bool {
        self.next.is_none()
    }
}

/// The deployment's table.
#[derive(Debug)]
pub struct Table {
    client: Client,
    name: String,
    launches: LaunchRow,
}

impl Table {
    /// Creates a client of the table called `name`.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into(), launches: LaunchRow::default() }
    }

    /// Returns the table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the record of a submission consistently.
    ///
    /// # Errors
    /// If DynamoDB is unavailable or the row cannot be parsed.
    pub async fn get(&self, submission_id: &SubmissionId) -> Result<Option<Record>, TableError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .key(KEY, key(submission_id))
            .consistent_read(true)
            .send()
            .await
            .map_err(TableError::call("GetItem"))?;
        answer.item.map(read).transpose()
    }

    /// Reads the records of any number of submissions consistently, 100 per call. Returns them in any order, without
    /// missing ones.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. An invalid row is skipped and logged because it must not block the others.
    pub async fn get_all(&self, submission_ids: &[SubmissionId]) -> Result<Vec<Record>, TableError> {
        let mut records = Vec::with_capacity(submission_ids.len());
        for ids in submission_ids.chunks(BATCH) {
            let keys = ids.iter().map(|id| Item::from([(KEY.to_owned(), key(id))])).collect();
            let mut wait = UNPROCESSED;
            let mut wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().ok();
            while let Some(keys) = wanted.take() {
                let request = self.client.batch_get_item().request_items(&self.name, keys);
                let mut answer = request.send().await.map_err(TableError::call("BatchGetItem"))?;
                for item in answer.responses.as_mut().and_then(|tables| tables.remove(&self.name)).unwrap_or_default() {
                    match read(item) {
                        Ok(record) => records.push(record),
                        Err(error) => tracing::error!(%error, "skipped unreadable row"),
                    }
                }
                wanted = answer.unprocessed_keys.as_mut().and_then(|tables| tables.remove(&self.name));
                if wanted.is_some() {
                    // DynamoDB is throttling. The SDK does not wait here because a partial response is not an error.
                    tokio::time::sleep(wait).await;
                    wait = UNPROCESSED_MOST.min(wait * 2);
                }
            }
        }
        Ok(records)
    }

    /// Writes a new record unless its key exists.
    ///
    /// The row gets a random `nonce`. If the response to the first PutItem is lost, the SDK's retry finds the row of
    /// the first one, and the result is still [`Created::New`].
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The record may exist or not, and a retry is safe.
    pub async fn create(&self, record: &Record) -> Result<Created, TableError> {
        let nonce = nonce();
        let mut row = write(record)?;
        row.insert(NONCE.to_owned(), nonce.clone());
        let result = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(row))
            .condition_expression("attribute_not_exists(submission_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(_) => Ok(Created::New),
            Err(SdkError::ServiceError(ref error))
                if let PutItemError::ConditionalCheckFailedException(found) = error.err() =>
            {
                let item = found.item().cloned().unwrap_or_default();
                let is_own = item.get(NONCE) == Some(&nonce);
                let known = read(item)?;
                if is_own && known.rev == record.rev { Ok(Created::New) } else { Ok(Created::Known(Box::new(known))) }
            }
            Err(error) => Err(TableError::call("PutItem")(error)),
        }
    }

    /// Writes the differences between `before` and `after` if the row is still at the `rev` of `before`. Otherwise
    /// returns the current record, if any.
    ///
    /// Unchanged attributes are not named, so attributes from a newer version of this code survive.
    ///
    /// The row gets a new `nonce`, as in [`create`](Self::create), so a write whose response was lost does not count
    /// as a lost race.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The write may have happened or not.
    pub async fn update(&self, before: &Record, after: &Record) -> Result<Result<(), Option<Box<Record>>>, TableError> {
        let (old, mut new) = (write(before)?, write(after)?);
        let nonce = nonce();
        new.insert(NONCE.to_owned(), nonce.clone());
        let request = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, key(&before.submission_id))
            .condition_expression("#rev = :before")
            .expression_attribute_names("#rev", "rev")
            .expression_attribute_values(":before", AttributeValue::N(before.rev.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match difference(request, &old, new).send().await {
            Ok(_) => Ok(Ok(())),
            Err(SdkError::ServiceError(ref error))
                if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
            {
                let Some(item) = found.item().cloned() else { return Ok(Err(None)) };
                let is_own = item.get(NONCE) == Some(&nonce);
                let current = read(item)?;
                // An older version of this code increments `rev` and keeps `nonce`.
                Ok(if is_own && current.rev == after.rev { Ok(()) } else { Err(Some(Box::new(current))) })
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }

    /// Returns a page of the `due` index: up to `limit` rows of a partition that are due by `horizon`, earliest
    /// first, starting after `page`.
    ///
    /// The index is eventually consistent, so a row may have been claimed since.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn due(&self, partition: &str, horizon: Timestamp, limit: i32, page: Page) -> Result<Page, TableError> {
        let answer = self
            .due_query(partition, horizon)
            .limit(limit)
            .set_exclusive_start_key(page.next)
            .send()
            .await
            .map_err(TableError::call("Query"))?;
        let records = answer.items().iter().filter_map(due_record).collect();
        Ok(Page { records, next: answer.last_evaluated_key })
    }

    /// Counts the rows of a partition of the `due` index that are due by `horizon`, within the first megabyte (about
    /// 10,000 rows).
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn count_due(&self, partition: &str, horizon: Timestamp) -> Result<usize, TableError> {
        let query = self.due_query(partition, horizon).select(Select::Count);
        let answer = query.send().await.map_err(TableError::call("Query"))?;
        Ok(usize::try_from(answer.count()).unwrap_or_default())
    }

    fn due_query(&self, partition: &str, horizon: Timestamp) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .index_name("due")
            .key_condition_expression("#due = :due AND check_at <= :horizon")
            .expression_attribute_names("#due", "due")
            .expression_attribute_values(":due", AttributeValue::S(partition.to_owned()))
            .expression_attribute_values(":horizon", AttributeValue::N(horizon.millis().to_string()))
    }
}

/// Returns an update that sets and removes the differences between `old` and `new`. Unchanged attributes are not
/// named. At least one attribute must change, and `rev` always does.
fn difference(mut request: UpdateItemFluentBuilder, old: &Item, new: Item) -> UpdateItemFluentBuilder {
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        remove.push(format!("#{name}"));
        request = request.expression_attribute_names(format!("#{name}"), name);
    }
    for (name, value) in new {
        if old.get(&name) != Some(&value) {
            set.push(format!("#{name} = :{name}"));
            request = request
                .expression_attribute_names(format!("#{name}"), &name)
                .expression_attribute_values(format!(":{name}"), value);
        }
    }
    let mut expression = format!("SET {}", set.join(", "));
    if !remove.is_empty() {
        expression = format!("{expression} REMOVE {}", remove.join(", "));
    }
    request.update_expression(expression)
}

/// Returns a value that identifies the write of a row.
fn nonce() -> AttributeValue {
    AttributeValue::N(fastrand::u64(..).to_string())
}

fn key(submission_id: &SubmissionId) -> AttributeValue {
    AttributeValue::S(submission_id.to_string())
}

fn write(record: &Record) -> Result<Item, TableError> {
    to_item(record).map_err(|source| TableError::Row { submission_id: record.submission_id.to_string(), source })
}

fn read(item: Item) -> Result<Record, TableError> {
    let submission_id = item.get(KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
    from_item(item).map_err(|source| TableError::Row { submission_id, source })
}

fn number(value: &AttributeValue) -> Option<u64> {
    value.as_n().ok()?.parse().ok()
}

fn due_record(item: &Item) -> Option<DueRecord> {
    Some(DueRecord {
        submission_id: item.get(KEY)?.as_s().ok()?.parse().ok()?,
        check_at: Timestamp::from_millis(number(item.get("check_at")?)?),
    })
}
