//! An ECS task as ECS tells of it: by an event, by DescribeTasks, or in the answer of RunTask.

use serde::{Deserialize, Serialize};

use crate::{id::Attempt, time::Timestamp};

/// What was seen of a task at one of its versions.
///
/// Statuses, codes and reasons are kept as ECS spells them: more of them may come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// The task's ARN, in its long or in its old short form.
    pub arn: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The attempt that its `startedBy` names.
    pub attempt: Attempt,
    /// `version`: it rises with every state change, and is the same in duplicates.
    pub version: u64,
    /// `lastStatus`.
    pub last_status: String,
    /// `desiredStatus`.
    pub desired_status: String,
    /// `stopCode`, once ECS knows that the task is to stop.
    pub stop_code: Option<String>,
    /// `stoppedReason`: text for people.
    pub stopped_reason: Option<String>,
    /// Its containers, sidecars among them, in any order.
    pub containers: Vec<Container>,
    /// `capacityProviderName`, or else `launchType`.
    #[serde(default)]
    pub runs_on: Option<String>,
    /// `cpu`, in CPU units.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// `memory`, in MiB.
    #[serde(default)]
    pub memory: Option<u32>,
    /// `startedAt`: when all of its containers were up.
    pub started_at: Option<Timestamp>,
    /// `executionStoppedAt`: when its containers had ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// `stoppedAt`: when all was torn down.
    pub stopped_at: Option<Timestamp>,
    /// When this was so: the event's own time; none in a description.
    pub at: Option<Timestamp>,
}

/// One container of a [`Task`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the task definition; not unique in every event.
    pub name: String,
    /// `lastStatus`.
    pub last_status: String,
    /// `exitCode`: absent when it never started, or when its host went away. Absent is not 0.
    pub exit_code: Option<i32>,
    /// `reason`, such as `CannotPullContainerError: …`.
    pub reason: Option<String>,
}

impl Task {
    /// The task's id: the last segment of its ARN, the same in the long and in the short form.
    pub fn id(&self) -> &str {
        task_id(&self.arn)
    }

    /// Whether it runs on Fargate: nobody but ECS has a hand in it.
    pub fn is_on_fargate(&self) -> bool {
        self.runs_on.as_deref().is_some_and(|capacity| capacity.starts_with("FARGATE"))
    }

    /// Whether ECS says that the named container, or its task, ran out of memory.
    pub fn ran_out_of_memory(&self, container_name: &str) -> bool {
        let reasons = self.named(container_name).map(|container| &container.reason).chain([&self.stopped_reason]);
        reasons.flatten().any(|reason| reason.contains("OutOfMemory"))
    }

    /// Whether all is over with it.
    pub fn is_stopped(&self) -> bool {
        self.last_status == "STOPPED"
    }

    /// The entries of the container called `name`: usually one, sometimes none or several.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// Whether the named container runs, or is still to run.
    pub fn is_live(&self, container_name: &str) -> bool {
        !self.is_stopped()
            && self.desired_status == "RUNNING"
            && self.named(container_name).all(|container| container.exit_code.is_none())
    }

    /// Whether the task or its named container is RUNNING, or certainly was.
    pub fn has_run(&self, container_name: &str) -> bool {
        self.last_status == "RUNNING"
            || self.started_at.is_some()
            || self.named(container_name).any(|container| container.last_status == "RUNNING")
    }

    /// The exit code of the named container, once all entries of that name have stopped.
    ///
    /// The first that is not 0 wins; 0 takes every entry to say so.
    pub fn exit_code(&self, container_name: &str) -> Option<i32> {
        let mut code = None;
        let mut unknown = false;
        for container in self.named(container_name) {
            if container.last_status != "STOPPED" && !self.is_stopped() {
                return None;
            }
            match container.exit_code {
                None => unknown = true,
                Some(exit_code) if code.is_none_or(|code| code == 0) => code = Some(exit_code),
                Some(_) => {}
            }
        }
        code.filter(|&code| code != 0 || !unknown)
    }

    /// Whether ECS says that the named container never started.
    ///
    /// The evidence is the container's own `reason`, or a `stoppedReason` of ResourceInitializationError. A start that
    /// was cancelled may have happened all the same. `runtimeId`, `pullStoppedAt` and a missing `startedAt` prove
    /// nothing.
    pub fn never_started(&self, container_name: &str) -> bool {
        const REASONS: [&str; 3] = ["CannotPullContainer", "CannotCreateContainer", "CannotStartContainer"];
        const CANCELLED: [&str; 2] = ["deadline exceeded", "context canceled"];
        let refused = |container: &Container| {
            let reason = container.reason.as_deref().unwrap_or_default();
            let cancelled = reason.starts_with("CannotStartContainer")
                && CANCELLED.iter().any(|words| reason.to_ascii_lowercase().contains(words));
            REASONS.iter().any(|known| reason.starts_with(known)) && !cancelled
        };
        let before_any =
            self.stopped_reason.as_deref().is_some_and(|text| text.starts_with("ResourceInitializationError"));
        let mut named = self.named(container_name).peekable();
        !self.has_run(container_name) && (before_any || (named.peek().is_some() && named.all(refused)))
    }
}

/// The last segment of an ARN.
pub fn task_id(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, id)| id)
}

/// ECS's words on a container or a task, without the program that a container runtime quotes as
/// `exec: "/the/program": stat /the/program: no such file or directory`: it is part of the command.
pub fn without_program(words: &str) -> String {
    const SHORTEST: usize = 6;
    let Some((before, rest)) = words.split_once("exec: \"") else { return words.to_owned() };
    match rest.split_once('"') {
        Some((program, after)) if !program.ends_with('\\') => {
            let after = if program.len() < SHORTEST { after.to_owned() } else { after.replace(program, "[redacted]") };
            format!("{before}exec: [redacted]{after}")
        }
        // A quote within the program: where it ends is not worth finding out.
        Some(_) | None => format!("{before}exec: [redacted]"),
    }
}

/// The name of a cluster, from its name or its ARN.
pub fn cluster_name(cluster: &str) -> &str {
    task_id(cluster)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn task(last_status: &str) -> Task {
        Task {
            arn: "arn:aws:ecs:eu-west-1:123456789012:task/nightly/0123456789abcdef".to_owned(),
            cluster_arn: "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned(),
            attempt: Attempt::FIRST,
            version: 1,
            last_status: last_status.to_owned(),
            desired_status: "RUNNING".to_owned(),
            stop_code: None,
            stopped_reason: None,
            containers: vec![],
            runs_on: Some("FARGATE".to_owned()),
            cpu: None,
            memory: None,
            started_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            at: None,
        }
    }

    pub(crate) fn container(last_status: &str, exit_code: Option<i32>) -> Container {
        Container { name: "main".to_owned(), last_status: last_status.to_owned(), exit_code, reason: None }
    }

    fn exit_code(last_status: &str, containers: Vec<Container>) -> Option<i32> {
        Task { containers, ..task(last_status) }.exit_code("main")
    }

    #[test]
    fn the_exit_code_is_the_named_containers() {
        let sidecar = Container { name: "log".to_owned(), ..container("STOPPED", Some(9)) };
        assert_eq!(exit_code("RUNNING", vec![sidecar.clone(), container("STOPPED", Some(0))]), Some(0));
        assert_eq!(exit_code("STOPPED", vec![sidecar]), None);
    }

    #[test]
    fn of_two_containers_of_one_name_both_must_have_stopped_and_the_first_other_than_0_wins() {
        assert_eq!(exit_code("RUNNING", vec![container("STOPPED", Some(3)), container("RUNNING", None)]), None);
        assert_eq!(exit_code("RUNNING", vec![container("STOPPED", Some(0)), container("STOPPED", Some(3))]), Some(3));
        assert_eq!(exit_code("RUNNING", vec![container("STOPPED", Some(4)), container("STOPPED", Some(3))]), Some(4));
    }

    #[test]
    fn absent_is_not_zero() {
        assert_eq!(exit_code("STOPPED", vec![container("STOPPED", None)]), None);
        assert_eq!(exit_code("STOPPED", vec![container("STOPPED", Some(0)), container("STOPPED", None)]), None);
        assert_eq!(exit_code("STOPPED", vec![container("STOPPED", Some(2)), container("STOPPED", None)]), Some(2));
        assert_eq!(exit_code("STOPPED", vec![]), None);
    }

    #[test]
    fn only_ecs_own_words_prove_that_a_container_never_started() {
        let reason = |text: &str| Container { reason: Some(text.to_owned()), ..container("STOPPED", None) };
        let stopped = |containers| Task { containers, ..task("STOPPED") };
        assert!(stopped(vec![reason("CannotPullContainerError: pull access denied")]).never_started("main"));
        assert!(!stopped(vec![reason("OutOfMemoryError: container killed")]).never_started("main"));
        assert!(stopped(vec![reason("CannotStartContainerError: exec format error")]).never_started("main"));
        assert!(!stopped(vec![reason("CannotStartContainerError: context deadline exceeded")]).never_started("main"));
        assert!(!stopped(vec![reason("CannotStartContainerError: Context canceled")]).never_started("main"));
        assert!(!stopped(vec![container("STOPPED", None)]).never_started("main"));
        assert!(!stopped(vec![]).never_started("main"));
        let early = Task {
            stopped_reason: Some("ResourceInitializationError: unable to pull secrets".to_owned()),
            ..stopped(vec![])
        };
        assert!(early.never_started("main"));
        assert!(!Task { started_at: Some(Timestamp::from_millis(1)), ..early }.never_started("main"));
    }

    #[test]
    fn a_program_that_a_runtime_quotes_is_left_out() {
        for (words, expected) in [
            (
                r#"CannotStartContainerError: exec: "/no/such/thing": stat /no/such/thing: no such file: unknown"#,
                "CannotStartContainerError: exec: [redacted]: stat [redacted]: no such file: unknown",
            ),
            (
                r#"exec: "a": executable file not found in $PATH"#,
                "exec: [redacted]: executable file not found in $PATH",
            ),
            (r#"exec: "a \"quoted\" thing": stat a "quoted" thing"#, "exec: [redacted]"),
            (r#"exec: "cut sho"#, "exec: [redacted]"),
            ("CannotPullContainerError: not found", "CannotPullContainerError: not found"),
        ] {
            assert_eq!(without_program(words), expected);
        }
    }

    #[test]
    fn old_and_new_arns_of_a_task_have_the_same_id() {
        assert_eq!(task_id("arn:aws:ecs:us-east-1:123456789012:task/eeccdb34"), "eeccdb34");
        assert_eq!(task_id("arn:aws:ecs:us-east-1:123456789012:task/nightly/eeccdb34"), "eeccdb34");
    }
}
