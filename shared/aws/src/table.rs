//! The table: records by key, the `due` index, and the launch rate's bucket. Pools have a module of their own.

mod pool;

use std::{collections::HashMap, sync::Mutex, time::Duration};

use aws_sdk_dynamodb::{
    Client, Config,
    config::retry::RetryConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        put_item::PutItemError,
        query::builders::QueryFluentBuilder,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::{AttributeValue, KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure, Select},
};
use ecs_bridge_core::{
    ProfileName, Record, SubmissionId, Timestamp,
    capacity::{Capacities, Capacity, Choice},
    launch_rate::{self, Bucket, LaunchRate, Taken},
};
use serde_dynamo::aws_sdk_dynamodb_1::{from_item, to_item};

pub use pool::Ranked;

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

/// What the attributes of the launch rate's row begin with that hold the capacity for a choice.
const CAPACITY: &str = "capacity/";

/// What the attributes of that row begin with that name the profiles with a pool.
const POOL: &str = "pool/";

/// How long what was seen of it may be acted on.
const CAPACITY_KNOWN: Duration = Duration::from_secs(60);

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DueRecord {
    /// The record's key.
    pub submission_id: SubmissionId,
    /// When it is, or was, due.
    pub check_at: Timestamp,
}

/// Rows of a partition of the `due` index, and where the next ones begin.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows, the longest due first.
    pub records: Vec<DueRecord>,
    next: Option<Item>,
}

impl Page {
    /// Whether there are no more rows after these.
    pub const fn is_last(&self) -> bool {
        self.next.is_none()
    }
}

/// The row of the launch rate as last seen.
#[derive(Clone, Debug, Default)]
struct Launches {
    /// If the row was there.
    bucket: Option<Bucket>,
    capacity: Capacities,
    pools: Vec<ProfileName>,
    seen_at: Timestamp,
}

/// The deployment's table.
#[derive(Debug)]
pub struct Table {
    client: Client,
    name: String,
    launches: Mutex<Launches>,
}

impl Table {
    /// The table called `name`.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into(), launches: Mutex::default() }
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

    /// Writes what differs between `before` and `after`, if the row is still at the `rev` of `before`; otherwise
    /// answers with what the table holds instead, if anything.
    ///
    /// Attributes that are the same in both are not named, so that those of a newer version of this code survive.
    ///
    /// The row gets a new `nonce`, as in [`create`](Self::create): a write whose answer was lost is no lost race.
    ///
    /// # Errors
    /// Where DynamoDB does not answer: it may then be written or not.
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
                // An older version of this code raises `rev` and leaves `nonce`.
                Ok(if is_own && current.rev == after.rev { Ok(()) } else { Err(Some(Box::new(current))) })
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }

    /// A page of the rows of a partition of the `due` index that are due by `horizon`, the longest due first: up to
    /// `limit`, from where `page` left off.
    ///
    /// The index is eventually consistent: a row may have been claimed since.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// How many rows of a partition of the `due` index are due by `horizon`, counted up to a megabyte of them: some
    /// ten thousand.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// Takes up to `wanted` launch tokens from the deployment's bucket.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or others are quicker again and again.
    pub async fn take_launch_tokens(&self, wanted: u32, now: Timestamp, rate: LaunchRate) -> Result<u32, TableError> {
        for _ in 0..BUCKET_TRIES {
            let seen = self.seen_bucket();
            let Taken { tokens, bucket } = seen.unwrap_or(Bucket::FULL).take(wanted, now, rate);
            if seen == Some(bucket) {
                return Ok(0);
            }
            let unchanged = if seen.is_some() { "empty_at = :seen" } else { "attribute_not_exists(empty_at)" };
            let request = self
                .client
                .update_item()
                .table_name(&self.name)
                .key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()))
                .update_expression("SET empty_at = :after")
                .condition_expression(unchanged)
                .expression_attribute_values(":after", micros(bucket.micros()))
                .return_values(ReturnValue::AllNew)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            let request = match seen {
                Some(seen) => request.expression_attribute_values(":seen", micros(seen.micros())),
                None => request,
            };
            match request.send().await {
                Ok(written) => {
                    self.see_launch_row(written.attributes());
                    return Ok(tokens);
                }
                Err(SdkError::ServiceError(ref error))
                    if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
                {
                    self.see_launch_row(found.item());
                }
                Err(error) => return Err(TableError::call("UpdateItem")(error)),
            }
        }
        Err(TableError::Call { operation: "UpdateItem", reason: "other processes took launch tokens first".to_owned() })
    }

    /// Gives back launch tokens that were taken and not used. The bucket never holds more than its burst.
    ///
    /// Without the SDK's retries: after a lost answer, a retry would give the same tokens back twice.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the tokens are then lost, or not.
    pub async fn give_back_launch_tokens(&self, tokens: u32, rate: LaunchRate) -> Result<(), TableError> {
        let written = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()))
            .update_expression("SET empty_at = empty_at - :tokens")
            .condition_expression("empty_at > :tokens")
            .expression_attribute_values(":tokens", micros(rate.micros(tokens)))
            .return_values(ReturnValue::AllNew)
            .customize()
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(TableError::call("UpdateItem"))?;
        self.see_launch_row(written.attributes());
        Ok(())
    }

    /// Looks how many launch tokens are left: who starts without knowing would assume a full bucket, and ask for tokens
    /// in vain. One read, of half a unit.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn look_at_launch_tokens(&self) -> Result<(), TableError> {
        let request = self.client.get_item().table_name(&self.name);
        let request = request.key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()));
        let answer = request.send().await.map_err(TableError::call("GetItem"))?;
        self.see_launch_row(answer.item());
        Ok(())
    }

    /// What was last seen of capacity; nothing if that was a minute or more before `now`.
    pub fn capacity(&self, now: Timestamp) -> Capacities {
        let launches = self.launches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.since(launches.seen_at) < CAPACITY_KNOWN { launches.capacity.clone() } else { Capacities::default() }
    }

    /// Writes what is known of the capacity for a choice, if that is still what was seen. Answers whether it was.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn set_capacity(
        &self,
        choice: &Choice,
        seen: Option<Capacity>,
        next: Option<Capacity>,
    ) -> Result<bool, TableError> {
        let value = |capacity: Capacity| {
            let number = |number: u64| AttributeValue::N(number.to_string());
            AttributeValue::M(Item::from([
                ("refusals".to_owned(), number(capacity.refusals.into())),
                ("probe_at".to_owned(), number(capacity.probe_at.millis())),
                ("changed_at".to_owned(), number(capacity.changed_at.millis())),
            ]))
        };
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(launch_rate::ROW.to_owned()))
            .update_expression(if next.is_some() { "SET #capacity = :next" } else { "REMOVE #capacity" })
            .condition_expression(if seen.is_some() { "#capacity = :seen" } else { "attribute_not_exists(#capacity)" })
            .expression_attribute_names("#capacity", format!("{CAPACITY}{choice}"))
            .set_expression_attribute_values({
                let values = [(":next", next), (":seen", seen)];
                let values: Item =
                    values.into_iter().filter_map(|(name, known)| Some((name.to_owned(), value(known?)))).collect();
                (!values.is_empty()).then_some(values)
            })
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match result {
            Ok(written) => {
                self.see_launch_row(written.attributes());
                Ok(true)
            }
            Err(SdkError::ServiceError(ref error))
                if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
            {
                self.see_launch_row(found.item());
                Ok(false)
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }

    fn seen_bucket(&self) -> Option<Bucket> {
        self.launches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).bucket
    }

    fn see_launch_row(&self, row: Option<&Item>) {
        let bucket = row.and_then(|row| number(row.get("empty_at")?)).map(Bucket::from_micros);
        let capacity = row.into_iter().flatten().filter_map(|(name, value)| {
            Some((name.strip_prefix(CAPACITY)?.parse().ok()?, capacity(value.as_m().ok()?)?))
        });
        let names = row.into_iter().flatten().map(|(name, _)| name.strip_prefix(POOL));
        let mut pools: Vec<ProfileName> = names.filter_map(|name| name?.parse().ok()).collect();
        pools.sort();
        let launches = Launches { bucket, capacity: capacity.collect(), pools, seen_at: crate::now() };
        *self.launches.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = launches;
    }
}

/// An update that sets and removes what differs between `old` and `new`. Attributes that are the same in both are not
/// named. At least one must be to be set: `rev` always is.
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

/// Marks a row with the write that it stems from.
fn nonce() -> AttributeValue {
    AttributeValue::N(fastrand::u64(..).to_string())
}

fn capacity(of: &Item) -> Option<Capacity> {
    Some(Capacity {
        refusals: u32::try_from(number(of.get("refusals")?)?).ok()?,
        probe_at: Timestamp::from_millis(number(of.get("probe_at")?)?),
        changed_at: Timestamp::from_millis(number(of.get("changed_at")?)?),
    })
}

fn micros(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
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
