//! The stand-in for AWS on one machine.
pub mod chance;
pub mod clock;
pub mod pattern;
pub mod template;
