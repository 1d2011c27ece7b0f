//! A due record on its way to its launch.

use std::sync::atomic::{AtomicUsize, Ordering};

use ecs_bridge_aws::BridgeError;
use ecs_bridge_core::{Action, Input, Record};

use crate::run::{Claimed, Run};

/// The counters shared by the two ends of the stream.
#[derive(Debug, Default)]
pub struct Counters {
    /// Tokens that were taken and not used.
    pub tokens: AtomicUsize,
    /// Claims in progress.
    pub under_way: AtomicUsize,
}

impl Counters {
    /// Takes one of the unused tokens. Returns `false` if there is none.
    pub fn take_token(&self) -> bool {
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(1)).is_ok()
    }
}

/// A due record as read from the index.
pub struct Candidate {
    /// The record.
    pub record: Record,
    /// What to decide on.
    pub input: Input,
    /// `true` if it holds a launch token.
    pub has_token: bool,
}

impl Candidate {
    /// Claims the record and takes the due action, usually RunTask. Keeps a token that was not used.
    pub async fn claim(self, run: &Run<'_>, counters: &Counters) -> Result<Claimed, BridgeError> {
        let outcome = run.claim(self.record, &self.input).await;
        // A record whose write failed may have been launched.
        let used = matches!(&outcome, Ok(Claimed::Done { action: Some(Action::RunTask(_)), .. }) | Err(_));
        if self.has_token && !used {
            counters.tokens.fetch_add(1, Ordering::Relaxed);
        }
        counters.under_way.fetch_sub(1, Ordering::Relaxed);
        outcome
    }
}
