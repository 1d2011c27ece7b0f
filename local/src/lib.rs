//! The stand-in for AWS on one machine.
pub mod chance;
pub mod clock;
pub mod http;
pub mod lambda;
pub mod pattern;
pub mod process;
pub mod template;
