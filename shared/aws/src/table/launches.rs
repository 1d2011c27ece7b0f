//! The launch rate's row: the bucket of launch tokens, the known capacity, the profiles with pools, and the current
//! run of reconcile. Every write returns the whole row, so each process gets the other parts for free.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Config,
    config::retry::RetryConfig,
    error::SdkError,
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use ecs_bridge_core::{
    ProfileName, Timestamp,
    capacity::{Capacities, Capacity, Choice},
    launch_rate::{Bucket, Change, LaunchRate, ROW, Take},
};

use super::{Item, KEY, Table, TableError, number};

/// The prefix of attributes that store the capacity of an option.
const CAPACITY: &str = "capacity/";

/// The prefix of attributes that name the profiles with a pool.
const POOL: &str = "pool/";

/// The period for which an observation of capacity is valid.
const CAPACITY_KNOWN: Duration = Duration::from_secs(60);

/// The number of retries if other processes took the available launch tokens.
const TRIES: u32 = 3;

/// The period for which a reading with too few tokens, or with a backlog, is trusted.
const SCARCE: Duration = Duration::from_millis(250);

/// The period for which a reported backlog counts. Reconcile reports it with every write that takes tokens.
const BACKLOG: Duration = Duration::from_secs(3);

/// The assumed maximum lag of an index behind the table, for relying on a run of reconcile.
const INDEX_LAG: Duration = Duration::from_secs(2);

/// The minimum interval between invocations of reconcile.
const WAKES_APART: Duration = Duration::from_secs(1);

/// The limit beyond which a time in the future is attributed to a clock that is ahead.
const FUTURE: Duration = Duration::from_secs(60);

/// The period for which a woken reconcile run checks for work. It covers everything that was written during the
/// invocation and that the index shows late.
pub const WOKEN_LOOKS: Duration = Duration::from_secs(WAKES_APART.as_secs() + INDEX_LAG.as_secs());

/// The row as this process last saw it.
#[derive(Debug, Default)]
pub(super) struct LaunchRow(Mutex<Seen>);

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The bucket, if the row exists.
    bucket: Option<Bucket>,
    capacity: Capacities,
    pools: Vec<ProfileName>,
    /// The time until which a run of reconcile rereads the indexes. It never decreases.
    looks_until: Option<Timestamp>,
    /// The last run that began.
    run: Option<u64>,
    /// The time until which reconcile has more to launch than launch tokens.
    backlog_until: Option<Timestamp>,
    /// `true` if the last reading showed too few tokens.
    is_scarce: bool,
    seen_at: Timestamp,
}

/// The result of beginning a run of reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The run's random number.
    pub run: u64,
    /// The time until which the run has promised to check for work.
    pub looks_until: Timestamp,
}

impl LaunchRow {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, row: Option<&Item>) {
        let attribute = |name: &str| row.and_then(|row| number(row.get(name)?));
        let moment = |name| attribute(name).map(Timestamp::from_millis);
        let capacity = row.into_iter().flatten().filter_map(|(name, value)| {
            Some((name.strip_prefix(CAPACITY)?.parse().ok()?, capacity(value.as_m().ok()?)?))
        });
        let names = row.into_iter().flatten().map(|(name, _)| name.strip_prefix(POOL));
        let mut pools: Vec<ProfileName> = names.filter_map(|name| name?.parse().ok()).collect();
        pools.sort();
        let mut seen = self.lock();
        *seen = Seen {
            bucket: attribute("empty_at").map(Bucket::from_micros),
            capacity: capacity.collect(),
            pools,
            looks_until: moment("looks_until"),
            run: attribute("run"),
            backlog_until: moment("backlog_until"),
            is_scarce: seen.is_scarce,
            seen_at: crate::now(),
        };
    }
}

impl Seen {
    /// Returns `true` if reconcile launches the waiting submissions and other functions must leave the tokens to it.
    fn has_backlog(&self, now: Timestamp) -> bool {
        self.backlog_until.is_some_and(|until| now < until && until < now.plus(FUTURE))
    }

    /// Returns `true` if a run of reconcile reads the indexes late enough to find a write made `now`.
    fn is_looked_for(&self, now: Timestamp) -> bool {
        self.looks_until.is_some_and(|until| until >= now.plus(INDEX_LAG) && until < now.plus(FUTURE))
    }
}

impl Table {
    /// Takes up to `wanted` launch tokens from the deployment's bucket for new submissions. Returns none while
    /// reconcile has more to launch than tokens, because waiting submissions go first.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn take_spare_launch_tokens(
        &self,
        wanted: u32,
        now: Timestamp,
        rate: LaunchRate,
    ) -> Result<u32, TableError> {
        let (is_scarce, seen_at) = {
            let seen = self.launches.lock();
            (seen.is_scarce, seen.seen_at)
        };
        // A read costs a tenth of a failed write.
        if is_scarce && crate::now().since(seen_at) >= SCARCE {
            self.look_at_launch_tokens().await?;
        }
        if self.launches.lock().has_backlog(now) {
            self.launches.lock().is_scarce = true;
            return Ok(0);
        }
        self.take_tokens(wanted, None, now, rate).await
    }

    /// Takes up to `wanted` launch tokens from the deployment's bucket for `waiting` due records. If they exceed the
    /// tokens, the row shows a backlog for a while.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn take_launch_tokens(
        &self,
        wanted: u32,
        waiting: usize,
        now: Timestamp,
        rate: LaunchRate,
    ) -> Result<u32, TableError> {
        self.take_tokens(wanted, Some(waiting), now, rate).await
    }

    async fn take_tokens(
        &self,
        wanted: u32,
        waiting: Option<usize>,
        now: Timestamp,
        rate: LaunchRate,
    ) -> Result<u32, TableError> {
        for _ in 0..TRIES {
            let bucket = self.launches.lock().bucket;
            let Some(take) = bucket.unwrap_or(Bucket::FULL).take(wanted, now, rate) else { break };
            let has_backlog = waiting.is_some_and(|waiting| waiting > take.tokens as usize);
            let backlog_until = has_backlog.then(|| now.plus(BACKLOG));
            if self.write_row(taking(self.row_update(), take, backlog_until)).await? {
                self.launches.lock().is_scarce = take.tokens < wanted;
                return Ok(take.tokens);
            }
        }
        self.launches.lock().is_scarce = true;
        Ok(0)
    }

    /// Returns unused launch tokens. The bucket never exceeds its burst.
    ///
    /// The SDK's retries are off because a retry after a lost response would return the same tokens twice.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The tokens may be lost.
    pub async fn give_back_launch_tokens(&self, tokens: u32, rate: LaunchRate) -> Result<(), TableError> {
        let written = self
            .row_update()
            .update_expression("SET empty_at = empty_at - :tokens")
            .condition_expression("empty_at > :tokens")
            .expression_attribute_values(":tokens", numeric(rate.micros(tokens)))
            .customize()
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(TableError::call("UpdateItem"))?;
        self.launches.see(written.attributes());
        Ok(())
    }

    /// Reads the row, for half a read unit. A process without it would assume a full bucket and request tokens that
    /// do not exist.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn look_at_launch_tokens(&self) -> Result<(), TableError> {
        let request = self.client.get_item().table_name(&self.name);
        let request = request.key(KEY, AttributeValue::S(ROW.to_owned()));
        let answer = request.send().await.map_err(TableError::call("GetItem"))?;
        self.launches.see(answer.item());
        Ok(())
    }

    /// Returns the last observed capacity, or an empty value if it was observed a minute or more before `now`.
    pub fn capacity(&self, now: Timestamp) -> Capacities {
        let seen = self.launches.lock();
        if now.since(seen.seen_at) < CAPACITY_KNOWN { seen.capacity.clone() } else { Capacities::default() }
    }

    /// Writes the capacity of an option if the stored value is unchanged. Returns `true` if it was.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn set_capacity(
        &self,
        choice: &Choice,
        seen: Option<Capacity>,
        next: Option<Capacity>,
    ) -> Result<bool, TableError> {
        let values = [(":next", next), (":seen", seen)].into_iter();
        let values: Item = values.filter_map(|(name, known)| Some((name.to_owned(), written(known?)))).collect();
        let request = self
            .row_update()
            .update_expression(if next.is_some() { "SET #capacity = :next" } else { "REMOVE #capacity" })
            .condition_expression(if seen.is_some() { "#capacity = :seen" } else { "attribute_not_exists(#capacity)" })
            .expression_attribute_names("#capacity", format!("{CAPACITY}{choice}"))
            .set_expression_attribute_values((!values.is_empty()).then_some(values));
        self.write_row(request).await
    }

    /// Claims an invocation of reconcile for writes before `now`. Returns `true` if the caller must invoke it.
    /// Returns `false` if a run checks for work late enough to find them, or if another process has just claimed an
    /// invocation.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn claim_wake(&self, now: Timestamp) -> Result<bool, TableError> {
        if self.launches.lock().is_looked_for(now) {
            return Ok(false);
        }
        // A read costs a tenth of a failed claim.
        self.look_at_launch_tokens().await?;
        if self.launches.lock().is_looked_for(now) {
            return Ok(false);
        }
        let request = self
            .row_update()
            .update_expression("SET woken_at = :now")
            .condition_expression(
                "(attribute_not_exists(woken_at) OR woken_at <= :apart OR woken_at > :future) AND \
                 (attribute_not_exists(looks_until) OR looks_until < :looks OR looks_until > :future)",
            )
            .expression_attribute_values(":now", moment(now))
            .expression_attribute_values(":apart", moment(now.minus(WAKES_APART)))
            .expression_attribute_values(":looks", moment(now.plus(INDEX_LAG)))
            .expression_attribute_values(":future", moment(now.plus(FUTURE)));
        self.write_row(request).await
    }

    /// Begins a run of reconcile that checks for work for at least `looks_for`. An earlier run then starts no more
    /// work. The new run keeps the earlier promise, because others rely on it without reading it again.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn begin_run(&self, now: Timestamp, looks_for: Duration) -> Result<Begun, TableError> {
        let run = fastrand::u64(..);
        let request = self
            .row_update()
            .update_expression("SET #run = :run")
            .expression_attribute_names("#run", "run")
            .expression_attribute_values(":run", numeric(run));
        self.write_row(request).await?;
        let promised = self.launches.lock().looks_until.filter(|until| *until < now.plus(FUTURE)).unwrap_or(now);
        let begun = Begun { run, looks_until: promised.max(now.plus(looks_for)) };
        if !looks_for.is_zero() && begun.looks_until > promised {
            self.go_on_looking(begun).await?;
        }
        Ok(begun)
    }

    /// Extends the promise of a run. Returns `true` if it is still the latest run.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn go_on_looking(&self, Begun { run, looks_until }: Begun) -> Result<bool, TableError> {
        let request = self
            .row_update()
            .update_expression("SET looks_until = :looks")
            .condition_expression("#run = :run")
            .expression_attribute_names("#run", "run")
            .expression_attribute_values(":run", numeric(run))
            .expression_attribute_values(":looks", moment(looks_until));
        self.write_row(request).await
    }

    /// Returns `true` if no later run has begun, as far as this process has seen.
    pub fn is_last_run(&self, begun: &Begun) -> bool {
        self.launches.lock().run.is_none_or(|run| run == begun.run)
    }

    /// Returns the profiles that have a pool, as last seen.
    pub fn pools(&self) -> Vec<ProfileName> {
        self.launches.lock().pools.clone()
    }

    /// Records that a profile has a pool, or removes that record. Waiting submissions are thus served even if the
    /// profile is removed.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn set_pool(&self, profile: &ProfileName, is_there: bool) -> Result<(), TableError> {
        let request = self
            .row_update()
            .update_expression(if is_there { "SET #pool = :yes" } else { "REMOVE #pool" })
            .expression_attribute_names("#pool", format!("{POOL}{profile}"));
        let yes = is_there.then(|| Item::from([(":yes".to_owned(), AttributeValue::Bool(true))]));
        self.write_row(request.set_expression_attribute_values(yes)).await?;
        Ok(())
    }

    fn row_update(&self) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(ROW.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// Writes the row. Returns `true` if the write's condition held.
    async fn write_row(&self, request: UpdateItemFluentBuilder) -> Result<bool, TableError> {
        match request.send().await {
            Ok(written) => {
                self.launches.see(written.attributes());
                Ok(true)
            }
            Err(SdkError::ServiceError(ref error))
                if let UpdateItemError::ConditionalCheckFailedException(found) = error.err() =>
            {
                self.launches.see(found.item());
                Ok(false)
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }
}

fn taking(request: UpdateItemFluentBuilder, take: Take, backlog_until: Option<Timestamp>) -> UpdateItemFluentBuilder {
    let Take { between: (least, most), creates, change, .. } = take;
    let within = "empty_at BETWEEN :least AND :most";
    let (set, by) = match change {
        Change::Add(micros) => ("empty_at + :by", micros),
        Change::Set(micros) => (":by", micros),
    };
    let backlog = if backlog_until.is_some() { ", backlog_until = :backlog" } else { "" };
    let request = request
        .update_expression(format!("SET empty_at = {set}{backlog}"))
        .condition_expression(if creates {
            format!("attribute_not_exists(empty_at) OR {within}")
        } else {
            within.to_owned()
        })
        .expression_attribute_values(":by", numeric(by))
        .expression_attribute_values(":least", numeric(least))
        .expression_attribute_values(":most", numeric(most));
    match backlog_until {
        Some(until) => request.expression_attribute_values(":backlog", moment(until)),
        None => request,
    }
}

fn capacity(of: &Item) -> Option<Capacity> {
    Some(Capacity {
        refusals: u32::try_from(number(of.get("refusals")?)?).ok()?,
        probe_at: Timestamp::from_millis(number(of.get("probe_at")?)?),
        changed_at: Timestamp::from_millis(number(of.get("changed_at")?)?),
    })
}

fn written(capacity: Capacity) -> AttributeValue {
    AttributeValue::M(Item::from([
        ("refusals".to_owned(), numeric(capacity.refusals.into())),
        ("probe_at".to_owned(), moment(capacity.probe_at)),
        ("changed_at".to_owned(), moment(capacity.changed_at)),
    ]))
}

fn numeric(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn moment(at: Timestamp) -> AttributeValue {
    numeric(at.millis())
}
