//! An ECS task, as an event, DescribeTasks or a RunTask response reports it.

use serde::{Deserialize, Serialize};

use crate::{id::AttemptNumber, time::Timestamp};

/// A task at one of its versions, as ECS reported it.
///
/// Statuses, codes and reasons are texts as ECS spells them, because ECS may add values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// The task's ARN, in its long or old short form.
    pub arn: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The attempt that its `startedBy` names.
    pub attempt: AttemptNumber,
    /// `version`, which rises with every state change and is the same in duplicates. None if it is missing or invalid.
    #[serde(default)]
    pub version: Option<u64>,
    /// `lastStatus`.
    pub last_status: String,
    /// `desiredStatus`.
    pub desired_status: String,
    /// `stopCode`, from the time at which ECS knows that the task will stop.
    pub stop_code: Option<String>,
    /// `stoppedReason`, a text for people.
    pub stopped_reason: Option<String>,
    /// Its containers, including sidecars, in any order.
    pub containers: Vec<Container>,
    /// `capacityProviderName`, or `launchType` if it has none.
    #[serde(default)]
    pub runs_on: Option<String>,
    /// `cpu`, in CPU units.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// `memory`, in MiB.
    #[serde(default)]
    pub memory: Option<u32>,
    /// `startedAt`, the time at which all of its containers ran.
    pub started_at: Option<Timestamp>,
    /// `executionStoppedAt`, the time at which its containers had ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// `stoppedAt`, the time at which the task was torn down.
    pub stopped_at: Option<Timestamp>,
    /// The time of the event. None in a description.
    pub at: Option<Timestamp>,
}

/// One container of a [`Task`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the task definition. It is not unique in every event.
    pub name: String,
    /// `lastStatus`.
    pub last_status: String,
    /// `exitCode`. None if the container never started, or if its host failed. None is not 0.
    pub exit_code: Option<i32>,
    /// `reason`, such as `CannotPullContainerError: …`.
    pub reason: Option<String>,
}

impl Task {
    /// Returns the task's ID, the last segment of its ARN. It is the same in the long and the short form.
    pub fn id(&self) -> &str {
        task_id(&self.arn)
    }

    /// Returns true if it runs on Fargate, where only ECS controls the task.
    pub fn is_on_fargate(&self) -> bool {
        self.runs_on.as_deref().is_some_and(|capacity| capacity.starts_with("FARGATE"))
    }

    /// Returns true if ECS reports that the named container or its task ran out of memory.
    pub fn ran_out_of_memory(&self, container_name: &str) -> bool {
        let reasons = self.named(container_name).map(|container| &container.reason).chain([&self.stopped_reason]);
        reasons.flatten().any(|reason| reason.contains("OutOfMemory"))
    }

    /// Returns true if the task is STOPPED.
    pub fn is_stopped(&self) -> bool {
        self.last_status == "STOPPED"
    }

    /// Returns the entries of the container `name`. There is usually one, sometimes none or several.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// Returns true if the named container runs or may still run.
    pub fn is_live(&self, container_name: &str) -> bool {
        !self.is_stopped()
            && self.desired_status == "RUNNING"
            && self.named(container_name).all(|container| container.exit_code.is_none())
    }

    /// Returns true if the task or its named container is or certainly was RUNNING.
    pub fn has_run(&self, container_name: &str) -> bool {
        self.last_status == "RUNNING"
            || self.started_at.is_some()
            || self.named(container_name).any(|container| container.last_status == "RUNNING")
    }

    /// Returns the exit code of the named container, if all entries of that name have stopped. This is the first code that
    /// is not 0, or 0 if every entry has it.
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

    /// Returns why the task failed to start, if ECS's texts prove that the named container never started.
    ///
    /// The evidence is the container's own `reason`, or a `stoppedReason` about a step before any container. A
    /// cancelled start may still have happened. `runtimeId`, `pullStoppedAt` and a missing `startedAt` prove nothing, and
    /// neither does any text without the stop code TaskFailedToStart.
    pub fn start_failure(&self, container_name: &str) -> Option<StartFailure> {
        let is_start_failure = self.stop_code.as_deref() == Some(FAILED_TO_START) && self.is_stopped();
        if !is_start_failure || self.has_run(container_name) || self.named(container_name).any(Container::has_exited) {
            return None;
        }
        let words = self.stopped_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
        let words = words.trim_start_matches("taskfailedtostart:").trim_start();
        // No container was started: none has exited, runs, or has a reason of its own.
        let is_untouched = self.containers.iter().all(|container| !container.has_begun() && container.reason.is_none());
        if is_untouched && is_want_of_capacity(words) {
            return Some(StartFailure::Capacity);
        }
        let mut named = self.named(container_name).peekable();
        let is_refused = named.peek().is_some()
            && named.all(|container| {
                container.reason.as_deref().is_some_and(|reason| is_refused_start(&reason.to_ascii_lowercase()))
            });
        // A text about one container is about this one only if no other container explains it.
        let proves = is_refused || is_before_any_container(words) || is_untouched && is_refused_start(words);
        proves.then_some(StartFailure::NeverStarted)
    }
}

impl Container {
    fn has_exited(&self) -> bool {
        self.exit_code.is_some()
    }

    /// Returns true if it runs or has run.
    fn has_begun(&self) -> bool {
        self.has_exited() || !["", "PROVISIONING", "PENDING", "STOPPED"].contains(&self.last_status.as_str())
    }
}

/// The stop code of a task that did not reach RUNNING.
pub const FAILED_TO_START: &str = "TaskFailedToStart";

/// The cause of a failed start after which the container certainly never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// Its image, network interface, volume, secrets or role were not available, or the container could not be created.
    NeverStarted,
    /// Its capacity provider gave up waiting for capacity.
    Capacity,
}

fn has_any(words: &str, known: &[&str]) -> bool {
    known.iter().any(|known| words.contains(known))
}

/// Returns true if the container runtime or the agent could not pull, create or start a container. Each error has several
/// spellings, such as CannotPullImageManifestError and CannotPullECRContainerError.
fn is_refused_start(words: &str) -> bool {
    const PULL_OR_CREATE: [&str; 2] = ["cannotpull", "cannotcreatecontainer"];
    PULL_OR_CREATE.iter().any(|known| words.starts_with(known))
        || words.starts_with("cannotstartcontainer") && !has_any(words, &["deadline exceeded", "context canceled"])
}

/// Returns true if a `stoppedReason` is about a step before any container: network interface, storage, secrets, role.
///
/// The texts are those of the ECS Developer Guide ("Stopped tasks error messages") and of public reports.
fn is_before_any_container(words: &str) -> bool {
    const STEPS: [(&[&str], &[&str]); 4] = [
        (
            &["network interface"],
            &[
                "provision",
                "prepar",
                "creat",
                "attach",
                "attempting",
                "waiting",
                "timeout",
                "timed out",
                "limit",
                "maximum",
            ],
        ),
        (
            &["ephemeralstorage", "ephemeral storage", "volume"],
            &["provision", "prepar", "creat", "attach", "waiting", "timeout", "timed out", "unable", "failed"],
        ),
        (&["secret"], &["fetching", "pull", "retriev"]),
        (&["role"], &["assume"]),
    ];
    // A text of the container runtime itself, whatever it mentions.
    const RUNTIME: [&str; 6] =
        ["cannotstart", "cannotstop", "cannotinspect", "containerruntime", "dockertimeout", "outofmemory"];
    if RUNTIME.iter().any(|known| words.starts_with(known)) {
        return false;
    }
    words.starts_with("resourceinitializationerror")
        || words.starts_with("cannotcreatevolume")
        || has_any(words, &["insufficientfreeaddresses", "free address", "free ip address", "available ip address"])
        || STEPS.iter().any(|(subjects, verbs)| has_any(words, subjects) && has_any(words, verbs))
}

/// Returns true if a text in lower case reports that ECS has no capacity for the task, as `failures[]` of RunTask does.
pub fn is_want_of_capacity(words: &str) -> bool {
    const CAPACITY: [&str; 6] = [
        "capacity is unavailable",
        "insufficient capacity",
        "insufficientcapacity",
        "insufficientinstancecapacity",
        "no container instances were found",
        "no container instance met all of its requirements",
    ];
    // IAM's messages end with "on resource: arn:aws:…".
    let names_a_resource = words
        .split("resource:")
        .skip(1)
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_alphabetic()) && !rest.starts_with("arn:"));
    names_a_resource || has_any(words, &CAPACITY)
}

/// Returns the last segment of an ARN.
pub fn task_id(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, id)| id)
}

/// Returns ECS's text about a container or a task without the program, which is part of the command. A container runtime
/// quotes it as `exec: "/the/program": stat /the/program: no such file or directory`.
pub fn without_program(words: &str) -> String {
    const SHORTEST: usize = 6;
    let Some((before, rest)) = words.split_once("exec: \"") else { return words.to_owned() };
    match rest.split_once('"') {
        Some((program, after)) if !program.ends_with('\\') => {
            let after = if program.len() < SHORTEST { after.to_owned() } else { after.replace(program, "[redacted]") };
            format!("{before}exec: [redacted]{after}")
        }
        // The program contains a quote, so its end is unknown.
        Some(_) | None => format!("{before}exec: [redacted]"),
    }
}

/// Returns the name of a cluster from its name or ARN.
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
            attempt: AttemptNumber::FIRST,
            version: Some(1),
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
    fn same_named_containers_yield_first_nonzero_code() {
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

    fn failed_to_start(stopped_reason: Option<&str>, containers: Vec<Container>) -> Task {
        Task {
            stop_code: Some(FAILED_TO_START.to_owned()),
            stopped_reason: stopped_reason.map(str::to_owned),
            containers,
            ..task("STOPPED")
        }
    }

    fn reason(text: &str) -> Container {
        Container { reason: Some(text.to_owned()), ..container("STOPPED", None) }
    }

    #[test]
    fn container_reason_proves_that_it_never_started() {
        for (text, proves) in [
            ("CannotPullContainerError: pull access denied", true),
            ("CannotPullImageManifestError: toomanyrequests: pull rate limit", true),
            ("CannotPullECRContainerError: no basic auth credentials", true),
            ("CannotPull something of tomorrow", true),
            ("CannotCreateContainerError: invalid mount", true),
            ("CannotStartContainerError: exec format error", true),
            ("CannotStartContainerError: context deadline exceeded", false),
            ("CannotStartContainerError: Context canceled", false),
            ("CannotInspectContainerError: timeout", false),
            ("DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s", false),
            ("OutOfMemoryError: container killed", false),
        ] {
            let expected = proves.then_some(StartFailure::NeverStarted);
            assert_eq!(failed_to_start(None, vec![reason(text)]).start_failure("main"), expected, "{text}");
            let of_sidecar = Container { name: "log".to_owned(), ..reason(text) };
            let containers = vec![of_sidecar, container("STOPPED", None)];
            assert_eq!(failed_to_start(Some(text), containers).start_failure("main"), None, "{text} of a sidecar");
        }
        assert_eq!(failed_to_start(None, vec![container("STOPPED", None)]).start_failure("main"), None);
        assert_eq!(failed_to_start(None, vec![]).start_failure("main"), None);
    }

    const BEFORE_ANY_CONTAINER: [&str; 17] = [
        "ResourceInitializationError: unable to pull secrets or registry auth",
        "Timeout waiting for network interface provisioning to complete.",
        "Rate limit exceeded while preparing network interface to be attached to instance.",
        "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet \
         'subnet-0aa': InsufficientFreeAddressesInSubnet",
        "Network interface limit exceeded",
        "The subnet does not have enough free addresses to satisfy the request.",
        "Timeout waiting for EphemeralStorage provisioning to complete.",
        "CannotCreateVolumeError: mount failed",
        "Timed out waiting for EBS volume attachment",
        "Fetching secret data from AWS Secrets Manager in region us-east-1: AccessDeniedException",
        "Fetching secret data from SSM Parameter Store in us-east-1: invalid parameters",
        "ECS was unable to assume the role 'arn:aws:iam::123456789012:role/etl' that was provided for this task.",
        "TaskFailedToStart: Timeout waiting for network interface provisioning to complete.",
        "CannotPullContainerError: ref pull has been retried 5 time(s): request canceled",
        "CannotPullImageManifestError: toomanyrequests",
        "TaskFailedToStart: CannotPullECRContainerError: no such image",
        "CannotCreateContainerError: invalid mount",
    ];

    #[test]
    fn stopped_reason_proves_that_no_container_started() {
        for words in BEFORE_ANY_CONTAINER {
            for containers in [vec![], vec![container("STOPPED", None)], vec![container("PENDING", None)]] {
                let early = failed_to_start(Some(words), containers);
                assert_eq!(early.start_failure("main"), Some(StartFailure::NeverStarted), "{words}");
                for other in [
                    Task { started_at: Some(Timestamp::from_millis(1)), ..early.clone() },
                    Task { stop_code: Some("UserInitiated".to_owned()), ..early.clone() },
                    Task { stop_code: None, ..early.clone() },
                    Task { containers: vec![container("RUNNING", None)], ..early.clone() },
                    Task { containers: vec![container("STOPPED", Some(1))], ..early.clone() },
                    Task { last_status: "DEPROVISIONING".to_owned(), ..early },
                ] {
                    assert_eq!(other.start_failure("main"), None, "{words}");
                }
            }
        }
        for words in [
            "Task failed to start",
            "Essential container in task exited",
            "Scaling activity",
            "",
            "CannotStartContainerError: failed to create network interface: context deadline exceeded",
        ] {
            assert_eq!(failed_to_start(Some(words), vec![]).start_failure("main"), None, "{words}");
        }
    }

    #[test]
    fn capacity_that_was_given_up_is_no_failed_start() {
        for words in [
            "TaskFailedToStart: RESOURCE:GPU",
            "RESOURCE:MEMORY",
            "RESOURCE:CPU",
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
            "TaskFailedToStart: No Container Instances were found in your capacity provider.",
            "Insufficient capacity for capacity provider gpu-cp",
        ] {
            for containers in [vec![], vec![container("PENDING", None)], vec![container("STOPPED", None)]] {
                let given_up = failed_to_start(Some(words), containers);
                assert_eq!(given_up.start_failure("main"), Some(StartFailure::Capacity), "{words}");
            }
            for begun in [container("RUNNING", None), container("STOPPED", Some(0)), reason("OutOfMemoryError: killed")]
            {
                let begun = Container { name: "log".to_owned(), ..begun };
                assert_eq!(failed_to_start(Some(words), vec![begun]).start_failure("main"), None, "{words}");
            }
        }
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
