//! Reads the profiles at function start.

use std::error::Error;

use ecs_bridge_core::{
    config::Environment,
    profile::{Clusters, Profiles},
};

/// Reads the profiles from `ECS_BRIDGE_PROFILES`, or from the file that `ECS_BRIDGE_PROFILES_FILE` names.
/// `environment` also collects every problem.
///
/// # Errors
/// If neither or both are set, the file cannot be read, or a profile is invalid.
pub fn read_profiles<F>(
    environment: &mut Environment<F>,
    clusters: &Clusters,
) -> Result<Profiles, Box<dyn Error + Send + Sync>>
where
    F: Fn(&str) -> Option<String>,
{
    let text = match (environment.optional("ECS_BRIDGE_PROFILES"), environment.optional("ECS_BRIDGE_PROFILES_FILE")) {
        (Some(text), None) => text,
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                environment.note(format!("ECS_BRIDGE_PROFILES_FILE: {file}: {error}"));
                return Err(error.into());
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            let problem = "either ECS_BRIDGE_PROFILES or ECS_BRIDGE_PROFILES_FILE must be set";
            environment.note(problem);
            return Err(problem.into());
        }
    };
    Profiles::parse(&text, clusters).map_err(|problems| {
        problems.iter().for_each(|problem| environment.note(format!("profiles: {problem}")));
        problems.join("; ").into()
    })
}
