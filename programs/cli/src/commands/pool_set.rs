//! `ecs-bridge pool set`

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use thiserror::Error;

use crate::client::error::ClientError;
use crate::client::find::BridgeOptions;
use crate::client::pool_row::{Limits, PoolRow};
use crate::output::{self, now};

/// The limit on the runners of a pool.
const MOST: i64 = 10_000;

/// Override the limits of a pool, or pause it; reconcile applies the change within one minute
#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub struct PoolSet {
    /// The profile
    profile: String,
    /// Run up to N runners, from 1 to 10000
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(i64).range(1..=MOST))]
    max: Option<i64>,
    /// Keep at least N idle runners
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(i64).range(0..=MOST))]
    min_idle: Option<i64>,
    /// Launch no runners and dispatch no commands
    #[arg(long, group = "change", conflicts_with = "resume")]
    pause: bool,
    /// End a pause
    #[arg(long, group = "change")]
    resume: bool,
    /// Return to the limits of the profile
    #[arg(long, group = "change", conflicts_with_all = ["max", "min_idle"])]
    reset: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

/// The cause of a failed change.
#[derive(Debug, Error)]
pub enum PoolSetError {
    /// The bridge failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The profile has no pool, or reconcile has not read it yet.
    #[error("profile \"{profile}\" has no pool; profiles with a pool: {known}")]
    NoPool {
        /// The profile.
        profile: String,
        /// The profiles with a pool.
        known: String,
    },
    /// The limits contradict each other.
    #[error("min_idle is {min_idle}; it must not exceed max, which is {max}: pass --max or --min-idle")]
    Limits {
        /// The minimum number of idle runners.
        min_idle: i64,
        /// The maximum number of runners.
        max: i64,
    },
    /// Another process wrote the row at every try.
    #[error("other processes changed the pool at the same time; try again")]
    Busy,
}

impl PoolSet {
    pub fn run(self) -> Result<(), PoolSetError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.set())
    }

    async fn set(self) -> Result<(), PoolSetError> {
        const TRIES: usize = 5;
        let client = self.bridge.find().await?;
        let known: BTreeSet<_> = client.pools().await?.into_iter().collect();
        if !known.contains(&self.profile) {
            let known = if known.is_empty() { "none".to_owned() } else { Vec::from_iter(known).join(", ") };
            return Err(PoolSetError::NoPool { profile: self.profile, known });
        }
        let by = client.caller().await?;
        for _ in 0..TRIES {
            let row = client.pool(&self.profile).await?;
            if client.set_pool(&self.profile, row.rev(), &self.changes(&row, &by)?).await? {
                let row = client.pool(&self.profile).await?;
                let Limits { max, min_idle } = row.limits();
                let paused = if row.is_paused() { ", paused" } else { "" };
                output::say(format!("{}: max {max}, min_idle {min_idle}{paused}", self.profile));
                return Ok(());
            }
        }
        Err(PoolSetError::Busy)
    }

    /// Returns the attributes to set, and those to remove.
    fn changes(&self, row: &PoolRow, by: &str) -> Result<BTreeMap<&'static str, Option<Value>>, PoolSetError> {
        let before = row.limits();
        let limits = Limits {
            max: self.max.unwrap_or(before.max),
            min_idle: self.min_idle.unwrap_or(if self.reset { 0 } else { before.min_idle }),
        };
        if limits.min_idle > limits.max {
            return Err(PoolSetError::Limits { min_idle: limits.min_idle, max: limits.max });
        }
        let mut changes = BTreeMap::from([("changed_by", Some(json!(by))), ("changed_at", Some(json!(now())))]);
        for (name, value) in [("max", self.max), ("min_idle", self.min_idle)] {
            if self.reset || value.is_some() {
                changes.insert(name, value.map(Value::from));
            }
        }
        if self.pause || self.resume {
            changes.insert("paused", Some(json!(self.pause)));
        }
        Ok(changes)
    }
}
