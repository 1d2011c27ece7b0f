//! The table: rows by id, and pages of its indexes.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, IndexStatus, KeysAndAttributes};
use serde_json::{Number, Value};

use super::connection::Client;
use super::error::ClientError;
use crate::record::Record;

/// DynamoDB's limit on the keys of a BatchGetItem.
pub const BATCH: usize = 100;

/// The key of the row of the launch rate, which also names the profiles with a pool, and the capacity options.
pub const LAUNCH_RATE: &str = "#launch-rate";

/// A row of DynamoDB.
pub type Item = HashMap<String, AttributeValue>;

/// Rows of an index, and the key after which the next page starts.
pub type Page = (Vec<Item>, Option<Item>);

/// The table of a bridge.
pub struct Table {
    pub(super) name: String,
    /// The endpoint of DynamoDB, if it differs from the AWS endpoint.
    endpoint: Option<String>,
    pub(super) client: aws_sdk_dynamodb::Client,
}

impl Client {
    /// Returns the table of the bridge.
    pub(super) fn table(&self) -> Result<Table, ClientError> {
        let unknown =
            ClientError::Missing { what: "the name of the table", flag: "--table NAME", variable: "ECS_BRIDGE_TABLE" };
        let name = self.table.clone().ok_or(unknown)?;
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.config);
        if let Some(endpoint) = &self.dynamodb_url {
            config.set_endpoint_url(Some(endpoint.clone()));
        }
        Ok(Table {
            name,
            endpoint: self.dynamodb_url.clone(),
            client: aws_sdk_dynamodb::Client::from_conf(config.build()),
        })
    }

    /// Returns the names of the active indexes.
    pub async fn table_indexes(&self) -> Result<BTreeSet<String>, ClientError> {
        let table = self.table()?;
        let answer = table.client.describe_table().table_name(&table.name).send().await;
        let shown = answer.map_err(|error| table.error(error))?.table;
        let indexes = shown.and_then(|table| table.global_secondary_indexes).unwrap_or_default();
        let active = indexes.into_iter().filter(|index| index.index_status == Some(IndexStatus::Active));
        Ok(active.filter_map(|index| index.index_name).collect())
    }

    /// Returns the records of these ids, in any order.
    pub async fn records(&self, ids: &[String]) -> Result<Vec<Record>, ClientError> {
        self.table()?.records(ids).await
    }

    /// Returns the records of the last `most` submissions that ended, newest first.
    pub async fn ended(&self, most: usize) -> Result<Vec<Record>, ClientError> {
        self.ended_since(0, most).await
    }

    /// Returns the records of the last `most` submissions that ended at `since` (epoch milliseconds) or later, newest first.
    pub async fn ended_since(&self, since: i64, most: usize) -> Result<Vec<Record>, ClientError> {
        let deployment = self.deployment()?;
        let table = self.table()?;
        let ids = table.ids_since(deployment, since, most).await?;
        let mut records = table.records(&ids).await?;
        let changed = |record: &Record| record.get("changed_at").and_then(Value::as_u64);
        records.sort_by_key(|record| std::cmp::Reverse(changed(record)));
        Ok(records)
    }
}

impl Table {
    /// Reads one page of a partition of an index, in order.
    pub async fn page(
        &self,
        index: &str,
        partition: &str,
        limit: usize,
        from: Option<Item>,
    ) -> Result<Page, ClientError> {
        let answer = self
            .partition(index, partition)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|error| self.error(error))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    /// Returns a row, read consistently, or an empty record.
    pub async fn row(&self, key: &str) -> Result<Record, ClientError> {
        let key = AttributeValue::S(key.to_owned());
        let request = self.client.get_item().table_name(&self.name).key("submission_id", key).consistent_read(true);
        let answer = request.send().await.map_err(|error| self.error(error))?;
        Ok(answer.item.into_iter().flatten().map(|(name, value)| (name, plain(value))).collect())
    }

    /// Returns the keys of the submissions of a deployment that ended at `since` or later, newest first.
    pub async fn ids_since(&self, deployment: &str, since: i64, most: usize) -> Result<Vec<String>, ClientError> {
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("feed")
            .key_condition_expression("feed = :feed AND changed_at >= :since")
            .expression_attribute_values(":feed", AttributeValue::S(deployment.to_owned()))
            .expression_attribute_values(":since", AttributeValue::N(since.to_string()))
            .scan_index_forward(false);
        self.ids(query, most).await
    }

    /// Returns the keys of a partition of an index, from either end.
    pub async fn ids_of(
        &self,
        index: &str,
        partition: &str,
        most: usize,
        forward: bool,
    ) -> Result<Vec<String>, ClientError> {
        self.ids(self.partition(index, partition).scan_index_forward(forward), most).await
    }

    /// Returns a query of a partition of an index.
    fn partition(&self, index: &str, partition: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .index_name(index)
            .key_condition_expression("#partition = :partition")
            .expression_attribute_names("#partition", index)
            .expression_attribute_values(":partition", AttributeValue::S(partition.to_owned()))
    }

    async fn ids(&self, query: QueryFluentBuilder, most: usize) -> Result<Vec<String>, ClientError> {
        let mut pages = query.into_paginator().items().send();
        let mut ids = Vec::new();
        while ids.len() < most {
            let Some(item) = pages.next().await else { break };
            let item = item.map_err(|error| self.error(error))?;
            ids.extend(submission_id(&item));
        }
        Ok(ids)
    }

    /// Returns rows by their ids, eventually consistent.
    pub async fn records(&self, ids: &[String]) -> Result<Vec<Record>, ClientError> {
        self.projected(ids, None).await
    }

    /// Returns rows by their ids, eventually consistent, with only these attributes if any are given.
    pub async fn projected(&self, ids: &[String], attributes: Option<&[&str]>) -> Result<Vec<Record>, ClientError> {
        let mut records = Vec::new();
        for batch in ids.chunks(BATCH) {
            let key = |id: &String| [("submission_id".to_owned(), AttributeValue::S(id.clone()))].into();
            let mut keys = KeysAndAttributes::builder().set_keys(Some(batch.iter().map(key).collect()));
            for (at, name) in attributes.into_iter().flatten().enumerate() {
                keys = keys.expression_attribute_names(format!("#{at}"), *name);
            }
            let names =
                attributes.map(|names| (0..names.len()).map(|at| format!("#{at}")).collect::<Vec<_>>().join(", "));
            let keys = keys.set_projection_expression(names).build();
            let mut left = Some([(self.name.clone(), keys.map_err(|error| self.error(error))?)].into());
            while let Some(keys) = left.filter(|left: &HashMap<_, _>| !left.is_empty()) {
                let answer = self.client.batch_get_item().set_request_items(Some(keys)).send().await;
                let answer = answer.map_err(|error| self.error(error))?;
                let items = answer.responses.into_iter().flatten().flat_map(|(_, items)| items);
                records.extend(items.map(|item| item.into_iter().map(|(name, value)| (name, plain(value))).collect()));
                left = answer.unprocessed_keys;
            }
        }
        Ok(records)
    }

    /// Returns the error of a call.
    pub fn error(&self, error: impl Into<aws_sdk_dynamodb::Error>) -> ClientError {
        ClientError::Table { table: self.name.clone(), endpoint: self.endpoint.clone(), source: Box::new(error.into()) }
    }
}

/// Returns the id of a row.
pub fn submission_id(item: &Item) -> Option<String> {
    item.get("submission_id").and_then(|id| id.as_s().ok()).cloned()
}

/// Converts an attribute to JSON. Bytes, which no record shows, become null.
fn plain(value: AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => text.into(),
        AttributeValue::N(number) => number.parse::<Number>().map_or(Value::Null, Value::Number),
        AttributeValue::Bool(truth) => truth.into(),
        AttributeValue::L(items) => items.into_iter().map(plain).collect(),
        AttributeValue::M(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        AttributeValue::Ss(texts) => texts.into(),
        _ => Value::Null,
    }
}
