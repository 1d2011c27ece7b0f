//! Profiles: the named launch configurations of a deployment.

mod clusters;
mod policy;
mod read;
mod request;
#[cfg(test)]
mod tests;

pub use self::clusters::Clusters;
pub use self::policy::{CompleteOn, Policy, Relaunch};
pub use self::request::{Profile, Profiles, Request, RequestError};
