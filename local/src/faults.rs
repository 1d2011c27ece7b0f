//! Counts of what was made to go wrong, so that a run can say how much of it there was.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// All counts of one run.
        #[derive(Debug, Default)]
        pub struct Faults {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Faults {
            /// All counts as JSON, by their names.
            #[must_use]
            pub fn counts(&self) -> Value {
                json!({$(stringify!($name): self.$name.get()),+})
            }
        }
    };
}

faults! {
    /// Events that ECS put on the bus.
    events_sent,
    /// Those that the rule passed on.
    events_matched,
    /// Events delivered twice.
    duplicated,
    /// Events never delivered.
    dropped,
    /// Deliveries that were late.
    delayed,
    /// RunTask calls refused with ThrottlingException.
    throttled,
    /// RunTask calls refused for want of capacity.
    out_of_capacity,
    /// Tasks that were made to fail before their container started.
    failed_starts,
    /// Calls that happened, but were answered with a 500.
    server_errors,
    /// Calls that happened, but got no answer.
    unanswered,
    /// Calls that a rule from outside refused.
    refused_by_rule,
}
