//! The work that a call leaves to reconcile, and the messages that start it.

use std::collections::BTreeMap;

use ecs_bridge_core::{ProfileName, Record, State, api::ItemAnswer};

use crate::{app::App, pools::PoolRows};

/// Work that a call leaves to reconcile.
pub enum FollowUp {
    /// No work.
    None,
    /// A launch, or a notification.
    Due,
    /// A runner, if needed: the submission waits in the pool of this profile.
    Waiting(ProfileName),
}

impl FollowUp {
    /// Returns the work that a record needs, as this call has written it.
    pub fn of(record: &Record) -> Self {
        match (record.state() == State::Queued, record.pooled().is_some(), &record.profile) {
            (true, true, Some(profile)) => Self::Waiting(profile.clone()),
            (true, _, _) => Self::Due,
            (false, _, _) if has_pending_notifications(record) => Self::Due,
            (false, _, _) => Self::None,
        }
    }
}

impl App {
    /// Announces the submissions left to runners to idle runners.
    pub async fn ring(&self, answers: &[(ItemAnswer, FollowUp)], pools: &PoolRows) {
        for (profile, row) in pools {
            let key = self.profiles.get(profile).and_then(|profile| profile.pool.as_ref()).map(|(key, _)| key);
            let doorbell = key.and_then(|key| row.specs.get(key)?.doorbell.as_deref());
            let Some(url) = doorbell.filter(|_| !row.paused) else { continue };
            let left = answers.iter().filter(|(_, left)| matches!(left, FollowUp::Waiting(of) if of == profile));
            let ids: Vec<_> = left.filter_map(|(answer, _)| answer.submission_id.as_ref()).collect();
            self.doorbells.ring(url, &ids).await;
        }
    }

    /// Wakes reconcile if it has something to launch.
    pub async fn wake_for(&self, left: impl Iterator<Item = &FollowUp>, pools: &PoolRows) {
        let mut waiting: BTreeMap<&ProfileName, u64> = BTreeMap::new();
        let mut is_needed = false;
        for left in left {
            match left {
                FollowUp::None => {}
                FollowUp::Due => is_needed = true,
                FollowUp::Waiting(profile) => *waiting.entry(profile).or_default() += 1,
            }
        }
        for (profile, left) in waiting {
            is_needed |= match pools.get(profile) {
                Some(row) => self.idle_capacity.is_exceeded_by(row, profile, left).await,
                None => true,
            };
        }
        if is_needed {
            self.wake.wake(&self.bridge.table).await;
        }
    }
}

/// Returns `true` if reconcile has completion notifications to deliver.
pub fn has_pending_notifications(record: &Record) -> bool {
    record.state().is_terminal() && !record.is_settled()
}
