//! The table: records by key, the `due` index, and the launch rate's bucket.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure},
};
use ecs_bridge_core::{
    Record, SubmissionId, Timestamp,
    launch_rate::{self, Bucket, LaunchRate, Taken},
    record::{DUE_SHARDS, QUEUE},
};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};

type Item = HashMap<String, AttributeValue>;

/// DynamoDB's limit on the keys of a BatchGetItem.
const BATCH: usize = 100;

/// The first wait before keys that DynamoDB left unprocessed are asked for again, doubled each time.
const UNPROCESSED: Duration = Duration::from_millis(50);

/// The longest such wait.
const UNPROCESSED_MOST: Duration = Duration::from_secs(2);

/// How often a launch token is asked for again when another process was quicker.
const BUCKET_TRIES: u32 = 5;

const KEY: &str = "submission_id";

const NONCE: &str = "nonce";

/// Why a call to the table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB did not do it. The text is its code and message, never an item.
    #[error("{operation}: {reason}")]
    Call {
        /// What was called.
        operation: &'static str,
        /// How it ended.
        reason: String,
    },
    /// A row that this code cannot read.
    #[error("the row of {submission_id} is no record of a submission")]
    Row {
        /// Its key.
        submission_id: String,
        /// What is wrong with it.
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

/// What became of a new record.
#[derive(Debug)]
pub enum Created {
    /// It is there.
    New,
    /// Its key was taken, by this record.
    Known(Box<Record>),
}

/// A row of the `due` index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRecord {
    /// The record's key.
    pub submission_id: SubmissionId,
    /// When it is, or was, due.
    pub check_at: Timestamp,
}

/// The deployment's table.
#[derive(Debug)]
pub struct Table {
    client: Client,
    name: String,
    /// The bucket as last seen. Another process can only have emptied it further.
    bucket: Mutex<Bucket>,
}

impl Table {
    /// The table called `name`.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into(), bucket: Mutex::new(Bucket::FULL) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record of a submission, read consistently.
    ///
    /// # Errors
    /// Where DynamoDB does not answer, or the row cannot be read.
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

    /// The records of up to any number of submissions, read consistently, 100 a call; in no order, without those that
    /// are not there.
    ///
    /// # Errors
    /// Where DynamoDB does not answer. A row that cannot be read is left out and logged: it must not hold up the others.
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
                        Err(error) => tracing::error!(%error, "a row was left out"),
                    }
                }
                wanted = answer.unprocessed_keys.as_mut().and_then(|tables| tables.remove(&self.name));
                if wanted.is_some() {
                    // It throttles, and an answer that is not whole is no error that the SDK would wait after.
                    tokio::time::sleep(wait).await;
                    wait = UNPROCESSED_MOST.min(wait * 2);
                }
            }
        }
        Ok(records)
    }

    /// Writes a new record, unless its key is taken.
    ///
    /// The row gets a random `nonce`: where the answer of the first PutItem is lost, the SDK's retry finds the row that
    /// the first one wrote, and it is still [`Created::New`].
    ///
    /// # Errors
    /// Where DynamoDB does not answer: the record may then exist or not. Retrying is safe.
    pub async fn create(&self, record: &Record) -> Result<Created, TableError> {
        let nonce = AttributeValue::N(fastrand::u64(..).to_string());
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

    /// Writes what differs between `before` and `after`, if the row is still at the `rev` of `before`; otherwise
    /// answers with what is there instead, if anything is.
    ///
    /// Attributes that are the same in both are not named, so that those of a newer version of this code survive.
    ///
    /// # Errors
    /// Where DynamoDB does not answer: it may then be written or not.
    pub async fn update(&self, before: &Record, after: &Record) -> Result<Result<(), Option<Box<Record>>>, TableError> {
        let (old, new) = (write(before)?, write(after)?);
        let mut request = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, key(&before.submission_id))
            .condition_expression("#rev = :before")
            .expression_attribute_names("#rev", "rev")
            .expression_attribute_values(":before", AttributeValue::N(before.rev.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
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
        // `rev` always differs, so that there is something to set.
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        match request.update_expression(expression).send().await {
            Ok(_) => Ok(Ok(())),
            Err(SdkError::ServiceError(ref error))
                if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
            {
                Ok(Err(found.item().cloned().map(read).transpose()?.map(Box::new)))
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }

    /// Up to `limit` of what waits for a launch and is due by `horizon`, the longest due first.
    ///
    /// # Errors
    /// Where DynamoDB does not answer.
    pub async fn queued(&self, horizon: Timestamp, limit: i32) -> Result<Vec<DueRecord>, TableError> {
        self.due_in(QUEUE.to_owned(), horizon, limit).await
    }

    /// Everything else that is due by `horizon`, the longest due first; at most `limit` of each partition.
    ///
    /// # Errors
    /// Where DynamoDB does not answer.
    pub async fn due(&self, horizon: Timestamp, limit: i32) -> Result<Vec<DueRecord>, TableError> {
        let mut due = Vec::new();
        for shard in 0..DUE_SHARDS {
            due.append(&mut self.due_in(shard.to_string(), horizon, limit).await?);
        }
        due.sort_by_key(|record| record.check_at);
        Ok(due)
    }

    async fn due_in(&self, partition: String, horizon: Timestamp, limit: i32) -> Result<Vec<DueRecord>, TableError> {
        let answer = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("due")
            .key_condition_expression("#due = :due AND check_at <= :horizon")
            .expression_attribute_names("#due", "due")
            .expression_attribute_values(":due", AttributeValue::S(partition))
            .expression_attribute_values(":horizon", AttributeValue::N(horizon.millis().to_string()))
            .limit(limit)
            .send()
            .await
            .map_err(TableError::call("Query"))?;
        Ok(answer.items().iter().filter_map(due_record).collect())
    }

    /// Takes up to `wanted` launch tokens from the deployment's bucket.
    ///
    /// # Errors
    /// Where DynamoDB does not answer, or others are quicker again and again.
    pub async fn take_launch_tokens(&self, wanted: u32, now: Timestamp, rate: LaunchRate) -> Result<Taken, TableError> {
        let mut known = self.known_bucket();
        for _ in 0..BUCKET_TRIES {
            let taken = known.take(wanted, now, rate);
            if taken.tokens == 0 {
                return Ok(taken);
            }
            // Never fuller than assumed: then what is written is right, or too little by what others let lapse.
            let result = self
                .client
                .update_item()
                .table_name(&self.name)
                .key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()))
                .update_expression("SET empty_at = :after")
                .condition_expression("attribute_not_exists(empty_at) OR empty_at <= :before")
                .expression_attribute_values(":before", AttributeValue::N(taken.assumed.micros().to_string()))
                .expression_attribute_values(":after", AttributeValue::N(taken.bucket.micros().to_string()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
                .await;
            match result {
                Ok(_) => {
                    self.remember_bucket(taken.bucket);
                    return Ok(taken);
                }
                Err(SdkError::ServiceError(ref error))
                    if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
                {
                    let empty_at = found.item().and_then(|item| number(item.get("empty_at")?));
                    known = empty_at.map_or(Bucket::FULL, Bucket::from_micros);
                    self.remember_bucket(known);
                }
                Err(error) => return Err(TableError::call("UpdateItem")(error)),
            }
        }
        Err(TableError::Call { operation: "UpdateItem", reason: "other processes took launch tokens first".to_owned() })
    }

    /// Looks how many launch tokens are left: who starts without knowing would assume a full bucket, and ask for tokens
    /// in vain. One read, of half a unit.
    ///
    /// # Errors
    /// Where DynamoDB does not answer.
    pub async fn look_at_launch_tokens(&self) -> Result<(), TableError> {
        let request = self.client.get_item().table_name(&self.name);
        let request = request.key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()));
        let answer = request.send().await.map_err(TableError::call("GetItem"))?;
        if let Some(empty_at) = answer.item().and_then(|row| number(row.get("empty_at")?)) {
            self.remember_bucket(Bucket::from_micros(empty_at));
        }
        Ok(())
    }

    fn known_bucket(&self) -> Bucket {
        *self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn remember_bucket(&self, bucket: Bucket) {
        let mut known = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *known = if bucket.micros() > known.micros() { bucket } else { *known };
    }
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
