//! The rows of pools, and the index `pool`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use super::connection::Client;
use super::error::ClientError;
use super::pool_row::PoolRow;
use super::table::{LAUNCH_RATE, submission_id};
use crate::record::millis;

/// The submissions that wait under a pool key.
pub struct Waiting {
    /// The number of submissions.
    pub count: i64,
    /// The time of submission of the oldest among the first ones, in epoch milliseconds.
    pub oldest_at: Option<i64>,
}

impl Waiting {
    /// Reads only the first rows. A later one with a lower priority may be older by up to ten minutes.
    pub async fn read(client: &Client, key: &str) -> Result<Self, ClientError> {
        const FIRST: usize = 25;
        let ids = client.in_pool(key).await?;
        let first = client.records(ids.get(..FIRST).unwrap_or(&ids)).await?;
        let oldest_at = first.iter().filter_map(|record| millis(record, "created_at")).min();
        Ok(Self { count: ids.len() as i64, oldest_at })
    }
}

impl Client {
    /// Returns the profiles that have a pool.
    pub async fn pools(&self) -> Result<Vec<String>, ClientError> {
        let row = self.table()?.row(LAUNCH_RATE).await?;
        let mut names: Vec<_> = row.keys().filter_map(|name| name.strip_prefix("pool/").map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Returns the row of the pool of a profile, or an empty one.
    pub async fn pool(&self, profile: &str) -> Result<PoolRow, ClientError> {
        Ok(PoolRow::new(self.table()?.row(&pool_row(profile)).await?))
    }

    /// Returns the ids in a partition of the index `pool`, in the order in which they are served.
    pub async fn in_pool(&self, partition: &str) -> Result<Vec<String>, ClientError> {
        self.table()?.ids_of("pool", partition, usize::MAX, true).await
    }

    /// Returns the first ids in a partition of the index `pool`, and `true` if there are more.
    pub async fn first_in_pool(&self, partition: &str, limit: usize) -> Result<(Vec<String>, bool), ClientError> {
        let table = self.table()?;
        let (items, next) = table.page("pool", partition, limit, None).await?;
        Ok((items.iter().filter_map(submission_id).collect(), next.is_some()))
    }

    /// Sets attributes of the row of a pool, and removes those without a value, on condition that the row has this `rev`.
    /// Returns `false` if another process changed the row.
    pub async fn set_pool(
        &self,
        profile: &str,
        rev: Option<i64>,
        changes: &BTreeMap<&'static str, Option<Value>>,
    ) -> Result<bool, ClientError> {
        let table = self.table()?;
        let key = AttributeValue::S(pool_row(profile));
        let mut request = table.client.update_item().table_name(&table.name).key("submission_id", key);
        let (mut set, mut remove) = (vec!["#rev = :next".to_owned()], Vec::new());
        for (name, value) in changes {
            request = request.expression_attribute_names(format!("#{name}"), *name);
            match value.as_ref().and_then(attribute) {
                Some(value) => {
                    set.push(format!("#{name} = :{name}"));
                    request = request.expression_attribute_values(format!(":{name}"), value);
                }
                None => remove.push(format!("#{name}")),
            }
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        let number = |number: i64| AttributeValue::N(number.to_string());
        request = match rev {
            Some(rev) => request.condition_expression("#rev = :rev").expression_attribute_values(":rev", number(rev)),
            None => request.condition_expression("attribute_not_exists(#rev)"),
        };
        let request = request
            .update_expression(expression)
            .expression_attribute_names("#rev", "rev")
            .expression_attribute_values(":next", number(rev.unwrap_or_default() + 1));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match aws_sdk_dynamodb::Error::from(error) {
                aws_sdk_dynamodb::Error::ConditionalCheckFailedException(_) => Ok(false),
                error => Err(table.error(error)),
            },
        }
    }
}

/// Returns the key of the row of a pool.
fn pool_row(profile: &str) -> String {
    format!("#pool/{profile}")
}

/// Converts a string, a number or a boolean to an attribute.
fn attribute(value: &Value) -> Option<AttributeValue> {
    match value {
        Value::String(text) => Some(AttributeValue::S(text.clone())),
        Value::Number(number) => Some(AttributeValue::N(number.to_string())),
        Value::Bool(truth) => Some(AttributeValue::Bool(*truth)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
