//! The three kinds of rows: a submission with its own container, a submission for a pool, and a runner.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::pool::{Pooled, Runner};

/// What a row stands for. In the row, the attribute `pooled` or `runner` shows the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A submission that is launched as a task of its own. Also a submission of which only a stop is known.
    #[default]
    Container,
    /// A submission that a runner of a pool claims.
    Pooled(Box<Pooled>),
    /// A runner of a pool.
    Runner(Box<Runner>),
}

/// The attributes of the row that show its kind.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pooled: Option<&'a Pooled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runner: Option<&'a Runner>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    pooled: Option<Box<Pooled>>,
    #[serde(default)]
    runner: Option<Box<Runner>>,
}

impl Kind {
    pub(super) fn pooled(&self) -> Option<&Pooled> {
        match self {
            Self::Pooled(pooled) => Some(pooled),
            Self::Container | Self::Runner(_) => None,
        }
    }

    pub(super) fn runner(&self) -> Option<&Runner> {
        match self {
            Self::Runner(runner) => Some(runner),
            Self::Container | Self::Pooled(_) => None,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { pooled: self.pooled(), runner: self.runner() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Read::deserialize(deserializer)? {
            Read { pooled: None, runner: None } => Ok(Self::Container),
            Read { pooled: Some(pooled), runner: None } => Ok(Self::Pooled(pooled)),
            Read { pooled: None, runner: Some(runner) } => Ok(Self::Runner(runner)),
            Read { pooled: Some(_), runner: Some(_) } => {
                Err(D::Error::custom("a row has either `pooled` or `runner`, not both"))
            }
        }
    }
}
