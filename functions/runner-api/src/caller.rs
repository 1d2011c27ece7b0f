//! Who asks for work: a task of ECS, by the role session under which its request was signed.

use ecs_bridge_core::task_id;

/// The roles that the tasks of runners have: ARNs, in which `*` stands for any characters.
#[derive(Clone, Debug)]
pub struct Roles(Vec<String>);

impl Roles {
    /// Of a list that is separated by commas.
    pub fn new(list: &str) -> Self {
        Self(list.split(',').map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect())
    }

    /// Whether a role of this name, in this account, is among them. The ARN of a session has no path.
    fn contains(&self, account: &str, name: &str) -> bool {
        self.0.iter().any(|role| {
            let mut parts = role.splitn(6, ':').skip(4);
            let of = parts.next().unwrap_or_default();
            let role = parts.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            matches(of, account) && matches(role, name)
        })
    }
}

/// How a caller shows that it is a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Through the function URL: the ARN of the identity that signed the request, as Lambda passes it on.
    Identity(String),
    /// By direct invocation, where only the runner's token identifies it.
    Invocation,
}

impl Caller {
    /// Why this caller is not the task `task_arn`, if it is not.
    ///
    /// ECS assumes a task's role under the task's id as the session name, and only ECS may assume it (its trust).
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

    /// Whether its role may have work. A task that began before the deployment's roles were narrowed has another.
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

/// Whether `text` matches `pattern`, in which `*` stands for any characters, as in IAM.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
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
    fn a_task_is_known_by_account_role_and_session() {
        for role in ["etl", "batch-", "batch-1"] {
            let arn = format!("arn:aws:sts::123456789012:assumed-role/{role}/0123456789abcdef0123456789abcdef");
            assert_eq!(mismatch(&arn), None, "{arn}");
        }
    }

    #[test]
    fn whatever_differs_is_refused_with_the_reason() {
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

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "abbc", true),
            ("a*c", "acb", false),
            ("ab", "abc", false),
            ("a*bc*c", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
