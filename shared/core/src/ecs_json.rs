//! Parses ECS's JSON: tasks in events and in responses of DescribeTasks and RunTask, with the same code.
//!
//! Each member is parsed separately, and only if it is needed. A member of an unexpected type counts as absent. A
//! single malformed member therefore hides neither the rest of its task nor the other tasks of a response. The member
//! `overrides`, which holds the command and its environment, is never parsed.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    AttemptNumber,
    id::StartedBy,
    task::{Container, Task, without_program},
    time::Timestamp,
};

/// The name of the member without which a task cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable {0}")]
pub struct Unusable(pub &'static str);

/// The members of a JSON object, unparsed. If a name occurs twice, the last one counts, as for most parsers.
pub(crate) struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A member's name. ECS uses no names with escape sequences, so such a name becomes empty.
struct Name<'a>(&'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;

        impl<'de> Visitor<'de> for Borrow {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(name))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Name(""))
            }
        }

        deserializer.deserialize_str(Borrow)
    }
}

impl<'a> Members<'a> {
    /// Parses an object. Returns none for any other value.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Returns a member that exists and is not `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rev().find(|(known, _)| *known == name)?;
        (value.get() != "null").then_some(value)
    }

    /// Returns a string that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let json = self.get(name)?.get();
        if !json.starts_with('"') {
            return None;
        }
        // The text is parsed as bytes, because a text that was cut within a surrogate pair is not a valid string.
        let bytes = serde_json::from_str::<serde_bytes::ByteBuf>(json).ok()?.into_vec();
        let text =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        (!text.is_empty()).then_some(text)
    }

    /// Returns an integer, which may be written as text or with a fraction of zero.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        let json = self.get(name)?.get();
        let digits = json.trim_matches('"').trim();
        digits.parse().ok().or_else(|| {
            let number = digits.parse::<f64>().ok()?;
            // Beyond this limit, a float does not represent each integer exactly.
            (number.fract() == 0.0 && number.abs() < 9e15).then(|| format!("{number:.0}").parse().ok())?
        })
    }

    fn size(&self, name: &str) -> Option<u32> {
        self.integer(name).and_then(|number| number.try_into().ok())
    }

    /// Returns an exit code. Windows has codes above 2^31, which ECS's type represents as negative numbers.
    fn exit_code(&self) -> Option<i32> {
        let code = self.integer("exitCode")?;
        i32::try_from(code).ok().or_else(|| u32::try_from(code).ok().map(u32::cast_signed))
    }

    /// Returns a time. Events use ISO 8601, and responses use seconds since the epoch. Milliseconds are accepted too.
    pub(crate) fn time(&self, name: &str) -> Option<Timestamp> {
        // This range covers seconds of the years 2001 to 5138. Larger numbers are milliseconds, and ECS sends no
        // smaller ones.
        const SECONDS: std::ops::Range<f64> = 1e9..1e11;
        let json = self.get(name)?.get();
        if let Some(at) = self.text(name).as_deref().and_then(Timestamp::parse_iso) {
            return Some(at);
        }
        let number = json.trim_matches('"').trim().parse::<f64>().ok()?;
        let seconds = if number < SECONDS.end { number } else { number / 1000.0 };
        let since = SECONDS.contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok())??;
        u64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
    }

    /// Returns the objects of a list, or no objects if it is absent. Other values in the list count as absent.
    fn objects(&self, name: &'static str) -> Result<Vec<Members<'a>>, Unusable> {
        let Some(list) = self.get(name) else { return Ok(Vec::new()) };
        let list = serde_json::from_str::<Vec<&RawValue>>(list.get()).map_err(|_| Unusable(name))?;
        Ok(list.into_iter().filter_map(|object| Members::parse(object.get())).collect())
    }
}

/// Parses a task of this attempt, as reported at this time.
///
/// # Errors
///
/// If the ARN or the status is missing, or `containers` is not a list. No decision is possible without them, and an
/// exit code that cannot be found must not count as absent.
pub(crate) fn task(members: &Members<'_>, attempt: AttemptNumber, at: Option<Timestamp>) -> Result<Task, Unusable> {
    let arn = members.text("taskArn").ok_or(Unusable("taskArn"))?;
    Ok(Task {
        attempt,
        // A negative version counts as absent.
        version: members.integer("version").and_then(|version| version.try_into().ok()),
        last_status: members.text("lastStatus").ok_or(Unusable("lastStatus"))?,
        cluster_arn: members.text("clusterArn").unwrap_or_else(|| cluster_of(&arn).to_owned()),
        desired_status: members.text("desiredStatus").unwrap_or_default(),
        stop_code: members.text("stopCode"),
        stopped_reason: members.text("stoppedReason").as_deref().map(without_program),
        containers: members.objects("containers")?.iter().map(container).collect(),
        runs_on: members.text("capacityProviderName").or_else(|| members.text("launchType")),
        cpu: members.size("cpu"),
        memory: members.size("memory"),
        started_at: members.time("startedAt"),
        execution_stopped_at: members.time("executionStoppedAt"),
        stopped_at: members.time("stoppedAt"),
        at,
        arn,
    })
}

fn container(members: &Members<'_>) -> Container {
    Container {
        name: members.text("name").unwrap_or_default(),
        last_status: members.text("lastStatus").unwrap_or_default(),
        exit_code: members.exit_code(),
        reason: members.text("reason").as_deref().map(without_program),
    }
}

/// Returns the cluster's name in a task's ARN. It is empty for the old short form, which does not contain one.
fn cluster_of(task_arn: &str) -> &str {
    let mut parts = task_arn.rsplit('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(cluster), Some(_)) => cluster,
        (Some(_) | None, _) => "",
    }
}

/// A response of RunTask or DescribeTasks.
pub struct Response<'a> {
    tasks: Vec<Members<'a>>,
    failures: Vec<Members<'a>>,
}

/// An entry of `failures[]`. Missing members are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The ARN of the affected resource.
    pub arn: Option<String>,
    /// The reason, such as `MISSING` or `RESOURCE:CPU`.
    pub reason: Option<String>,
    /// Further details.
    pub detail: Option<String>,
}

impl<'a> Response<'a> {
    /// Parses a response. Returns none if it is not a JSON object, for example because it was truncated.
    pub fn parse(body: &'a str) -> Option<Self> {
        let members = Members::parse(body)?;
        let objects = |name| members.objects(name).unwrap_or_default();
        Some(Self { tasks: objects("tasks"), failures: objects("failures") })
    }

    /// Returns the ARN of the task that RunTask launched, and whether it will run. The response to a repeated client
    /// token may contain little else.
    pub fn launched(&self) -> Option<(String, bool)> {
        let launched = |task: &Members<'_>| {
            let stopped = |name| task.text(name).as_deref() == Some("STOPPED");
            Some((task.text("taskArn")?, !stopped("lastStatus") && !stopped("desiredStatus")))
        };
        self.tasks.iter().find_map(launched)
    }

    /// Returns each described task with its `startedBy`, if that has the bridge's form. Other tasks count as the first
    /// attempt.
    pub fn tasks(&self) -> impl Iterator<Item = Result<(Option<StartedBy>, Task), Unusable>> {
        self.tasks.iter().map(|members| {
            let started_by = members.text("startedBy").as_deref().and_then(StartedBy::parse);
            let attempt = started_by.as_ref().map_or(AttemptNumber::FIRST, |started_by| started_by.attempt);
            Ok((started_by, task(members, attempt, None)?))
        })
    }

    /// Returns the entries of `failures[]`.
    pub fn failures(&self) -> impl Iterator<Item = Failure> {
        self.failures.iter().map(|members| Failure {
            arn: members.text("arn"),
            reason: members.text("reason"),
            detail: members.text("detail"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(json: &str) -> Members<'_> {
        Members::parse(json).unwrap()
    }

    #[test]
    fn integer_accepts_text_and_whole_floats() {
        for (json, expected) in [
            ("5", Some(5)),
            ("-5", Some(-5)),
            ("5.0", Some(5)),
            ("5e2", Some(500)),
            (r#""256""#, Some(256)),
            (r#"" 256.0 ""#, Some(256)),
            ("9223372036854775807", Some(i64::MAX)),
            ("5.5", None),
            ("1e400", None),
            ("true", None),
            (r#""""#, None),
            (r#""NaN""#, None),
            (r#""1 vCPU""#, None),
            ("[5]", None),
            ("null", None),
        ] {
            assert_eq!(members(&format!(r#"{{"n": {json}}}"#)).integer("n"), expected, "{json}");
        }
    }

    #[test]
    fn exit_code_above_two_to_the_31_keeps_its_bits() {
        for (json, expected) in [
            ("3221225786", Some(-1_073_741_510)),
            ("4294967295", Some(-1)),
            ("2147483648", Some(i32::MIN)),
            ("-1073741510", Some(-1_073_741_510)),
            ("137.0", Some(137)),
            (r#""137""#, Some(137)),
            // A number that is not 0 never becomes 0.
            ("4294967296", None),
            ("0.5", None),
            ("false", None),
            (r#""""#, None),
        ] {
            assert_eq!(members(&format!(r#"{{"exitCode": {json}}}"#)).exit_code(), expected, "{json}");
        }
    }

    #[test]
    fn time_accepts_iso_and_epoch() {
        let at = Some(Timestamp::from_millis(1_796_024_073_700));
        for (json, expected) in [
            ("1796024073.7", at),
            ("1796024073700", at),
            (r#""1796024073.7""#, at),
            (r#""2026-11-30T07:34:33.700Z""#, at),
            (r#""2026-11-30T08:34:33.700+01:00""#, at),
            ("0", None),
            ("-1796024073", None),
            ("1e400", None),
            ("{}", None),
            (r#""yesterday""#, None),
        ] {
            assert_eq!(members(&format!(r#"{{"t": {json}}}"#)).time("t"), expected, "{json}");
        }
    }

    #[test]
    fn text_cut_within_a_surrogate_pair_is_read() {
        let cut = members(r#"{"r": "CannotPull \ud83d", "n": 7, "e": ""}"#);
        assert!(cut.text("r").unwrap().starts_with("CannotPull "));
        assert_eq!((cut.text("n"), cut.text("e"), cut.text("missing")), (None, None, None));
    }

    #[test]
    fn last_of_two_members_counts() {
        assert_eq!(members(r#"{"n": 1, "\u006e": 3, "n": 2}"#).integer("n"), Some(2));
    }

    #[test]
    fn odd_task_leaves_the_others() {
        let body = r#"{"tasks": [7, {"taskArn": "a", "lastStatus": "RUNNING", "version": "x", "containers": [7]},
            {"taskArn": 5, "lastStatus": "RUNNING"}, {"taskArn": "b"},
            {"taskArn": "c", "lastStatus": "STOPPED", "version": 3.0, "startedBy": ["x"],
             "containers": [null, {"name": 9}, {"name": "main", "lastStatus": "STOPPED", "exitCode": 3221225786}]}],
            "failures": [{"arn": "d", "reason": "MISSING"}, {"arn": 7}, "x"], "new": {}}"#;
        let response = Response::parse(body).unwrap();
        let tasks: Vec<_> = response.tasks().collect();
        assert_eq!(tasks.len(), 4);
        assert_eq!(tasks[0].as_ref().map(|(_, task)| task.version), Ok(None));
        assert_eq!((tasks[1].clone(), tasks[2].clone()), (Err(Unusable("taskArn")), Err(Unusable("lastStatus"))));
        let (started_by, task) = tasks[3].clone().unwrap();
        assert_eq!((started_by, task.version, task.exit_code("main")), (None, Some(3), Some(-1_073_741_510)));
        let failures: Vec<_> = response.failures().map(|failure| (failure.arn, failure.reason)).collect();
        assert_eq!(failures, [(Some("d".to_owned()), Some("MISSING".to_owned())), (None, None)]);
        assert!(Response::parse(r#"{"tasks": [{"taskArn""#).is_none() && Response::parse("[]").is_none());
    }

    #[test]
    fn cluster_comes_from_a_long_task_arn() {
        assert_eq!(cluster_of("arn:aws:ecs:us-east-1:123456789012:task/nightly/eeccdb34"), "nightly");
        assert_eq!(cluster_of("arn:aws:ecs:us-east-1:123456789012:task/eeccdb34"), "");
    }
}
