//! Values that many states share. Each is hashed once.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use ecs_bridge_core::{Attempt, Record, State, record::LaunchCalls};

use crate::scenario::Scenario;

/// Returns the hash of a value. Equal values have the same hash in every state and every run.
pub(crate) fn fingerprint<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A shared value with its fingerprint. Comparisons use the fingerprint alone, as the checker's own do.
pub(crate) struct Hashed<T>(Arc<(T, u64)>);

impl<T: Hash> Hashed<T> {
    pub(crate) fn new(value: T) -> Self {
        let hash = fingerprint(&value);
        Self(Arc::new((value, hash)))
    }
}

impl Hashed<Record> {
    /// Wraps a row of the table. Two rows are equal if no later decision can distinguish them.
    pub(crate) fn row(record: Record) -> Self {
        let hash = fingerprint(&relevant_attributes(&record));
        Self(Arc::new((record, hash)))
    }
}

/// Returns the attributes that later decisions and checks depend on. The pattern names every attribute, so a new attribute
/// does not compile until it is listed.
fn relevant_attributes(record: &Record) -> impl Hash + use<> {
    let Record {
        attempt,
        kind: _,
        request,
        first_choice,
        uncounted,
        given_up,
        ran_before,
        stop_requested,
        check_at,
        due,
        changed_at,
        policy,
        pending_notifications,
        notified,
        priority: _,
        pool: _,
        rank: _,
        // These never change.
        submission_id: _,
        schema: _,
        profile: _,
        placement: _,
        content_hash: _,
        container_name: _,
        cluster: _,
        labels: _,
        launch_deadline: _,
        created_at: _,
        feed: _,
        // Only for people.
        attempts: _,
        // It only rises; whether it is still what a function read is noted with that function.
        rev: _,
        updated_at: _,
        expires_at: _,
        // The state is private.
        ..
    } = record;
    let Attempt {
        number,
        fallback,
        calls,
        refusals,
        denied_since,
        was_refused,
        no_capacity_since,
        task_arn,
        ecs_version,
        last_status,
        exit_code,
        stop_code,
        seen_running,
        asked_again,
        lookup_failed_since,
        missing_at,
        launched_at,
        started_at,
        stopped_at,
        // It changes with `missing_at`.
        missing_count: _,
        // Only for people.
        reason: _,
        desired_status: _,
        runs_on: _,
        cpu: _,
        memory: _,
        hint: _,
        stopped_reason: _,
        container_exited_at: _,
    } = attempt;
    let LaunchCalls { unanswered_since, launch_calls, last_call_at, lookups, looked_up_at } = calls;
    let state = record.state();
    let task = (state, *number, task_arn.clone(), *exit_code);
    let notify_at = check_at.filter(|_| state.is_terminal()).map(Scenario::tick_from);
    let pending =
        (pending_notifications.clone(), notified.as_ref().map(|notified| notified.event_bus_at.is_some()), notify_at);
    if matches!(state, State::Succeeded | State::Failed) {
        return (task, None, None, pending);
    }
    // The status decides only if the task has no version.
    let unversioned = last_status.as_ref().filter(|_| ecs_version.is_none());
    let seen = (*ecs_version, unversioned.cloned(), stopped_at.is_some(), *changed_at);
    if state.is_terminal() {
        return (task, Some(seen), None, pending);
    }
    // The capacity option of a launched task has no effect on later decisions.
    let fallback = if matches!(state, State::Queued | State::Launching) { *fallback } else { 0 };
    let choice = (fallback, *first_choice, *uncounted, *given_up, *asked_again);
    let launch = (*unanswered_since, *launch_calls, *last_call_at, *refusals, *denied_since, *lookups, *looked_up_at);
    // The time without capacity has an effect only beyond the horizon. Here, only its presence has one.
    let launch = (launch, no_capacity_since.is_some(), *was_refused);
    let stop = (stop_code.clone(), stop_requested.as_ref().map(|stop| stop.cause as u8));
    let run_since = started_at.filter(|_| policy.run_timeout.is_some());
    let run = (*launched_at, run_since, *seen_running, *ran_before, *missing_at, *lookup_failed_since);
    // Time passes in whole ticks, so the exact time between two ticks has no effect.
    let timer = (check_at.map(Scenario::tick_from), due.clone(), request.is_some());
    (task, Some(seen), Some((choice, launch, stop, run, timer)), pending)
}

impl<T> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.1.hash(state);
    }
}

impl<T> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.1 == other.0.1
    }
}

impl<T: fmt::Debug> fmt::Debug for Hashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}
