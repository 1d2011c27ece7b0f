//! The state that the function keeps between invocations.

use ecs_bridge_aws::{Bridge, Doorbells, Wake};
use ecs_bridge_core::{
    notify::Listeners,
    pool::RunnerApiAddress,
    profile::{Clusters, Profiles},
};

use crate::idle_capacity::IdleCapacity;

/// The state that the function keeps between invocations.
#[derive(Debug)]
pub struct App {
    /// The table, ECS and decision rules.
    pub bridge: Bridge,
    /// The deployment's profiles.
    pub profiles: Profiles,
    /// The clusters that the function's role allows.
    pub clusters: Clusters,
    /// The notification targets that the function's role allows.
    pub listeners: Listeners,
    /// Wakes reconcile, which launches queued submissions.
    pub wake: Wake,
    /// The address of the runner API.
    pub runner_api: Option<RunnerApiAddress>,
    /// Announces submissions to idle runners.
    pub doorbells: Doorbells,
    /// The idle capacity of pools, as far as this process knows.
    pub idle_capacity: IdleCapacity,
}
