//! DynamoDB, emulated in memory by dynoxide, with the table of the deployment's template.

use dynoxide::Database;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::template::Template;

/// The cause of a failed DynamoDB start.
#[derive(Debug, Error)]
pub enum DynamoDbError {
    /// The database rejected the table of the template.
    #[error("DynamoDB rejected the table of the template: {0}")]
    Refused(String),
}

/// Creates a database with the template's table under this name.
///
/// # Errors
/// If DynamoDB rejects the table.
pub fn database(template: &Template, table: &str) -> Result<Database, DynamoDbError> {
    let refused = |error: &dyn std::fmt::Display| DynamoDbError::Refused(error.to_string());
    let database = Database::memory().map_err(|error| refused(&error))?;
    let mut create = template.table.clone();
    create.insert("TableName".into(), table.into());
    let create = serde_json::from_value(Value::Object(create)).map_err(|error| refused(&error))?;
    database.create_table(create).map_err(|error| refused(&error))?;
    let time_to_live = json!({"TableName": table, "TimeToLiveSpecification": template.time_to_live});
    let time_to_live = serde_json::from_value(time_to_live).map_err(|error| refused(&error))?;
    database.update_time_to_live(time_to_live).map_err(|error| refused(&error))?;
    Ok(database)
}

/// Serves the database until the task that awaits this is dropped.
pub async fn serve(listener: TcpListener, database: Database) {
    // Only a broken listener ends the server, and its callers detect that.
    let _ = dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await;
}
