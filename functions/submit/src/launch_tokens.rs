//! The launch tokens of a call, taken as needed and given back if unused.

use ecs_bridge_aws::Bridge;
use tokio::sync::Mutex;

/// The number of launch tokens taken at a time. Known submissions need none, and tokens held by this call are
/// unavailable to others.
const TOKENS: usize = 16;

/// The launch tokens of a call.
pub struct Tokens<'a> {
    bridge: &'a Bridge,
    held: Mutex<Held>,
}

struct Held {
    tokens: usize,
    /// The number of submissions that have not taken a token yet.
    to_come: usize,
    /// `true` if the bucket is empty. This call then takes no more tokens.
    is_empty: bool,
}

impl<'a> Tokens<'a> {
    /// Creates the tokens of a call with this many submissions to launch. None is taken yet.
    pub fn new(bridge: &'a Bridge, submissions: usize) -> Self {
        Self { bridge, held: Mutex::new(Held { tokens: 0, to_come: submissions, is_empty: false }) }
    }

    /// Takes a token. Returns `false` if the bucket is empty.
    pub async fn take(&self) -> bool {
        let mut held = self.held.lock().await;
        if held.tokens == 0 && !held.is_empty {
            held.tokens = self.bridge.spare_launch_tokens(held.to_come.clamp(1, TOKENS)).await;
            held.is_empty = held.tokens == 0;
        }
        held.to_come = held.to_come.saturating_sub(1);
        let has_token = held.tokens > 0;
        held.tokens -= usize::from(has_token);
        has_token
    }

    /// Returns a token that its submission did not use to the other submissions of this call.
    pub async fn put_back(&self) {
        self.held.lock().await.tokens += 1;
    }

    /// Gives unused tokens back to the bucket.
    pub async fn give_back(self) {
        self.bridge.give_back(self.held.into_inner().tokens).await;
    }
}
