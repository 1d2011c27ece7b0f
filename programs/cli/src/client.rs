//! The client of a deployed or local bridge.
//!
//! [`find`] finds the deployment, [`api`] calls its API, and [`table`] reads its table. `account.rs` has the other
//! resources of a deployment.

pub mod api;
pub mod connection;
pub mod error;
pub mod find;
pub mod in_flight;
pub mod pool_row;
pub mod pools;
pub mod signing;
pub mod table;
