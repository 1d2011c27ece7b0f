//! Defines names, which are valid by construction, and the values that derive from them: `startedBy` and the client
//! token.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {max} characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidName {
    what: &'static str,
    max: usize,
}

fn check(what: &'static str, max: usize, text: &str) -> Result<(), InvalidName> {
    let valid = (1..=max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if valid { Ok(()) } else { Err(InvalidName { what, max }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                check($what, $max, &text).map(|()| Self(text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The caller's name for a submission: 1 to 60 characters. It is the idempotency key and the key of the table.
    SubmissionId,
    "submission_id",
    60
);
name!(
    /// The name of one installed stack: 1 to 32 characters. It is the first part of `startedBy`, so that stacks can
    /// share a cluster.
    Deployment,
    "the deployment's name",
    32
);
name!(
    /// The name of a launch configuration of the deployment: 1 to 64 characters.
    ProfileName,
    "the profile's name",
    64
);
name!(
    /// The hash of the overrides of a submission that affect placement: 8 hexadecimal digits.
    PlacementHash,
    "the hash of overrides",
    8
);

impl Deployment {
    /// Returns a placeholder for a configuration that will be rejected.
    pub(crate) fn unnamed() -> Self {
        Self("unnamed".to_owned())
    }
}

impl ProfileName {
    /// Returns the profile of a submission that names none.
    pub fn default_profile() -> Self {
        Self("default".to_owned())
    }
}

/// The number of an attempt to start the container of a submission: 1 to 9,999.
///
/// Up to 99 attempts may start a container. The others never got capacity. The limit is so high because a capacity
/// provider that gives up every few minutes must not exhaust a submission within a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct AttemptNumber(u16);

impl AttemptNumber {
    /// The first one.
    pub const FIRST: Self = Self(1);
    /// The last one.
    pub const LAST: Self = Self(9_999);

    /// Returns the next attempt, or none after the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then_some(Self(self.0 + 1))
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for AttemptNumber {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        if (1..=Self::LAST.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err("an attempt is a number from 1 to 9999")
        }
    }
}

impl From<AttemptNumber> for u16 {
    fn from(attempt: AttemptNumber) -> Self {
        attempt.0
    }
}

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The `startedBy` of a task: `<deployment>/<submission_id>/<attempt>`, up to 98 characters. ECS allows 128.
///
/// It is derived and never stored, so that any step can be repeated after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedBy {
    /// The deployment that launched the task.
    pub deployment: Deployment,
    /// The submission that the task runs.
    pub submission_id: SubmissionId,
    /// The attempt of the submission.
    pub attempt: AttemptNumber,
}

impl StartedBy {
    /// Parses the output of [`Display`](fmt::Display). Returns none for any other `startedBy`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (deployment, submission_id, attempt) = (parts.next()?, parts.next()?, parts.next()?);
        // The texts "01" and "+1" would parse as 1 too, but `Display` does not write them.
        if parts.next().is_some() || !attempt.starts_with(|first: char| ('1'..='9').contains(&first)) {
            return None;
        }
        Some(Self {
            deployment: deployment.parse().ok()?,
            submission_id: submission_id.parse().ok()?,
            attempt: attempt.parse::<u16>().ok()?.try_into().ok()?,
        })
    }

    /// Returns RunTask's `clientToken` for the request of this capacity option: base64url(SHA-256(startedBy)), 43
    /// characters. ECS allows 64. A fallback is another request, so it has its own token.
    pub fn client_token(&self, choice: u8) -> String {
        let mut digest = Sha256::new_with_prefix(self.to_string());
        if choice > 0 {
            digest.update(format!("/{choice}"));
        }
        BASE64_URL_SAFE_NO_PAD.encode(digest.finalize())
    }
}

impl fmt::Display for StartedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.deployment, self.submission_id, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started_by() -> StartedBy {
        StartedBy::parse("prod/etl-2026_11/3").unwrap()
    }

    #[test]
    fn started_by_parses_as_written() {
        assert_eq!(started_by().to_string(), "prod/etl-2026_11/3");
        assert_eq!(started_by().attempt.get(), 3);
    }

    #[test]
    fn a_foreign_started_by_is_not_parsed() {
        for text in [
            "",
            "ecs-svc/123",
            "prod/x",
            "prod/x/0",
            "prod/x/10000",
            "prod/x/01",
            "prod/x/+1",
            "prod/x/1/2",
            "prod//1",
            "pröd/x/1",
        ] {
            assert_eq!(StartedBy::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_client_token_is_the_digest_of_started_by() {
        let token = started_by().client_token(0);
        assert_eq!(token.len(), 43);
        assert_eq!(token, BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest("prod/etl-2026_11/3")));
        assert_ne!(started_by().client_token(1), token);
    }

    #[test]
    fn the_error_of_an_invalid_id_gives_the_rule() {
        let error = "x".repeat(61).parse::<SubmissionId>().unwrap_err();
        assert_eq!(error.to_string(), "submission_id must be 1 to 60 characters of A-Z, a-z, 0-9, _ and -");
        assert!("x".repeat(60).parse::<SubmissionId>().is_ok());
        for text in ["", "a b", "a/b", "a\0b", "ä"] {
            assert!(text.parse::<SubmissionId>().is_err(), "{text:?}");
        }
    }
}
