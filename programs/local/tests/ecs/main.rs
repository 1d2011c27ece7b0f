//! Tests of the ECS emulator in virtual time, without processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod requests;
mod tasks;
mod world;
