//! The odd things that real ECS does, each by a name, so that a test can ask for it: in a tag or an environment
//! variable of one RunTask, or by a rule from outside.

use std::str::FromStr;

use thiserror::Error;

/// The tag, on a RunTask request, that asks for shapes.
pub const SHAPE_TAG: &str = "ecs-bridge-local:shape";
/// The environment variable, in a container override, that does the same.
pub const SHAPE_VARIABLE: &str = "ECS_BRIDGE_LOCAL_SHAPE";

macro_rules! shapes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Something that a task may do.
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
    /// The task's network or secrets cannot be had: ResourceInitializationError in the stopped reason alone.
    ResourceInit = "resource-init",
    /// The command runs and ends, but its sidecars never started: TaskFailedToStart with an exit code.
    FailedToStartAfterExit = "failed-to-start-after-exit",
    /// A Spot notice once it runs (RUNNING, desired STOPPED, stop code set); the command ends by itself.
    SpotNotice = "spot-notice",
    /// The same with the stop code of older samples, TerminationNotice.
    TerminationNotice = "termination-notice",
    /// A Spot notice, then SIGTERM and SIGKILL.
    SpotInterruption = "spot-interruption",
    /// The host goes away once it runs: STOPPED, InfrastructureHealth, no exit code.
    InfrastructureHealth = "infrastructure-health",
    /// STOPPED without an exit code, though the command ended.
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
    /// Events with members that nobody knows yet.
    UnknownMembers = "unknown-members",
    /// Events with event_time in place of time.
    EventTime = "event-time",
    /// Events only of the task's creation and its end.
    SkipStates = "skip-states",
    /// The execution stopped before the task started, by its clock.
    ClockSkew = "clock-skew",
    /// No events at all.
    NoEvents = "no-events",
    /// ECS forgets the task as soon as it stopped, and no event tells its end: MISSING.
    Forgotten = "forgotten",
}

/// What is asked of one task.
#[derive(Clone, Debug, Default)]
pub struct Shapes(Vec<Shape>);

/// A word that is no shape.
#[derive(Debug, Error)]
#[error("unknown shape {0:?}")]
pub struct UnknownShape(String);

impl Shapes {
    /// Whether this is asked for.
    #[must_use]
    pub fn has(&self, shape: Shape) -> bool {
        self.0.contains(&shape)
    }

    /// Asks for one more.
    pub fn add(&mut self, shape: Shape) {
        self.0.push(shape);
    }

    /// Asks for all of these too.
    pub fn extend(&mut self, more: &Self) {
        self.0.extend(&more.0);
    }

    /// A line for each, for the help text.
    #[must_use]
    pub fn help() -> String {
        Shape::HELP.iter().map(|(name, text)| format!("  {name:<28}{}\n", text.trim())).collect()
    }
}

impl FromStr for Shapes {
    type Err = UnknownShape;

    /// Words between spaces.
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
    fn shapes_are_words_and_an_unknown_one_is_refused() {
        let shapes: Shapes = "spot-notice short-arns".parse().unwrap();
        assert!(shapes.has(Shape::SpotNotice) && shapes.has(Shape::ShortArns) && !shapes.has(Shape::Twin));
        assert_eq!("twin nonsense".parse::<Shapes>().unwrap_err().to_string(), "unknown shape \"nonsense\"");
    }

    #[test]
    fn every_shape_is_explained() {
        assert!(Shapes::help().lines().all(|line| line.len() > 40));
    }
}
