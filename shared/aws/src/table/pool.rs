//! Pools: the index of waiting submissions and runners, and each pool's row.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{error::SdkError, operation::update_item::UpdateItemError, types::AttributeValue};
use ecs_bridge_core::{
    ProfileName, SubmissionId, Timestamp,
    pool::{PoolKey, PoolRow, Spec, Takes, row_key, taken_key},
    priority::Priority,
};
use serde_dynamo::aws_sdk_dynamodb_1::{from_attribute_value, from_item, to_item};

use super::{Item, KEY, Page, Table, TableError, difference, number};

/// A row of the `pool` index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The record's key.
    pub submission_id: SubmissionId,
    /// The rank in the queue.
    pub rank: Timestamp,
    /// Its priority.
    pub priority: Priority,
}

impl Table {
    /// Returns up to `limit` rows of a partition of the `pool` index, in the order of service.
    ///
    /// The index is eventually consistent, so a row may have been taken since.
    ///
    /// # Errors
    /// If DynamoDB is unavailable.
    pub async fn ranked(&self, partition: &str, limit: usize) -> Result<Vec<Ranked>, TableError> {
        let mut rows = Vec::new();
        let mut page = Page::default();
        loop {
            let left = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX);
            let answer = self
                .client
                .query()
                .table_name(&self.name)
                .index_name("pool")
                .key_condition_expression("#pool = :pool")
                .expression_attribute_names("#pool", "pool")
                .expression_attribute_values(":pool", AttributeValue::S(partition.to_owned()))
                .limit(left)
                .set_exclusive_start_key(page.next)
                .send()
                .await
                .map_err(TableError::call("Query"))?;
            rows.extend(answer.items().iter().filter_map(ranked));
            page.next = answer.last_evaluated_key;
            if page.is_last() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }

    /// Reads a pool's row consistently. Returns an empty row if it does not exist.
    ///
    /// # Errors
    /// If DynamoDB is unavailable or the row cannot be parsed.
    pub async fn pool_row(&self, profile: &ProfileName) -> Result<PoolRow, TableError> {
        let key = row_key(profile);
        let request = self.client.get_item().table_name(&self.name).key(KEY, AttributeValue::S(key.clone()));
        let answer = request.consistent_read(true).send().await.map_err(TableError::call("GetItem"))?;
        let Some(mut item) = answer.item else { return Ok(PoolRow::default()) };
        let unreadable = take_unreadable(&mut item);
        let row: PoolRow = from_item(item).map_err(|source| TableError::Row { submission_id: key, source })?;
        Ok(PoolRow { unreadable, ..row })
    }

    /// Returns the unreadable entries of `specs` as stored in the table.
    async fn unreadable_specs(&self, profile: &ProfileName, row: &PoolRow) -> Result<Item, TableError> {
        if row.unreadable.is_empty() {
            return Ok(Item::new());
        }
        let request = self.client.get_item().table_name(&self.name).key(KEY, AttributeValue::S(row_key(profile)));
        let answer = request.consistent_read(true).send().await.map_err(TableError::call("GetItem"))?;
        let Some(AttributeValue::M(mut specs)) = answer.item.and_then(|mut item| item.remove(SPECS)) else {
            return Ok(Item::new());
        };
        specs.retain(|key, _| row.unreadable.keys().any(|unreadable| unreadable.as_str() == key));
        Ok(specs)
    }

    /// Writes the differences between `before` and `after` if the row is still at the `rev` of `before`. Returns
    /// `true` if it was.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The write may have happened or not.
    pub async fn update_pool_row(
        &self,
        profile: &ProfileName,
        before: &PoolRow,
        after: &PoolRow,
    ) -> Result<bool, TableError> {
        let key = row_key(profile);
        let item = |row: &PoolRow| {
            let row: Result<Item, _> = to_item(row);
            row.map_err(|source| TableError::Row { submission_id: key.clone(), source })
        };
        let request = self.client.update_item().table_name(&self.name).key(KEY, AttributeValue::S(key.clone()));
        // A row that only an operator has written has no `rev` yet.
        let unchanged = if before.rev == 0 { "attribute_not_exists(#rev)" } else { "#rev = :before" };
        let request = request.condition_expression(unchanged).expression_attribute_names("#rev", "rev");
        let request = if before.rev == 0 {
            request
        } else {
            request.expression_attribute_values(":before", AttributeValue::N(before.rev.to_string()))
        };
        let old = if before.rev == 0 { Item::new() } else { item(before)? };
        let mut new = item(after)?;
        if old.get(SPECS) != new.get(SPECS) {
            // This writes all entries. If another process has changed an unreadable one, `rev` detects it.
            let unreadable = self.unreadable_specs(profile, after).await?;
            if !unreadable.is_empty()
                && let AttributeValue::M(specs) =
                    new.entry(SPECS.to_owned()).or_insert_with(|| AttributeValue::M(Item::new()))
            {
                specs.extend(unreadable);
            }
        }
        match difference(request, &old, new).send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(ref error))
                if matches!(error.err(), UpdateItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(TableError::call("UpdateItem")(error)),
        }
    }

    /// Ensures that the pool's row contains the launch configuration of runners with this key. Submissions accepted
    /// under the key are thus served even if the profile changes. Returns the row.
    ///
    /// # Errors
    /// If DynamoDB is unavailable, the row cannot be parsed, or other processes keep changing it.
    pub async fn keep_pool(&self, profile: &ProfileName, (key, spec): &(PoolKey, Spec)) -> Result<PoolRow, TableError> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            let before = self.pool_row(profile).await?;
            let mut row = before.clone();
            if !row.keep(key, spec) {
                return Ok(row);
            }
            row.rev += 1;
            self.set_pool(profile, true).await?;
            if self.update_pool_row(profile, &before, &row).await? {
                return Ok(row);
            }
        }
        Err(TableError::Call { operation: "UpdateItem", reason: "the pool's row kept changing".to_owned() })
    }

    /// Returns the total takes of a pool.
    ///
    /// # Errors
    /// If DynamoDB is unavailable or the row cannot be parsed.
    pub async fn takes(&self, profile: &ProfileName) -> Result<Takes, TableError> {
        let key = taken_key(profile);
        let request = self.client.get_item().table_name(&self.name).key(KEY, AttributeValue::S(key.clone()));
        let answer = request.consistent_read(true).send().await.map_err(TableError::call("GetItem"))?;
        let row = answer.item.map(from_item).transpose();
        Ok(row.map_err(|source| TableError::Row { submission_id: key, source })?.unwrap_or_default())
    }

    /// Counts taken submissions, in a separate row.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The count is a hint for sizing, so no retry is needed.
    pub async fn count_taken(&self, profile: &ProfileName, takes: Takes) -> Result<(), TableError> {
        let request = self.client.update_item().table_name(&self.name);
        request
            .key(KEY, AttributeValue::S(taken_key(profile)))
            .update_expression("ADD taken :taken, found_idle :found")
            .expression_attribute_values(":taken", AttributeValue::N(takes.taken.to_string()))
            .expression_attribute_values(":found", AttributeValue::N(takes.found_idle.to_string()))
            .send()
            .await
            .map_err(TableError::call("UpdateItem"))?;
        Ok(())
    }
}

const SPECS: &str = "specs";

/// Removes the unreadable entries from `specs`, so that the others can be parsed. Returns their errors.
fn take_unreadable(item: &mut Item) -> BTreeMap<PoolKey, String> {
    let mut unreadable = BTreeMap::new();
    let Some(AttributeValue::M(specs)) = item.get_mut(SPECS) else { return unreadable };
    specs.retain(|key, value| {
        let spec: Result<Spec, _> = from_attribute_value(value.clone());
        let (Err(error), Ok(key)) = (spec, from_attribute_value(AttributeValue::S(key.clone()))) else { return true };
        unreadable.insert(key, error.to_string());
        false
    });
    unreadable
}

fn ranked(item: &Item) -> Option<Ranked> {
    let priority = item.get("priority").and_then(number).and_then(|number| u16::try_from(number).ok());
    Some(Ranked {
        submission_id: item.get(KEY)?.as_s().ok()?.parse().ok()?,
        rank: Timestamp::from_millis(number(item.get("rank")?)?),
        priority: priority.and_then(|number| number.try_into().ok()).unwrap_or_default(),
    })
}
