//! Unusual ECS behaviors. A test requests one by its name, in a tag or environment variable of a RunTask request, or
//! by a rule.

use std::str::FromStr;

use thiserror::Error;

/// The tag of a RunTask request that selects shapes.
pub const SHAPE_TAG: &str = "ecs-bridge-local:shape";
/// The environment variable of a container override that selects shapes.
pub const SHAPE_VARIABLE: &str = "ECS_BRIDGE_LOCAL_SHAPE";

/// The stopped reason of a Spot interruption.
pub(super) const SPOT_REASON: &str = "Your Spot Task was interrupted.";
/// The reason of a container that ran out of memory.
pub(super) const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
/// The stopped reason after the loss of a host.
pub(super) const HOST_REASON: &str = "Task stopped due to an unhealthy underlying host.";

macro_rules! shapes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// An unusual behavior of a task.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Shape {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Shape {
            const NAMES: &[(&'static str, Self)] = &[$(($text, Self::$name)),+];
            const HELP: &[(&'static str, &'static str)] = &[$(($text, concat!($($doc),+))),+];
        }
    };
}

shapes! {
    /// The image cannot be pulled: TaskFailedToStart, the container never started.
    CannotPull = "cannot-pull",
    /// The container cannot be created.
    CannotCreate = "cannot-create",
    /// The task's network or secrets are unavailable: ResourceInitializationError in the stopped reason alone.
    ResourceInit = "resource-init",
    /// The task's network interface is not ready in time: TaskFailedToStart, the cause in the stopped reason alone.
    NetworkTimeout = "network-timeout",
    /// The image cannot be pulled, and only the stopped reason shows it.
    PullInTaskReason = "pull-in-task-reason",
    /// The capacity provider gives up: TaskFailedToStart, RESOURCE:GPU in the stopped reason, no containers.
    CapacityGivenUp = "capacity-given-up",
    /// The command runs and ends, but its sidecars never started: TaskFailedToStart with an exit code.
    FailedToStartAfterExit = "failed-to-start-after-exit",
    /// A Spot notice once it runs (RUNNING, desired STOPPED, stop code set); the command ends by itself.
    SpotNotice = "spot-notice",
    /// The same with the stop code of older samples, TerminationNotice.
    TerminationNotice = "termination-notice",
    /// A Spot notice, then SIGTERM and SIGKILL.
    SpotInterruption = "spot-interruption",
    /// The host is lost once it runs: STOPPED, InfrastructureHealth, no exit code.
    InfrastructureHealth = "infrastructure-health",
    /// The host reports that the task has stopped, by InfrastructureHealth, but the task keeps running.
    SeemsLost = "seems-lost",
    /// A container that StopTask ends reports exit code 0.
    StopReports0 = "stop-reports-0",
    /// ECS reports OutOfMemoryError as the container's reason, regardless of its exit code.
    OutOfMemory = "out-of-memory",
    /// STOPPED without an exit code, although the command ended.
    NoExitCode = "no-exit-code",
    /// The exit code is null in events.
    NullExitCode = "null-exit-code",
    /// The last event has no containers.
    EmptyContainers = "empty-containers",
    /// A second container of the same name, which exits 0.
    Twin = "twin",
    /// A second container of the same name, which exits 1.
    FailingTwin = "failing-twin",
    /// ARNs without the cluster's name.
    ShortArns = "short-arns",
    /// A container's taskArn differs from the task's.
    ForeignTaskArn = "foreign-task-arn",
    /// Events without startedBy.
    NoStartedBy = "no-started-by",
    /// Events without launchType.
    NoLaunchType = "no-launch-type",
    /// Events without attachments.
    NoAttachments = "no-attachments",
    /// Events without platformVersion.
    NoPlatformVersion = "no-platform-version",
    /// Events with unknown members.
    UnknownMembers = "unknown-members",
    /// Events without version.
    NoVersion = "no-version",
    /// Events with members of other types: a version of 5.0, numbers for sizes, epoch times, time in addition to event_time.
    MistypedMembers = "mistyped-members",
    /// Events with event_time instead of time.
    EventTime = "event-time",
    /// Events only for the task's creation and its stop.
    SkipStates = "skip-states",
    /// An executionStoppedAt before startedAt.
    ClockSkew = "clock-skew",
    /// The task sends no events.
    NoEvents = "no-events",
    /// The task is MISSING as soon as it has stopped, and its stop sends no event.
    Forgotten = "forgotten",
}

/// The shapes of a task.
#[derive(Clone, Debug, Default)]
pub struct Shapes(Vec<Shape>);

/// An unknown shape name.
#[derive(Debug, Error)]
#[error("unknown shape \"{0}\": `ecs-bridge local --help` lists the shapes")]
pub struct UnknownShape(String);

impl Shapes {
    /// Returns `true` if it includes this shape.
    #[must_use]
    pub fn has(&self, shape: Shape) -> bool {
        self.0.contains(&shape)
    }

    /// Adds a shape.
    pub fn add(&mut self, shape: Shape) {
        self.0.push(shape);
    }

    /// Adds all of these shapes.
    pub fn extend(&mut self, more: &Self) {
        self.0.extend(&more.0);
    }

    /// Returns a line of help for each shape.
    #[must_use]
    pub fn help() -> String {
        Shape::HELP.iter().map(|(name, text)| format!("  {name:<28}{}\n", text.trim())).collect()
    }
}

impl FromStr for Shapes {
    type Err = UnknownShape;

    /// Parses shape names separated by spaces.
    fn from_str(text: &str) -> Result<Self, UnknownShape> {
        let find = |word: &str| {
            let known = Shape::NAMES.iter().find(|(name, _)| *name == word);
            known.map(|(_, shape)| *shape).ok_or_else(|| UnknownShape(word.to_owned()))
        };
        text.split_whitespace().map(find).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_shape_is_rejected() {
        let shapes: Shapes = "spot-notice short-arns".parse().unwrap();
        assert!(shapes.has(Shape::SpotNotice) && shapes.has(Shape::ShortArns) && !shapes.has(Shape::Twin));
        assert_eq!(
            "twin nonsense".parse::<Shapes>().unwrap_err().to_string(),
            "unknown shape \"nonsense\": `ecs-bridge local --help` lists the shapes"
        );
    }

    #[test]
    fn every_shape_has_help() {
        assert!(Shapes::help().lines().all(|line| line.len() > 40));
    }
}
