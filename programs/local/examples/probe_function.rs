//! A Lambda function for the tests of the local stack: the member `do` of the event selects its behavior.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var_os("PROBE_DIES_AT_START").is_some() {
        return Err("asked to die at the start".into());
    }
    run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let asked = &event.payload;
    match asked.get("do").and_then(Value::as_str) {
        Some("fail") => Err("asked to fail".into()),
        Some("exit") => std::process::exit(3),
        Some("sleep") => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(Value::Null)
        }
        // Appends a line, so that a test can count how often it was done; fails the first `failures` times.
        Some("append") => {
            let path = asked.get("path").and_then(Value::as_str).ok_or("no path")?;
            let lines = std::fs::read_to_string(path).unwrap_or_default().lines().count();
            std::fs::write(path, "x\n".repeat(lines + 1))?;
            let failures = asked.get("failures").and_then(Value::as_u64).unwrap_or(0);
            if (lines as u64) < failures { Err("asked to fail at first".into()) } else { Ok(json!(lines + 1)) }
        }
        Some("large") => Ok("x".repeat(7_000_000).into()),
        _ => Ok(json!({"echo": asked, "arn": event.context.invoked_function_arn, "pid": std::process::id()})),
    }
}
