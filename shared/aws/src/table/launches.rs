//! The launch rate's row: the bucket of launch tokens, what has capacity, which profiles have pools, and which run of
//! reconcile looks for work. Every write answers with the whole row, so that each process sees the rest for nothing.

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

/// What the attributes begin with that hold the capacity for a choice.
const CAPACITY: &str = "capacity/";

/// What the attributes begin with that name the profiles with a pool.
const POOL: &str = "pool/";

/// How long what was seen of capacity may be acted on.
const CAPACITY_KNOWN: Duration = Duration::from_secs(60);

/// How often launch tokens are asked for again when others took those that were there.
const TRIES: u32 = 3;

/// How long a reading is trusted that showed too few tokens, or a backlog.
const SCARCE: Duration = Duration::from_millis(250);

/// How long a backlog counts that reconcile has reported: it reports it with every write that takes tokens.
const BACKLOG: Duration = Duration::from_secs(3);

/// How far an index may lag behind the table for a run of reconcile to be relied on.
const INDEX_LAG: Duration = Duration::from_secs(2);

/// How far apart invocations of reconcile are.
const WAKES_APART: Duration = Duration::from_secs(1);

/// A moment further ahead than this was written by a clock that is ahead.
const FUTURE: Duration = Duration::from_secs(60);

/// How long a run of reconcile that was woken looks for work: whatever was written while it was being invoked, and the
/// index shows late, is found.
pub const WOKEN_LOOKS: Duration = Duration::from_secs(WAKES_APART.as_secs() + INDEX_LAG.as_secs());

/// The row as this process last saw it.
#[derive(Debug, Default)]
pub(super) struct LaunchRow(Mutex<Seen>);

#[derive(Clone, Debug, Default)]
struct Seen {
    /// If the row was there.
    bucket: Option<Bucket>,
    capacity: Capacities,
    pools: Vec<ProfileName>,
    /// Until when a run of reconcile reads the indexes again and again. It only rises: nobody takes it back.
    looks_until: Option<Timestamp>,
    /// The last run that began.
    run: Option<u64>,
    /// Until when reconcile has more to launch than launch tokens.
    backlog_until: Option<Timestamp>,
    /// Whether tokens were lacking when it was last seen.
    is_scarce: bool,
    seen_at: Timestamp,
}

/// What came of beginning a run of reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number, which is random.
    pub run: u64,
    /// Until when it has promised to look for work.
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
    /// Whether reconcile launches what waits, and others leave the tokens to it.
    fn has_backlog(&self, now: Timestamp) -> bool {
        self.backlog_until.is_some_and(|until| now < until && until < now.plus(FUTURE))
    }

    /// Whether a run of reconcile reads the indexes late enough to find what is written `now`.
    fn is_looked_for(&self, now: Timestamp) -> bool {
        self.looks_until.is_some_and(|until| until >= now.plus(INDEX_LAG) && until < now.plus(FUTURE))
    }
}

impl Table {
    /// Takes up to `wanted` launch tokens from the deployment's bucket, for a submission just received. While reconcile
    /// has more to launch than tokens, it gets none: what has waited goes first.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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
        // A read costs a tenth of a write that fails.
        if is_scarce && crate::now().since(seen_at) >= SCARCE {
            self.look_at_launch_tokens().await?;
        }
        if self.launches.lock().has_backlog(now) {
            self.launches.lock().is_scarce = true;
            return Ok(0);
        }
        self.take_tokens(wanted, None, now, rate).await
    }

    /// Takes up to `wanted` launch tokens from the deployment's bucket, for `waiting` that are due. If they are more than
    /// tokens, the row says so for a while.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// Returns launch tokens that were taken and not used. The bucket never holds more than its burst.
    ///
    /// Without the SDK's retries: after a lost answer, a retry would return the same tokens twice.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the tokens are then lost, or not.
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

    /// Reads the row: who starts without it would assume a full bucket, and ask for tokens that are not there. Half a
    /// read unit.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn look_at_launch_tokens(&self) -> Result<(), TableError> {
        let request = self.client.get_item().table_name(&self.name);
        let request = request.key(KEY, AttributeValue::S(ROW.to_owned()));
        let answer = request.send().await.map_err(TableError::call("GetItem"))?;
        self.launches.see(answer.item());
        Ok(())
    }

    /// What was last seen of capacity; nothing if that was a minute or more before `now`.
    pub fn capacity(&self, now: Timestamp) -> Capacities {
        let seen = self.launches.lock();
        if now.since(seen.seen_at) < CAPACITY_KNOWN { seen.capacity.clone() } else { Capacities::default() }
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

    /// Claims an invocation of reconcile for what was written before `now`. Answers whether it is to be invoked: not where
    /// a run looks for work late enough to find it, or another process has just claimed one.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn claim_wake(&self, now: Timestamp) -> Result<bool, TableError> {
        if self.launches.lock().is_looked_for(now) {
            return Ok(false);
        }
        // A read costs a tenth of a claim that fails.
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

    /// Begins a run of reconcile that looks for work for so long at least. A run that began before it begins nothing more,
    /// so this one keeps what that has promised: others rely on it without reading it again.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// Prolongs the promise of a run. Answers whether it is still the last one that began.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// Whether no later run has begun, as far as this process has seen.
    pub fn is_last_run(&self, begun: &Begun) -> bool {
        self.launches.lock().run.is_none_or(|run| run == begun.run)
    }

    /// The profiles that have a pool, as last seen.
    pub fn pools(&self) -> Vec<ProfileName> {
        self.launches.lock().pools.clone()
    }

    /// Notes that a profile has a pool, so that what waits is served although the profile may be removed; or forgets it.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
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

    /// Answers whether the row was as the write's condition has it.
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
