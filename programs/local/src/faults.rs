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

    /// Returns the count.
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
            /// Returns all counts as a JSON object, by their names.
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
    /// RunTask calls throttled with ThrottlingException.
    throttled,
    /// RunTask calls that failed because capacity was unavailable.
    out_of_capacity,
    /// RunTask calls that launched a task and returned a failure.
    launched_failures,
    /// Tasks that failed before their container started.
    failed_starts,
    /// Calls that took effect but returned a 500.
    server_errors,
    /// Calls that took effect but got no response.
    unanswered,
    /// Messages that SQS accepted and lost.
    messages_lost,
    /// Messages that SQS delivers twice.
    messages_doubled,
    /// Calls rejected by a rule of `/_local/rules`.
    refused_by_rule,
}
