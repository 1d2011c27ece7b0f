//! Random decisions that depend on a seed and on their subject, never on the order of calls. A failing seed makes the same
//! decisions again, even if its tasks interleave differently.

use std::ops::RangeInclusive;

/// A source of repeatable decisions.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    seed: u64,
}

impl Chance {
    /// Creates a source of decisions with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns a number for this purpose and identity. It is FNV-1a with the finalizer of splitmix64, so that similar inputs
    /// have different numbers.
    #[must_use]
    pub fn number(&self, purpose: &str, identity: &str) -> u64 {
        let bytes = self.seed.to_le_bytes().into_iter().chain(purpose.bytes()).chain([0]).chain(identity.bytes());
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// Returns true with this probability (0 to 1).
    #[must_use]
    pub fn happens(&self, probability: f64, purpose: &str, identity: &str) -> bool {
        // A double holds 53 bits exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
        let fraction = (self.number(purpose, identity) >> 11) as f64 / (1_u64 << 53) as f64;
        fraction < probability
    }

    /// Returns a number in this range.
    #[must_use]
    pub fn between(&self, range: &RangeInclusive<u64>, purpose: &str, identity: &str) -> u64 {
        let width = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.number(purpose, identity) % width
    }

    /// Returns one of these values.
    #[must_use]
    pub fn pick<T: Copy, const N: usize>(&self, choices: [T; N], purpose: &str, identity: &str) -> T {
        const { assert!(N > 0, "nothing to pick from") };
        let at = usize::try_from(self.number(purpose, identity) % N as u64).unwrap_or(0);
        #[expect(clippy::indexing_slicing, reason = "at < N")]
        choices[at]
    }

    /// Returns 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self, purpose: &str, identity: &str) -> String {
        let more = format!("{purpose}'");
        format!("{:016x}{:016x}", self.number(purpose, identity), self.number(&more, identity))
    }

    /// Returns 32 hexadecimal digits in the format of a UUID.
    #[must_use]
    pub fn uuid(&self, purpose: &str, identity: &str) -> String {
        let mut hex = self.hex(purpose, identity);
        for at in [20, 16, 12, 8] {
            hex.insert(at, '-');
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_depend_on_the_seed() {
        let decide = |seed| (0..64).map(|n| Chance::new(seed).happens(0.5, "drop", &n.to_string())).collect::<Vec<_>>();
        assert_eq!(decide(7), decide(7));
        assert_ne!(decide(7), decide(8));
    }

    #[test]
    fn probability_holds_over_many_decisions() {
        let chance = Chance::new(1);
        let hits = (0..10_000).filter(|n| chance.happens(0.3, "duplicate", &format!("d/{n}/1"))).count();
        assert!((2_800..3_200).contains(&hits), "{hits} of 10000");
        assert!(!chance.happens(0.0, "never", "x"));
        assert!(chance.happens(1.0, "always", "x"));
    }

    #[test]
    fn uuid_has_standard_format() {
        let id = Chance::new(3).uuid("event", "x");
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}
