//! No fragment of a command or an environment survives in an error text, however it is quoted there.

use ecs_bridge_core::run_task::redact;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

const FRAGMENT: usize = 6;

/// A secret, or one made of others: they contain each other.
fn secrets() -> impl Strategy<Value = Vec<String>> {
    let part = "[a-z0-9 \"\\\\\n\tä€/=-]{1,14}";
    (vec(part, 1..4), vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4)).prop_map(
        |(mut secrets, joined)| {
            for (one, other) in joined {
                let (one, other) = (one.get(secrets.as_slice()).clone(), other.get(secrets.as_slice()).clone());
                secrets.push(format!("{one}{other}"));
            }
            secrets
        },
    )
}

/// How a message quotes a secret.
#[derive(Clone, Copy, Debug)]
enum Quoted {
    Whole,
    Escaped,
    EscapedTwice,
    Cut,
    Wrapped,
}

impl Quoted {
    fn quote(self, secret: &str) -> String {
        let escaped = |text: &str| json!(text).to_string();
        match self {
            Self::Whole => secret.to_owned(),
            Self::Escaped => escaped(secret),
            Self::EscapedTwice => escaped(&escaped(secret)),
            Self::Cut => secret.chars().take(secret.chars().count() * 2 / 3).chain("...".chars()).collect(),
            Self::Wrapped => secret.chars().flat_map(|character| [character, '\n', ' ']).collect(),
        }
    }
}

fn visible(text: &str) -> Vec<char> {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_fragment_of_a_secret_survives(
        secrets in secrets(),
        quotes in vec((any::<prop::sample::Index>(), select(vec![
            Quoted::Whole, Quoted::Escaped, Quoted::EscapedTwice, Quoted::Cut, Quoted::Wrapped,
        ]), "[A-Z.,:]{0,6}"), 1..6),
        as_environment in any::<bool>(),
    ) {
        let container = if as_environment {
            let environment: Vec<_> = secrets.iter().map(|value| json!({"name": "K", "value": value})).collect();
            json!({"name": "main", "environment": environment})
        } else {
            json!({"name": "main", "command": secrets})
        };
        let body = json!({"overrides": {"containerOverrides": [container]}}).to_string();
        let mut message = "InvalidParameterException: ".to_owned();
        for (index, quoted, between) in quotes {
            message += &quoted.quote(index.get::<String>(&secrets));
            message += &between;
        }
        let redacted = redact(&message, &body);
        // The marker itself is no secret; nor is what a secret shares with it.
        let left: String = visible(&redacted.replace("[redacted]", "\u{0}")).into_iter().collect();
        for secret in &secrets {
            for fragment in visible(secret).windows(FRAGMENT) {
                let fragment: String = fragment.iter().collect();
                prop_assert!(!left.contains(&fragment), "{fragment:?} of {secret:?} is left in {redacted:?}");
            }
        }
    }

    #[test]
    fn a_message_without_a_secret_stays_as_it_is(message in "[A-Z .,:]{0,80}", secrets in secrets()) {
        let body = json!({"overrides": {"containerOverrides": [{"name": "main", "command": secrets}]}}).to_string();
        prop_assert_eq!(redact(&message, &body), message);
    }
}
