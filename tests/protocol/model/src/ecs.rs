//! ECS: the lifecycle of a task, and how long ECS describes it.

use ecs_bridge_core::{AttemptNumber, Container, Task};

use crate::scenario::{CONTAINER, Scenario};

/// The number of ticks after a stop during which ECS describes the task and keeps its client token. In production, both are
/// an hour.
pub(crate) const RETENTION_TICKS: u8 = 5;

/// The maximum number of ticks that a task stays in a status that it leaves by itself.
const MAX_STATUS_TICKS: u8 = 2;

/// The number of ticks after a launch during which DescribeTasks and ListTasks may not return the task.
const VISIBILITY_LAG: u8 = 1;

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EcsTask {
    /// Its index among the tasks of its submission.
    pub(crate) id: u8,
    pub(crate) attempt: AttemptNumber,
    /// The number of the client token that launched it. Without a bug, an attempt has one token per capacity option.
    pub(crate) token: u32,
    pub(crate) version: u8,
    pub(crate) status: Status,
    /// Its `desiredStatus` is STOPPED.
    pub(crate) to_stop: bool,
    pub(crate) stop_code: Option<StopCode>,
    /// ECS returned a failure for RunTask, and launched the task all the same.
    pub(crate) refused: bool,
    /// Its container was started.
    pub(crate) ran: bool,
    /// StopTask was called while its container was live.
    pub(crate) stop_called: bool,
    pub(crate) launched_at: u8,
    /// The tick of its last change.
    pub(crate) since: u8,
    /// The newest version that a function has seen.
    pub(crate) seen_version: u8,
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

/// The result of a container once its task is STOPPED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    Exit(i32),
    /// It never started, and ECS reports that.
    NeverStarted,
    /// Its capacity provider gave up waiting for capacity.
    GivenUp,
    /// Unknown, because the host was lost or the task was stopped early.
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

/// A change of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Its container starts.
    Starts,
    /// Its container cannot be started, and ECS reports why.
    FailsToStart,
    /// Its capacity provider gives up waiting for capacity.
    GivesUp,
    /// Its container exits with this code.
    Exits(i32),
    /// It is STOPPED. Its container ran so briefly that only exit code 0 shows it.
    StopsWith0,
    /// A container with a restart policy starts once more.
    Restarts,
    /// It is STOPPED, with its container's exit code if there is one.
    Stops,
    /// ECS reclaims its capacity.
    SpotNotice,
    /// Its host reports that it has stopped, but its container keeps running.
    ReportedStopped,
}

impl EcsTask {
    pub(crate) fn new(id: u8, attempt: AttemptNumber, token: u32, now: u8) -> Self {
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
            stop_called: false,
            launched_at: now,
            since: now,
            seen_version: 0,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.status, Status::Stopped(_))
    }

    /// Returns true if its container runs or will run.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.status, Status::Provisioning | Status::Running)
    }

    /// Returns true if it must change before time passes.
    pub(crate) fn is_overdue(&self, now: u8) -> bool {
        let limit = match self.status {
            Status::Provisioning | Status::Running if !self.to_stop => MAX_STATUS_TICKS,
            Status::Provisioning | Status::Running | Status::Exited(_) => 1,
            Status::Stopped(_) => return false,
        };
        now >= self.since + limit
    }

    /// Returns true if ECS still describes it, and returns it for its client token.
    pub(crate) fn is_remembered(&self, now: u8) -> bool {
        !self.is_stopped() || now < self.since + RETENTION_TICKS
    }

    /// Returns true if ECS may not return it yet.
    pub(crate) fn is_new(&self, now: u8) -> bool {
        now < self.launched_at + VISIBILITY_LAG
    }

    /// Clears times that no later step depends on, so that equal states compare as equal.
    pub(crate) fn age(&mut self, now: u8) {
        if !self.is_new(now) {
            self.launched_at = 0;
        }
        if !self.is_remembered(now) {
            self.since = 0;
        }
    }

    /// Returns the task with the attributes that an event contains.
    pub(crate) fn reported(self) -> Self {
        Self { seen_version: 0, launched_at: 0, stop_called: false, ..self }
    }

    /// Returns the task as its host wrongly reports it.
    pub(crate) fn reported_stopped(self) -> Self {
        let stop_code = Some(StopCode::SpotInterruption);
        Self {
            version: self.version - 1,
            status: Status::Stopped(End::Unknown),
            to_stop: true,
            stop_code,
            ..self.reported()
        }
    }

    /// Returns the attributes that still matter of a stopped task whose submission is at a later attempt.
    pub(crate) fn outlived(self) -> Self {
        Self { version: 0, status: Status::Stopped(End::Unknown), stop_code: None, ..self.reported() }
    }

    /// Returns the exit code of its container.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self.status {
            Status::Exited(code) | Status::Stopped(End::Exit(code)) => Some(code),
            Status::Provisioning
            | Status::Running
            | Status::Stopped(End::NeverStarted | End::GivenUp | End::Unknown) => None,
        }
    }

    /// Returns its possible changes.
    pub(crate) fn changes(&self, scenario: &Scenario) -> Vec<Change> {
        let mut changes = Vec::new();
        match self.status {
            Status::Provisioning if self.to_stop => changes.push(Change::Stops),
            Status::Provisioning => {
                changes.extend([Change::Starts, Change::FailsToStart]);
                // Once per capacity option, plus once.
                let gives_up = u16::from(scenario.policy.fallbacks) + 1;
                if scenario.rare_reports && self.attempt.get() <= gives_up {
                    changes.push(Change::GivesUp);
                }
            }
            Status::Running => {
                if scenario.rare_reports {
                    changes.push(Change::StopsWith0);
                }
                changes.extend([Change::Exits(0), Change::Exits(1), Change::Stops]);
                if scenario.spot && !self.to_stop {
                    changes.push(Change::SpotNotice);
                }
                if scenario.ec2 && self.version < 4 && !self.to_stop {
                    changes.push(Change::ReportedStopped);
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

    /// Applies a change.
    pub(crate) fn change(&mut self, change: Change, now: u8) {
        self.version += 1;
        match change {
            Change::Starts | Change::Restarts => {
                self.status = Status::Running;
                self.ran = true;
            }
            Change::FailsToStart => {
                // ECS sends no events for the versions in between.
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
            Change::ReportedStopped => {
                // The next report is newer.
                self.version += 1;
                return;
            }
        }
        self.since = now;
    }

    /// Stops the task, as StopTask does.
    pub(crate) fn stop(&mut self) {
        if self.is_live() && !self.stop_called {
            self.stop_called = true;
            self.version += 1;
            self.stop_as(StopCode::UserInitiated);
        }
    }

    fn stop_as(&mut self, code: StopCode) {
        self.to_stop = true;
        self.stop_code.get_or_insert(code);
    }

    /// Returns true if the EventBridge rule matches an event of its status.
    pub(crate) fn is_reported(&self) -> bool {
        match self.status {
            Status::Provisioning => false,
            Status::Running | Status::Exited(_) | Status::Stopped(_) => true,
        }
    }

    pub(crate) fn arn(&self, scenario: &Scenario) -> String {
        format!("{}/{}", scenario.task_arns(), self.id)
    }

    /// Returns the task as DescribeTasks returns it.
    pub(crate) fn describe(&self, scenario: &Scenario) -> Task {
        let (last_status, container) = match self.status {
            Status::Provisioning => ("PROVISIONING", "PENDING"),
            Status::Running => ("RUNNING", "RUNNING"),
            Status::Exited(_) => ("DEPROVISIONING", "STOPPED"),
            Status::Stopped(_) => ("STOPPED", "STOPPED"),
        };
        let never_started = self.status == Status::Stopped(End::NeverStarted);
        let given_up = self.status == Status::Stopped(End::GivenUp);
        let reason =
            (never_started && !scenario.rare_reports).then(|| "CannotPullContainerError: no such image".to_owned());
        let stopped_reason = match self.status {
            Status::Stopped(End::NeverStarted) if scenario.rare_reports => {
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
