//! One sizing round of one pool.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    sync::Mutex,
};

use ecs_bridge_aws::{BridgeError, TableError};
use ecs_bridge_core::{
    ProfileName, SubmissionId, Timestamp,
    pool::{Count, PoolKey},
};

use crate::run::Run;

/// The cause of a failed round. The next round repeats its work.
#[derive(Debug, thiserror::Error)]
pub enum SizeError {
    /// DynamoDB is unavailable.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A runner could not be changed.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The operating system returned no random number.
    #[error("random number generation failed")]
    Random(#[from] getrandom::Error),
    /// A launch configuration cannot be read.
    #[error("invalid launch configuration of runners")]
    Spec(#[from] io::Error),
}

/// One sizing round of one pool.
pub struct Round<'a> {
    /// The run.
    pub run: &'a Run<'a>,
    /// The profile with the pool.
    pub profile: &'a ProfileName,
    /// Keys of waiting submissions whose timers were served. The pool's row may not list them.
    pub keys: Option<&'a BTreeSet<PoolKey>>,
    /// `true` in the first round of this run.
    pub is_first: bool,
    /// The submissions that this run has announced to idle runners.
    pub announced: &'a Mutex<HashSet<SubmissionId>>,
    /// The time of the round.
    pub now: Timestamp,
}

/// The totals of the rounds of all pools.
#[derive(Debug, Default)]
pub struct Totals {
    /// Submissions and runners.
    pub count: Count,
    /// Pools whose runners fail to start.
    pub failing: usize,
    /// Submissions that no runner can serve.
    pub stuck: u32,
    /// `true` if a submission waits that a runner will serve.
    pub waits: bool,
}

impl Totals {
    /// Adds the totals of a round.
    pub fn add(&mut self, round: &Self) {
        self.count.waiting += round.count.waiting;
        self.count.starting += round.count.starting;
        self.count.idle += round.count.idle;
        self.count.busy += round.count.busy;
        self.failing += round.failing;
        self.stuck += round.stuck;
        self.waits |= round.waits;
    }
}
