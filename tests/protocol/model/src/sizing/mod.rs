//! The number of runners of a pool, in a small world: rounds of reconcile that overlap and die, an index that lags, runners
//! that fail to start or stop polling, a profile that changes in submit and reconcile in either order, and a pause.
//!
//! The counting and the decisions are the real ones, on the real row of the pool. Each read and each write of a round is a
//! separate step. The claims of commands are modeled in detail by [`Pools`](crate::Pools). Here, an idle runner claims a
//! waiting submission in one step.
//!
//! A tick is half a day, because a pool key is kept for a day after its last use.

mod bug;
mod promise;
mod round;
mod scenario;
mod steps;
mod world;

pub use bug::SizingBug;
pub use promise::SizingPromise;
pub use scenario::PoolSizing;
pub use steps::SizingStep;
pub use world::SizingWorld;
