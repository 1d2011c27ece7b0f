//! The clusters of a deployment.

use std::{fmt, iter};

use crate::task::cluster_name;

/// The clusters that the deployment's roles allow, each by name or ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    pub(super) default: String,
    others: Vec<String>,
    region: Option<String>,
}

impl Clusters {
    /// Creates the list from the default cluster of profiles and `others`, which commas separate.
    pub fn new(default: &str, others: &str) -> Self {
        let others = others.split(',').map(str::trim).filter(|cluster| !cluster.is_empty());
        Self { default: default.to_owned(), others: others.map(str::to_owned).collect(), region: None }
    }

    /// Sets the Region of the functions. Event rule, roles and ECS endpoint are those of that Region.
    #[must_use]
    pub fn in_region(self, region: Option<String>) -> Self {
        Self { region, ..self }
    }

    /// Returns a text for each cluster whose ARN names another Region than that of the functions.
    pub fn in_other_regions(&self) -> impl Iterator<Item = String> {
        iter::once(&self.default).chain(&self.others).filter_map(|cluster| self.problem_of_region(cluster))
    }

    /// Returns a text if the ARN of the cluster names another Region than that of the functions.
    pub(super) fn problem_of_region(&self, cluster: &str) -> Option<String> {
        let ours = self.region.as_deref()?;
        let theirs = cluster.strip_prefix("arn:")?.split(':').nth(2)?;
        (theirs != ours).then(|| {
            format!(
                "{cluster:?} is in the Region {theirs:?}, and the functions run in {ours:?}: name a cluster of {ours:?}, or \
                 deploy the stack in {theirs:?}"
            )
        })
    }

    /// Returns the cluster of profiles without one.
    pub fn default_cluster(&self) -> &str {
        &self.default
    }

    /// Returns true if `cluster` is the default cluster.
    pub fn is_default(&self, cluster: &str) -> bool {
        is_same_cluster(&self.default, cluster)
    }

    pub(super) fn contains(&self, cluster: &str) -> bool {
        self.problem_of_region(cluster).is_none()
            && (self.is_default(cluster) || self.others.iter().any(|other| is_same_cluster(other, cluster)))
    }
}

impl fmt::Display for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.default)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

/// Returns true if both are the same cluster. ECS resolves a name in the caller's account and Region, and an ARN ends with
/// the name.
fn is_same_cluster(one: &str, other: &str) -> bool {
    let is_arn = |cluster: &str| cluster.starts_with("arn:");
    one == other || (is_arn(one) != is_arn(other) && cluster_name(one) == cluster_name(other))
}
