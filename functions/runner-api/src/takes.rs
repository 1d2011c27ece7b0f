//! Counts of takes, by which pools are sized.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ecs_bridge_core::{ProfileName, pool::Takes};

/// The time for which takes are counted in memory before they are written.
const COUNTED: Duration = Duration::from_secs(1);

/// The takes of each pool that are not written yet, and the time of the last write.
#[derive(Debug, Default)]
pub struct UnwrittenTakes(Mutex<BTreeMap<ProfileName, (Takes, Option<Instant>)>>);

impl UnwrittenTakes {
    /// Counts a take. Returns the takes to write, if their time has come: at once after a quiet period, and once per
    /// second under load.
    pub fn add(&self, profile: &ProfileName, found_idle: bool) -> Option<Takes> {
        let mut takes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (counted, written_at) = takes.entry(profile.clone()).or_default();
        counted.taken += 1;
        counted.found_idle += u64::from(found_idle);
        if written_at.is_some_and(|at| at.elapsed() < COUNTED) {
            return None;
        }
        *written_at = Some(Instant::now());
        Some(std::mem::take(counted))
    }
}
