//! The public shape of a record: which of its attributes the API shows, and which of them each other reader reads.
//!
//! [`ATTRIBUTES`] lists each attribute of [`Record`] once, with those of its flattened parts. A new attribute does not compile until the list has it, and the
//! API shows only attributes that the list gives to [`Reader::Api`]. `tests/shown.rs` writes the list for readers in other
//! languages, and tests compare it with the policies of the templates, with `docs/openapi.yaml`, and with what the readers
//! read.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    advice::advice,
    notify::PendingNotifications,
    record::{Attempt, LaunchCalls, NEVER, Record, kind::Written},
};

/// A reader of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// Callers of `GET /v1/submissions/{submission_id}`, and targets of notifications.
    Api,
    /// `ecs-bridge ps`, which reads the table.
    Cli,
    /// The Python client and the executor, which read the table. `ExecutorPolicy` allows them these attributes.
    Client,
    /// The Airflow UI plugin, which reads the table. `AirflowUiPolicy` allows it these attributes.
    Ui,
}

/// An attribute of a record.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Attribute {
    /// Its name in the table and in the API.
    pub name: &'static str,
    /// Its readers; none for attributes that only the functions use.
    pub readers: &'static [Reader],
}

impl Attribute {
    /// Returns the attribute of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.name == name)
    }

    /// Returns the names of the attributes that `reader` reads, in the order of the record.
    pub fn read_by(reader: Reader) -> impl Iterator<Item = &'static str> {
        ATTRIBUTES.iter().filter(move |attribute| attribute.readers.contains(&reader)).map(|attribute| attribute.name)
    }
}

macro_rules! attributes {
    ($($of:ident $(<$life:lifetime>)?, with $($flattened:ident),* {
        $($field:ident $(= $name:literal)?: $($reader:ident)*;)*
    })*) => {
        /// All attributes of a record.
        pub const ATTRIBUTES: &[Attribute] =
            &[$($(Attribute { name: name!($field $($name)?), readers: &[$(Reader::$reader),*] }),*),*];

        // Without `..`: an attribute that the list lacks does not compile.
        $(const _: fn($of $(<$life>)?) = |$of { $($field: _,)* $($flattened: _,)* }| {};)*
    };
}

macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

attributes! {
    Record, with attempt, kind {
        submission_id: Api Cli Client Ui;
        schema: Api Cli;
        rev: ;
        state: Api Cli Client Ui;
        profile: Api Cli Client Ui;
        container_name: Api Cli Client Ui;
        cluster: Api Cli Ui;
        policy: Api Cli;
        request: ;
        content_hash: ;
        placement: ;
        labels: Api Cli Client Ui;
        launch_deadline: Api Cli Ui;
        priority: Api Cli Ui;
        attempts: Api Cli Client Ui;
        first_choice: Cli;
        uncounted: Cli;
        given_up: Cli;
        ran_before: Api Cli;
        stop_requested: Api Cli;
        pending_notifications: ;
        notified: Api Cli;
        created_at: Api Cli Client Ui;
        updated_at: Api Cli;
        expires_at: Api;
        pool: Cli Ui;
        rank: Cli;
        due: Cli Ui;
        check_at: ;
        feed: ;
        changed_at: Cli Ui;
    }
    Attempt, with calls {
        number = "attempt": Api Cli Ui;
        fallback: Api Cli;
        refusals: Api Cli Ui;
        denied_since: Api Cli;
        was_refused: ;
        no_capacity_since: Api Cli;
        reason: Api Cli Client Ui;
        task_arn: Api Cli Client Ui;
        ecs_version: Api Cli;
        last_status: Api Cli Ui;
        desired_status: Api Cli;
        runs_on: Api Cli Client Ui;
        cpu: Api Cli Ui;
        memory: Api Cli Client Ui;
        hint: Api Cli Client Ui;
        exit_code: Api Cli Client Ui;
        stop_code: Api Cli Client Ui;
        stopped_reason: Api Cli Client Ui;
        seen_running: Api Cli;
        asked_again: ;
        lookup_failed_since: Api Cli;
        missing_count: Api Cli;
        missing_at: Api Cli;
        launched_at: Api Cli Client Ui;
        started_at: Api Cli Client Ui;
        container_exited_at: Api Cli Client Ui;
        stopped_at: Api Cli Ui;
    }
    LaunchCalls, with {
        unanswered_since: Api Cli;
        launch_calls: Api Cli;
        last_call_at: Api Cli;
        lookups: Api Cli;
        looked_up_at: Api Cli;
    }
    Written<'_>, with {
        pooled: Cli Client Ui;
        runner: Cli Ui;
    }
}

impl Record {
    /// Returns the record as the API shows it: the attributes of [`Reader::Api`], the advice, the runner that claimed the
    /// submission, and the pending notifications without their task token.
    pub fn public(&self) -> Value {
        let bare = Self { request: None, content_hash: None, ..self.clone() };
        let mut shown = serde_json::to_value(bare).unwrap_or_default();
        if let Some(members) = shown.as_object_mut() {
            members.retain(|name, _| Attribute::named(name).is_some_and(|it| it.readers.contains(&Reader::Api)));
            if self.expires_at == NEVER {
                members.remove("expires_at");
            }
            if let Some(advice) = advice(self) {
                members.insert("advice".to_owned(), advice.into());
            }
            if let Some(PendingNotifications { notify, error, .. }) = self.pending_notifications.as_deref() {
                let pending =
                    json!({"event_bus": notify.event_bus, "task_token": notify.task_token.is_some(), "error": error});
                members.insert("pending_notifications".to_owned(), pending);
            }
            if let Some(taken) = self.taken() {
                members.insert("runner_id".to_owned(), taken.runner_id.as_str().into());
            }
        }
        shown
    }
}
