//! Reads the functions' configuration from the environment once, at start. All problems are reported together.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    id::Deployment,
    launch_rate::LaunchRate,
    notify::Listeners,
    pool::RunnerApiAddress,
    profile::Clusters,
    rules::{Rules, Timers},
};

/// All problems of the environment.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

/// As [`Display`](fmt::Display): a `main` that returns the error prints this into the function's log.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the function's environment is not valid: {}", self.0.join("; "))
    }
}

/// The configuration that all functions share.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ECS_BRIDGE_TABLE`: the table's name.
    pub table: String,
    /// `ECS_BRIDGE_DEPLOYMENT`, `ECS_BRIDGE_RETENTION_DAYS` (30), and two variables for tests: `ECS_BRIDGE_TIMER_SCALE`
    /// (1), and `ECS_BRIDGE_SEND_WITHIN` (60 s, divided by the scale). The latter exists because a scaled minute is too
    /// short for a busy machine.
    pub rules: Rules,
    /// `ECS_BRIDGE_LAUNCH_RATE` (20 per second) and `ECS_BRIDGE_LAUNCH_BURST` (100).
    pub launch_rate: LaunchRate,
}

/// A source of variables that collects their problems.
pub struct Environment<F> {
    get: F,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    /// Creates an environment from `get`, which returns the value of a variable.
    pub fn new(get: F) -> Self {
        Self { get, problems: Vec::new() }
    }

    /// Returns an optional variable. An empty one counts as absent.
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// Returns a required variable, and notes a problem if it is absent.
    pub fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.note(format!("{name} is not set"));
            String::new()
        })
    }

    /// Returns a variable that is `true` or `false`, or `false` if it is absent.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.optional(name).as_deref() {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => {
                self.note(format!("{name} must be true or false"));
                false
            }
        }
    }

    /// Notes a problem.
    pub fn note(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn number<T: FromStr + Copy>(&mut self, name: &str, default: T, fits: impl Fn(T) -> bool, right: &str) -> T {
        match self.optional(name).map(|value| value.parse::<T>().ok().filter(|&number| fits(number))) {
            None => default,
            Some(Some(number)) => number,
            Some(None) => {
                self.note(format!("{name} must be {right}"));
                default
            }
        }
    }

    /// Returns the configuration that all functions share.
    pub fn config(&mut self) -> Config {
        let table = self.required("ECS_BRIDGE_TABLE");
        let deployment = self.required("ECS_BRIDGE_DEPLOYMENT").parse::<Deployment>();
        let days = self.number(
            "ECS_BRIDGE_RETENTION_DAYS",
            30,
            |days: u64| (1..=3650).contains(&days),
            "a number of days from 1 to 3650",
        );
        let scale = self.number(
            "ECS_BRIDGE_TIMER_SCALE",
            1.0,
            |scale: f64| (1.0..=10_000.0).contains(&scale),
            "a number from 1 to 10000",
        );
        let mut timers = Timers::default().scaled(scale);
        timers.send_within = Duration::from_secs_f64(self.number(
            "ECS_BRIDGE_SEND_WITHIN",
            timers.send_within.as_secs_f64(),
            |seconds: f64| (0.0..=60.0).contains(&seconds),
            "a number of seconds from 0 to 60",
        ));
        let launch_rate = LaunchRate {
            per_second: self.number(
                "ECS_BRIDGE_LAUNCH_RATE",
                20.0,
                |rate: f64| (0.1..=10_000.0).contains(&rate),
                "a number a second from 0.1 to 10000",
            ),
            burst: self.number(
                "ECS_BRIDGE_LAUNCH_BURST",
                100,
                |burst: u32| (1..=100_000).contains(&burst),
                "a whole number from 1 to 100000",
            ),
        };
        let deployment = deployment.unwrap_or_else(|error| {
            self.note(format!("ECS_BRIDGE_DEPLOYMENT: {error}"));
            Deployment::unnamed()
        });
        let retention = Duration::from_secs(days * 24 * 3600);
        Config { table, rules: Rules { deployment, retention, timers }, launch_rate }
    }

    /// Returns the deployment's clusters. `ECS_BRIDGE_CLUSTER` is the cluster of profiles that name none.
    /// `ECS_BRIDGE_CLUSTERS` holds further names or ARNs, separated by commas. Lambda sets `AWS_REGION`, and a cluster
    /// of another Region is noted as a problem.
    pub fn clusters(&mut self) -> Clusters {
        let default = self.required("ECS_BRIDGE_CLUSTER");
        let region = self.optional("AWS_REGION").or_else(|| self.optional("AWS_DEFAULT_REGION"));
        let others = self.optional("ECS_BRIDGE_CLUSTERS").unwrap_or_default();
        let clusters = Clusters::new(&default, &others).in_region(region);
        clusters.in_other_regions().for_each(|problem| self.note(format!("cluster of the deployment: {problem}")));
        clusters
    }

    /// Returns the notification targets that the deployment's roles allow: `ECS_BRIDGE_TASK_TOKENS`, which is `true` or
    /// `false`, and `ECS_BRIDGE_EVENT_BUSES`, which holds names or ARNs separated by commas.
    pub fn listeners(&mut self) -> Listeners {
        let task_tokens = self.flag("ECS_BRIDGE_TASK_TOKENS");
        Listeners::new(task_tokens, &self.optional("ECS_BRIDGE_EVENT_BUSES").unwrap_or_default())
    }

    /// Returns the address at which runners reach the runner API: `ECS_BRIDGE_RUNNER_API_URL`, or
    /// `ECS_BRIDGE_RUNNER_API_FUNCTION` for direct invocation.
    pub fn runner_api(&self) -> Option<RunnerApiAddress> {
        let url = self.optional("ECS_BRIDGE_RUNNER_API_URL").map(RunnerApiAddress::Url);
        url.or_else(|| self.optional("ECS_BRIDGE_RUNNER_API_FUNCTION").map(RunnerApiAddress::Function))
    }

    /// Returns `value`, unless a problem was noted.
    ///
    /// # Errors
    ///
    /// All noted problems.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError(self.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let vars: std::collections::HashMap<_, _> =
            vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut environment = Environment::new(|name: &str| vars.get(name).cloned());
        let config = environment.config();
        environment.finish(config)
    }

    #[test]
    fn table_and_deployment_are_enough() {
        let config = read(&[("ECS_BRIDGE_TABLE", "t"), ("ECS_BRIDGE_DEPLOYMENT", "prod")]).unwrap();
        assert_eq!((config.launch_rate.burst, config.rules.timers), (100, Timers::default()));
        assert_eq!(config.rules.retention, Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn send_within_is_scaled_unless_it_is_set() {
        let scaled = [("ECS_BRIDGE_TABLE", "t"), ("ECS_BRIDGE_DEPLOYMENT", "prod"), ("ECS_BRIDGE_TIMER_SCALE", "60")];
        assert_eq!(read(&scaled).unwrap().rules.timers.send_within, Duration::from_secs(1));
        let own = read(&[&scaled[..], &[("ECS_BRIDGE_SEND_WITHIN", "60")]].concat()).unwrap().rules.timers;
        assert_eq!((own.send_within, own.lease), (Duration::from_secs(60), Duration::from_secs(3)));
    }

    #[test]
    fn cluster_of_another_region_is_a_problem() {
        let problems = |region: &'static str| {
            let mut environment = Environment::new(move |name: &str| match name {
                "ECS_BRIDGE_CLUSTER" => Some("arn:aws:ecs:eu-west-1:123456789012:cluster/jobs".to_owned()),
                "ECS_BRIDGE_CLUSTERS" => Some("gpu,arn:aws:ecs:us-east-1:123456789012:cluster/batch".to_owned()),
                "AWS_REGION" => Some(region.to_owned()),
                _ => None,
            });
            environment.clusters();
            environment.finish(()).unwrap_err().0
        };
        assert!(problems("eu-west-1")[0].contains("cluster/batch\" is in the Region \"us-east-1\""));
        assert!(problems("us-east-1")[0].contains("cluster/jobs\" is in the Region \"eu-west-1\""));
        assert_eq!([problems("us-east-1").len(), problems("ap-south-1").len()], [1, 2]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let error = read(&[
            ("ECS_BRIDGE_DEPLOYMENT", "a/b"),
            ("ECS_BRIDGE_LAUNCH_RATE", "fast"),
            ("ECS_BRIDGE_LAUNCH_BURST", "0"),
            ("ECS_BRIDGE_RETENTION_DAYS", "0"),
            ("ECS_BRIDGE_TIMER_SCALE", "0.5"),
            ("ECS_BRIDGE_SEND_WITHIN", "NaN"),
        ])
        .unwrap_err();
        assert_eq!(error.0.len(), 7, "{error}");
        assert!(error.to_string().contains("ECS_BRIDGE_TABLE is not set"));
    }
}
