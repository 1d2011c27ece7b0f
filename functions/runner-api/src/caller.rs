//! Authentication of the caller: an ECS task, identified by the role session that signed its request.

use ecs_bridge_core::{task_id, wildcard::matches};

/// The task roles of runners, as ARNs in which `*` matches any characters.
#[derive(Clone, Debug)]
pub struct Roles(Vec<String>);

impl Roles {
    /// Parses a comma-separated list.
    pub fn new(list: &str) -> Self {
        Self(list.split(',').map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect())
    }

    /// Returns `true` if a role with this name in this account is in the list. The ARN of a session contains no path.
    fn contains(&self, account: &str, name: &str) -> bool {
        self.0.iter().any(|role| {
            let mut parts = role.splitn(6, ':').skip(4);
            let of = parts.next().unwrap_or_default();
            let role = parts.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            matches(of, account) && matches(role, name)
        })
    }
}

/// The proof that a caller is a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Through the function URL: the ARN of the identity that signed the request, as Lambda passes it on.
    Identity(String),
    /// By direct invocation, which only the runner's token authenticates.
    Invocation,
}

impl Caller {
    /// Returns the reason why this caller is not the task `task_arn`, if it is not.
    ///
    /// ECS assumes a task's role with the task's id as the session name. The role's trust policy must allow only ECS
    /// to assume it.
    pub fn mismatch(&self, task_arn: &str) -> Option<&'static str> {
        let Self::Identity(user_arn) = self else { return None };
        let Some(session) = Session::parse(user_arn) else { return Some("the caller is not a session of a role") };
        if task_arn.split(':').nth(4) != Some(session.account) {
            Some("the caller is of another account")
        } else if session.name != task_id(task_arn) {
            Some("the caller is another task")
        } else {
            None
        }
    }

    /// Returns `true` if the caller's role may receive commands. A task that started before the deployment's roles
    /// were restricted can have another role.
    pub fn is_of(&self, roles: &Roles) -> bool {
        let Self::Identity(user_arn) = self else { return true };
        Session::parse(user_arn).is_some_and(|session| roles.contains(session.account, session.role))
    }
}

/// A session of a role: `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
struct Session<'a> {
    account: &'a str,
    role: &'a str,
    name: &'a str,
}

impl<'a> Session<'a> {
    fn parse(user_arn: &'a str) -> Option<Self> {
        let mut parts = user_arn.splitn(6, ':').skip(2);
        let (service, _, account, resource) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (role, name) = resource.strip_prefix("assumed-role/")?.split_once('/')?;
        (service == "sts").then_some(Self { account, role, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "arn:aws:ecs:eu-west-1:123456789012:task/nightly/0123456789abcdef0123456789abcdef";

    fn mismatch(user_arn: &str) -> Option<&'static str> {
        let roles = Roles::new("arn:aws:iam::123456789012:role/team/etl, arn:aws:iam::123456789012:role/batch-*");
        let caller = Caller::Identity(user_arn.to_owned());
        let role = "the caller's role is not one of the deployment's task roles";
        caller.mismatch(TASK).or_else(|| (!caller.is_of(&roles)).then_some(role))
    }

    #[test]
    fn runner_task_matches_account_role_and_session() {
        for role in ["etl", "batch-", "batch-1"] {
            let arn = format!("arn:aws:sts::123456789012:assumed-role/{role}/0123456789abcdef0123456789abcdef");
            assert_eq!(mismatch(&arn), None, "{arn}");
        }
    }

    #[test]
    fn caller_mismatch_is_rejected_with_its_reason() {
        let task = "0123456789abcdef0123456789abcdef";
        for (arn, reason) in [
            (format!("arn:aws:sts::999999999999:assumed-role/etl/{task}"), "another account"),
            (format!("arn:aws:sts::123456789012:assumed-role/other/{task}"), "not one of the deployment's"),
            (format!("arn:aws:sts::123456789012:assumed-role/team/etl/{task}"), "another task"),
            ("arn:aws:sts::123456789012:assumed-role/etl/x".to_owned(), "another task"),
            ("arn:aws:iam::123456789012:user/etl".to_owned(), "not a session"),
            (String::new(), "not a session"),
        ] {
            assert!(mismatch(&arn).is_some_and(|found| found.contains(reason)), "{arn}: {:?}", mismatch(&arn));
        }
    }
}
