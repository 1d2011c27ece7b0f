//! A state of the world of pool sizing.

use std::{collections::BTreeSet, sync::Arc};

use ecs_bridge_core::{SubmissionId, pool::PoolRow};

use super::promise::SizingPromise;

/// A state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SizingWorld {
    pub(super) now: u8,
    pub(super) faults: u8,
    pub(super) row: Arc<PoolRow>,
    /// The number of claims.
    pub(super) taken: u64,
    pub(super) submissions: Vec<Submission>,
    pub(super) runners: Vec<Runner>,
    /// The submissions and runners that the index shows.
    pub(super) index: IndexView,
    pub(super) rounds: Vec<Round>,
    /// A round must begin, by the schedule or because submit triggered reconcile.
    pub(super) is_round_due: bool,
    /// The versions of the profile in submit and in reconcile.
    pub(super) versions: [usize; 2],
    pub(super) may_pause: bool,
    pub(super) broken: Option<SizingPromise>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Submission {
    New,
    /// submit has written its pool key to the pool's row.
    KeyRegistered(usize),
    Waiting {
        version: usize,
        since: u8,
    },
    Claimed,
    Ended,
}

/// A runner whose row exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Runner {
    pub(super) id: SubmissionId,
    pub(super) version: usize,
    pub(super) state: RunnerState,
    pub(super) served: u32,
    pub(super) created_at: u8,
    pub(super) polled_at: Option<u8>,
    pub(super) ended_at: u8,
    /// It has stopped polling, and ECS does not report that it ended.
    pub(super) is_silent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RunnerState {
    Starting,
    Idle,
    Busy(usize),
    Closing,
    Ended,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct IndexView {
    pub(super) waiting: Vec<usize>,
    pub(super) runners: Vec<usize>,
}

/// A round of sizing, and its next step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Round {
    /// The round has read the pool's row, and reads the index and the runners.
    Read { before: Arc<PoolRow>, version: usize },
    /// The round writes its decision to the pool's row.
    Claim { before: Arc<PoolRow>, after: Arc<PoolRow>, close: Vec<SubmissionId>, known: BTreeSet<SubmissionId> },
    /// The round creates the runners of the row that it has not seen.
    Create { row: Arc<PoolRow>, close: Vec<SubmissionId>, known: BTreeSet<SubmissionId> },
    /// The round closes idle runners.
    Close(Vec<SubmissionId>),
}

impl SizingWorld {
    pub(super) fn break_if(&mut self, promise: SizingPromise, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    /// Returns the current contents of the index.
    pub(super) fn index_view(&self) -> IndexView {
        let is_waiting = |it: &&Submission| matches!(it, Submission::Waiting { .. });
        let indexes = |all: &[bool]| all.iter().enumerate().filter(|(_, is)| **is).map(|(index, _)| index).collect();
        IndexView {
            waiting: indexes(&self.submissions.iter().map(|it| is_waiting(&it)).collect::<Vec<_>>()),
            runners: indexes(&self.runners.iter().map(|it| it.state != RunnerState::Ended).collect::<Vec<_>>()),
        }
    }

    pub(super) fn live_runners(&self) -> usize {
        self.runners.iter().filter(|runner| runner.state != RunnerState::Ended).count()
    }

    pub(super) fn end_runner(&mut self, runner: usize) {
        let now = self.now;
        if let Some(runner) = self.runners.get_mut(runner) {
            (runner.state, runner.ended_at) = (RunnerState::Ended, now);
        }
    }

    /// Advances time by half a day. Idle runners have polled since, and silent ones are stopped after a day and a half.
    pub(super) fn advance(&mut self) {
        self.now += 1;
        self.is_round_due = true;
        let now = self.now;
        for runner in &mut self.runners {
            match (runner.state, runner.is_silent) {
                (RunnerState::Idle | RunnerState::Closing, true)
                    if runner.polled_at.is_some_and(|at| now >= at + 3) =>
                {
                    (runner.state, runner.ended_at) = (RunnerState::Ended, now);
                }
                (RunnerState::Idle | RunnerState::Busy(_), false) => runner.polled_at = Some(now),
                _ => {}
            }
        }
    }
}
