//! The state that the function keeps between runs.

use std::{collections::BTreeMap, sync::Mutex};

use ecs_bridge_aws::{Bridge, Doorbells, read_profiles};
use ecs_bridge_core::{
    ProfileName,
    config::Environment,
    pool::{PoolKey, RunnerApiAddress, Spec},
};

/// The function's state between runs.
#[derive(Debug)]
pub struct App {
    /// The table, ECS and decision rules.
    pub bridge: Bridge,
    /// The pools of the deployment's profiles.
    pub pools: Pools,
    /// Announces submissions to idle runners.
    pub doorbells: Doorbells,
}

/// The pools of the deployment's profiles.
#[derive(Debug, Default)]
pub struct Pools {
    /// The pool key and the launch configuration of each profile with a pool.
    pub current: BTreeMap<ProfileName, (PoolKey, Spec)>,
    /// The address of the runner API, or none if there is no pool.
    pub runner_api: Option<RunnerApiAddress>,
    /// The doorbells that this process has tried to create, and whether it succeeded.
    pub doorbells: Mutex<BTreeMap<PoolKey, bool>>,
}

impl Pools {
    /// Reads the pools of the profiles in the environment. Without profiles there are no pools, because reconcile
    /// needs profiles for nothing else.
    pub fn read<F: Fn(&str) -> Option<String>>(environment: &mut Environment<F>) -> Self {
        let names = ["ECS_BRIDGE_PROFILES", "ECS_BRIDGE_PROFILES_FILE"];
        if names.iter().all(|name| environment.optional(name).is_none()) {
            return Self::default();
        }
        let clusters = environment.clusters();
        // The environment keeps the problems for the report.
        let Ok(profiles) = read_profiles(environment, &clusters) else { return Self::default() };
        let current = profiles.iter().filter_map(|(name, profile)| Some((name.clone(), profile.spec()?))).collect();
        let pools = Self { current, runner_api: environment.runner_api(), doorbells: Mutex::default() };
        if !pools.current.is_empty() && pools.runner_api.is_none() {
            environment.note(
                "ECS_BRIDGE_RUNNER_API_URL or ECS_BRIDGE_RUNNER_API_FUNCTION must be set, as a profile has a pool",
            );
        }
        pools
    }
}
