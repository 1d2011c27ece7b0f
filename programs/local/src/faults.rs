//! Counts of the injected faults of a run.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count.
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
    /// Events that matched the rule.
    events_matched,
    /// Events delivered twice.
    duplicated,
    /// Events never delivered.
    dropped,
    /// Delayed deliveries.
    delayed,
    /// RunTask calls refused with ThrottlingException.
    throttled,
    /// RunTask calls refused for lack of capacity.
    out_of_capacity,
    /// RunTask calls that launched a task and were answered with a failure.
    launched_failures,
    /// Tasks that failed before their container started.
    failed_starts,
    /// Calls that took effect but were answered with a 500.
    server_errors,
    /// Calls that took effect but were not answered.
    unanswered,
    /// Messages that SQS accepted and lost.
    messages_lost,
    /// Messages that SQS delivers twice.
    messages_doubled,
    /// Calls refused by a rule of `/_local/rules`.
    refused_by_rule,
}
