//! The state that the function keeps between invocations.

use ecs_bridge_aws::{Bridge, Wake};

use crate::{caller::Roles, takes::UnwrittenTakes};

/// The state that the function keeps between invocations.
#[derive(Debug)]
pub struct App {
    /// The table and the decision rules.
    pub bridge: Bridge,
    /// The allowed task roles of runners.
    pub roles: Roles,
    /// Invokes reconcile, which delivers notifications.
    pub wake: Wake,
    /// The takes of each pool that are not written yet.
    pub takes: UnwrittenTakes,
    /// `true` if direct invocations are allowed, which only the runner's token authenticates.
    pub takes_invocations: bool,
}
