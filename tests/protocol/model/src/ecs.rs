//! ECS: the life of a task, and how long ECS remembers it.

use ecs_bridge_core::{Attempt, Container, Task};

use crate::scenario::{CONTAINER, Scenario};

/// For how many ticks after a task's end ECS describes it, and keeps its token: an hour in production.
pub(crate) const REMEMBERED: u8 = 5;

/// The most ticks that a task stays in one status that it leaves by itself.
const LINGERS: u8 = 2;

/// For how many ticks after a launch DescribeTasks and ListTasks may not know the task.
const NEW: u8 = 1;

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EcsTask {
    /// Its place among the tasks of its submission.
    pub(crate) id: u8,
    pub(crate) attempt: Attempt,
    /// The client token that it was launched with, of those used for its attempt: always the same, without a bug.
    pub(crate) token: u32,
    pub(crate) version: u8,
    pub(crate) status: Status,
    /// Its `desiredStatus` is STOPPED.
    pub(crate) to_stop: bool,
    pub(crate) stop_code: Option<StopCode>,
    /// ECS refused to launch it, and did.
    pub(crate) refused: bool,
    /// Its container was started.
    pub(crate) ran: bool,
    /// StopTask was called for it while it lived.
    pub(crate) stop_asked: bool,
    pub(crate) launched_at: u8,
    /// The tick of its last change.
    pub(crate) since: u8,
    /// The newest version of it that a function has seen.
    pub(crate) heard: u8,
}

/// The status of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Status {
    Provisioning,
    Running,
    /// The container has exited, and the task is being torn down.
    Exited(i32),
    Stopped(End),
}

/// What is known of a container once its task is STOPPED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    Exit(i32),
    /// It never started, and ECS says so.
    NeverStarted,
    /// It never got capacity, and its capacity provider has given up.
    GivenUp,
    /// Nothing: the host went away, or it was stopped early.
    Unknown,
}

/// `stopCode`, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    SpotInterruption,
}

impl StopCode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::SpotInterruption => "SpotInterruption",
        }
    }
}

/// What may happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Its container starts.
    Starts,
    /// Its container cannot be started, and ECS says why.
    FailsToStart,
    /// Its capacity provider gives up waiting for capacity.
    GivesUp,
    /// Its container exits with this code.
    Exits(i32),
    /// It is STOPPED, and its container was so quick that nothing shows it but exit code 0.
    StopsWith0,
    /// A container with a restart policy starts once more.
    Restarts,
    /// It is STOPPED, with its container's exit code if there is one.
    Stops,
    /// ECS reclaims its capacity.
    SpotNotice,
    /// Its host reports that it has stopped, and its container runs on.
    SeemsToStop,
}

impl EcsTask {
    pub(crate) fn new(id: u8, attempt: Attempt, token: u32, now: u8) -> Self {
        Self {
            id,
            attempt,
            token,
            version: 1,
            status: Status::Provisioning,
            to_stop: false,
            stop_code: None,
            refused: false,
            ran: false,
            stop_asked: false,
            launched_at: now,
            since: now,
            heard: 0,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.status, Status::Stopped(_))
    }

    /// Its container runs, or will.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.status, Status::Provisioning | Status::Running)
    }

    /// It has to change before time passes.
    pub(crate) fn is_overdue(&self, now: u8) -> bool {
        let lingers = match self.status {
            Status::Provisioning | Status::Running if !self.to_stop => LINGERS,
            Status::Provisioning | Status::Running | Status::Exited(_) => 1,
            Status::Stopped(_) => return false,
        };
        now >= self.since + lingers
    }

    /// ECS still describes it, and returns it for its token.
    pub(crate) fn is_remembered(&self, now: u8) -> bool {
        !self.is_stopped() || now < self.since + REMEMBERED
    }

    /// ECS may not know it yet.
    pub(crate) fn is_new(&self, now: u8) -> bool {
        now < self.launched_at + NEW
    }

    /// Clears times on which nothing depends any more.
    pub(crate) fn age(&mut self, now: u8) {
        if !self.is_new(now) {
            self.launched_at = 0;
        }
        if !self.is_remembered(now) {
            self.since = 0;
        }
    }

    /// The part of it that an event holds.
    pub(crate) fn reported(self) -> Self {
        Self { heard: 0, launched_at: 0, stop_asked: false, ..self }
    }

    /// What its host reports of it, before it is known to be wrong.
    pub(crate) fn seemingly_stopped(self) -> Self {
        let stop_code = Some(StopCode::SpotInterruption);
        Self {
            version: self.version - 1,
            status: Status::Stopped(End::Unknown),
            to_stop: true,
            stop_code,
            ..self.reported()
        }
    }

    /// What still matters of a stopped task whose submission is at a later attempt.
    pub(crate) fn outlived(self) -> Self {
        Self { version: 0, status: Status::Stopped(End::Unknown), stop_code: None, ..self.reported() }
    }

    /// The exit code of its container.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self.status {
            Status::Exited(code) | Status::Stopped(End::Exit(code)) => Some(code),
            Status::Provisioning
            | Status::Running
            | Status::Stopped(End::NeverStarted | End::GivenUp | End::Unknown) => None,
        }
    }

    /// What may happen to it next.
    pub(crate) fn changes(&self, scenario: &Scenario) -> Vec<Change> {
        let mut changes = Vec::new();
        match self.status {
            Status::Provisioning if self.to_stop => changes.push(Change::Stops),
            Status::Provisioning => {
                changes.extend([Change::Starts, Change::FailsToStart]);
                // As often as there are capacity options, and once more.
                let gives_up = u16::from(scenario.policy.fallbacks) + 1;
                if scenario.odd && self.attempt.get() <= gives_up {
                    changes.push(Change::GivesUp);
                }
            }
            Status::Running => {
                if scenario.odd {
                    changes.push(Change::StopsWith0);
                }
                changes.extend([Change::Exits(0), Change::Exits(1), Change::Stops]);
                if scenario.spot && !self.to_stop {
                    changes.push(Change::SpotNotice);
                }
                if scenario.ec2 && self.version < 4 && !self.to_stop {
                    changes.push(Change::SeemsToStop);
                }
            }
            Status::Exited(_) => {
                changes.push(Change::Stops);
                if scenario.restarts && self.version < 5 && !self.to_stop {
                    changes.push(Change::Restarts);
                }
            }
            Status::Stopped(_) => {}
        }
        changes
    }

    /// Makes it happen.
    pub(crate) fn change(&mut self, change: Change, now: u8) {
        self.version += 1;
        match change {
            Change::Starts | Change::Restarts => {
                self.status = Status::Running;
                self.ran = true;
            }
            Change::FailsToStart => {
                // The versions between have no events.
                self.version += 3;
                self.stop_as(StopCode::TaskFailedToStart);
                self.status = Status::Stopped(End::NeverStarted);
            }
            Change::GivesUp => {
                self.stop_as(StopCode::TaskFailedToStart);
                self.status = Status::Stopped(End::GivenUp);
            }
            Change::StopsWith0 => {
                self.stop_as(StopCode::TaskFailedToStart);
                self.status = Status::Stopped(End::Exit(0));
            }
            Change::Exits(code) => {
                self.stop_as(StopCode::EssentialContainerExited);
                self.status = Status::Exited(code);
            }
            Change::Stops => {
                let end = match self.status {
                    Status::Exited(code) => End::Exit(code),
                    Status::Provisioning | Status::Running | Status::Stopped(_) => End::Unknown,
                };
                // The most misleading code for a container that ran: without evidence it must not count.
                self.stop_as(StopCode::TaskFailedToStart);
                self.status = Status::Stopped(end);
            }
            Change::SpotNotice => {
                self.stop_as(StopCode::SpotInterruption);
                return;
            }
            Change::SeemsToStop => {
                // The next report is newer.
                self.version += 1;
                return;
            }
        }
        self.since = now;
    }

    /// StopTask.
    pub(crate) fn stop(&mut self) {
        if self.is_live() && !self.stop_asked {
            self.stop_asked = true;
            self.version += 1;
            self.stop_as(StopCode::UserInitiated);
        }
    }

    fn stop_as(&mut self, code: StopCode) {
        self.to_stop = true;
        self.stop_code.get_or_insert(code);
    }

    /// Whether an event of it matches the EventBridge rule.
    pub(crate) fn is_reported(&self) -> bool {
        match self.status {
            Status::Provisioning => false,
            Status::Running | Status::Exited(_) | Status::Stopped(_) => true,
        }
    }

    pub(crate) fn arn(&self, scenario: &Scenario) -> String {
        format!("{}/{}", scenario.task_arns(), self.id)
    }

    /// As ECS describes it.
    pub(crate) fn describe(&self, scenario: &Scenario) -> Task {
        let (last_status, container) = match self.status {
            Status::Provisioning => ("PROVISIONING", "PENDING"),
            Status::Running => ("RUNNING", "RUNNING"),
            Status::Exited(_) => ("DEPROVISIONING", "STOPPED"),
            Status::Stopped(_) => ("STOPPED", "STOPPED"),
        };
        let never_started = self.status == Status::Stopped(End::NeverStarted);
        let given_up = self.status == Status::Stopped(End::GivenUp);
        let reason = (never_started && !scenario.odd).then(|| "CannotPullContainerError: no such image".to_owned());
        let stopped_reason = match self.status {
            Status::Stopped(End::NeverStarted) if scenario.odd => {
                Some("Timeout waiting for network interface provisioning to complete.".to_owned())
            }
            Status::Stopped(End::GivenUp) => Some("TaskFailedToStart: RESOURCE:GPU".to_owned()),
            Status::Provisioning | Status::Running | Status::Exited(_) | Status::Stopped(_) => None,
        };
        let container = Container {
            name: CONTAINER.to_owned(),
            last_status: container.to_owned(),
            exit_code: self.exit_code(),
            reason,
        };
        Task {
            arn: self.arn(scenario),
            cluster_arn: scenario.cluster(),
            attempt: self.attempt,
            version: Some(self.version.into()),
            last_status: last_status.to_owned(),
            desired_status: if self.to_stop { "STOPPED" } else { "RUNNING" }.to_owned(),
            stop_code: self.stop_code.map(|code| code.as_str().to_owned()),
            stopped_reason,
            containers: if given_up { vec![] } else { vec![container] },
            runs_on: Some(if scenario.ec2 { "EC2" } else { "FARGATE" }.to_owned()),
            cpu: None,
            memory: None,
            started_at: None,
            execution_stopped_at: None,
            stopped_at: self.is_stopped().then(|| Scenario::at(self.since)),
            at: Some(Scenario::at(self.since)),
        }
    }
}
