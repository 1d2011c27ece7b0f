//! The calls to the runner API: retries, exits of the runner, and signatures.
#![allow(missing_docs)]

mod support;

use serde_json::json;
use support::{Runner, Work, program, start};

#[test]
fn done_is_retried_until_it_succeeds() {
    let work = Work::new();
    let mut runner = start(&work);
    let lost = work.run(&["sh", "-c", "exit 5"]);
    let body = lost.body.clone();
    drop(lost);
    let failed = work.asked();
    assert_eq!(failed.body, body);
    failed.answer(500, &json!({"error": {"code": "internal", "message": "an internal error"}}));
    let throttled = work.asked();
    assert_eq!(throttled.body, body);
    throttled.answer(429, &json!({"Reason": "ConcurrentInvocationLimitExceeded"}));
    let forbidden = work.asked();
    assert_eq!(forbidden.body, body);
    forbidden.answer(403, &json!({"Message": "Forbidden"}));
    let nonsense = work.asked();
    assert_eq!(nonsense.body, body);
    nonsense.answer(200, &json!([]));
    let last = work.asked();
    assert_eq!(last.body, body);
    last.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn call_without_response_times_out() {
    let work = Work::new();
    let mut runner = start(&work);
    let unanswered = work.asked();
    let again = work.asked();
    assert_eq!(again.body, unanswered.body);
    again.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn submission_dispatched_twice_starts_once() {
    let work = Work::new();
    let mut runner = start(&work);
    let command = ["sh", "-c", "echo started; exit 4"];
    work.run(&command).run("s-1", &command);
    let again = work.asked();
    assert_eq!(again.body["done"], json!({"submission_id": "s-1", "exit_code": 4}));
    again.run("s-2", &["echo", "another"]);
    work.asked().run("s-1", &command);
    let again = work.asked();
    assert_eq!(again.body["done"], json!({"submission_id": "s-1", "exit_code": 4}));
    again.close();
    assert_eq!([runner.line(), runner.line(), runner.line()], ["started", "another", ""]);
}

#[test]
fn second_incarnation_exits_with_203() {
    let work = Work::new();
    let mut runner = start(&work);
    work.asked().answer(409, &json!({"error": {"code": "conflict", "message": "taken"}}));
    assert_eq!(runner.exit_code(), Some(203));
    assert!(runner.said().contains("another process already runs as this runner: taken"));
}

#[test]
fn function_rejection_exits_with_202_and_message() {
    let work = Work::new();
    let mut runner = start(&work);
    let message = "the caller is not the task of this runner";
    work.asked().answer(403, &json!({"error": {"code": "forbidden", "message": message}}));
    assert_eq!(runner.exit_code(), Some(202));
    assert!(runner.said().contains(message));
    assert!(!runner.said().contains("the-token"));
}

#[test]
fn incarnation_is_unique_per_process() {
    let work = Work::new();
    let _first = start(&work);
    let first = work.asked().body["incarnation"].clone();
    let _second = start(&work);
    let mut second = work.asked();
    while second.body["incarnation"] == first {
        second = work.asked();
    }
    assert!(second.body["incarnation"].as_str().unwrap().len() >= 32);
}

#[test]
fn sigterm_while_idle_is_reported_once() {
    let work = Work::new();
    let mut runner = start(&work);
    let asked = work.asked();
    runner.signal("TERM");
    runner.until_said("received signal 15");
    asked.wait();
    let stopping = work.asked();
    assert_eq!(stopping.body["stopping"], true);
    // The call gets no response and is not retried.
    drop(stopping);
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn command_received_after_sigterm_is_not_started() {
    let work = Work::new();
    let mut runner = start(&work);
    let asked = work.asked();
    runner.signal("TERM");
    runner.until_said("received signal 15");
    asked.run("s-1", &["echo", "started"]);
    let stopping = work.asked();
    assert_eq!(stopping.body["stopping"], true);
    assert!(stopping.body.get("done").is_none());
    stopping.close();
    assert_eq!(runner.exit_code(), Some(0));
    assert_eq!(runner.line(), "");
    assert!(runner.said().contains("s-1 is not started"));
}

#[test]
fn sigterm_reaches_group_and_is_reported() {
    let work = Work::new();
    let mut runner = start(&work);
    let child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let script = format!("trap 'wait; echo parent; exit 9' TERM; sh -c \"{child}\" & wait");
    work.asked().run("s-1", &["sh", "-c", &script]);
    assert_eq!(runner.line(), "ready");
    runner.signal("TERM");
    let done = work.asked();
    assert_eq!(done.body["done"], json!({"submission_id": "s-1", "exit_code": 9}));
    assert_eq!(done.body["stopping"], true);
    drop(done);
    let again = work.asked();
    assert_eq!(again.exit_code(), 9);
    again.run("s-2", &["echo", "never"]);
    assert_eq!([runner.line(), runner.line(), runner.line()], ["child", "parent", ""]);
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn other_signals_are_forwarded_without_stopping() {
    let work = Work::new();
    let mut runner = start(&work);
    let script = "trap 'echo hup' HUP; trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done";
    work.asked().run("s-1", &["sh", "-c", script]);
    assert_eq!(runner.line(), "ready");
    runner.signal("HUP");
    assert_eq!(runner.line(), "hup");
    runner.signal("USR1");
    let done = work.asked();
    assert_eq!(done.exit_code(), 6);
    assert!(done.body.get("stopping").is_none());
    done.close();
}

#[test]
fn calls_are_signed_with_task_role() {
    let work = Work::new();
    let mut program = program(&work);
    program.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", work.url));
    program.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "to the endpoint");
    let _runner = Runner::start(&mut program);
    let endpoint = work.asked();
    assert_eq!(endpoint.path, "/credentials");
    assert_eq!(endpoint.headers["authorization"], "to the endpoint");
    endpoint.answer(200, &json!({"AccessKeyId": "ASIAROLE", "SecretAccessKey": "x", "Token": "session"}));
    let asked = work.asked();
    let authorization = &asked.headers["authorization"];
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIAROLE/"), "{authorization}");
    assert!(authorization.contains("/eu-central-1/lambda/aws4_request"), "{authorization}");
    assert_eq!(asked.headers["x-amz-security-token"], "session");
    // Credentials are kept while they are accepted, and fetched again when they are rejected.
    asked.wait();
    let asked = work.asked();
    assert_eq!(asked.path, "/v1/poll");
    asked.answer(403, &json!({"message": "The security token included in the request is expired"}));
    assert_eq!(work.asked().path, "/credentials");
}

#[test]
fn clock_skew_is_reported_and_corrected() {
    let work = Work::new();
    let mut runner = start(&work);
    let date = "Date: Wed, 01 Jan 2031 00:00:00 GMT\r\n";
    work.asked().answer_with(
        403,
        date,
        &json!({"message": "Signature expired: 20260101T000000Z is now earlier than …"}),
    );
    let next = work.asked();
    assert!(next.headers["x-amz-date"].starts_with("20310101T00"), "{}", next.headers["x-amz-date"]);
    next.close();
    runner.ended();
    assert!(runner.said().contains("the clock of this container is "));
    assert!(runner.said().contains(" s behind AWS's"));
}

#[test]
fn function_is_invoked_through_lambda_api() {
    let work = Work::new();
    let mut program = program(&work);
    program.env_remove("ECS_BRIDGE_RUNNER_API_URL").env("AWS_ENDPOINT_URL_LAMBDA", &work.url);
    program.env("ECS_BRIDGE_RUNNER_API_FUNCTION", "arn:aws:lambda:us-west-2:123456789012:function:runner-api");
    let mut runner = Runner::start(&mut program);
    let embedded = |status: u16, body: &str| json!({"statusCode": status, "headers": {}, "body": body});
    let asked = work.asked();
    let function = "arn%3Aaws%3Alambda%3Aus-west-2%3A123456789012%3Afunction%3Arunner-api";
    assert_eq!(asked.path, format!("/2015-03-31/functions/{function}/invocations"));
    assert!(asked.headers["authorization"].contains("/us-west-2/lambda/"));
    assert_eq!(asked.body["runner_id"], "runner-1");
    asked.answer(200, &embedded(200, r#"{"run": {"submission_id": "s-1", "command": ["true"]}}"#));
    let done = work.asked();
    assert_eq!(done.exit_code(), 0);
    done.answer_with(200, "X-Amz-Function-Error: Unhandled\r\n", &json!({"errorMessage": "timed out"}));
    let again = work.asked();
    assert_eq!(again.exit_code(), 0);
    again.answer(200, &embedded(409, r#"{"error": {"code": "conflict", "message": "taken"}}"#));
    assert_eq!(runner.exit_code(), Some(203));
}

#[test]
fn runner_without_address_exits_with_200() {
    let work = Work::new();
    let mut runner =
        Runner::start(program(&work).env_remove("ECS_BRIDGE_RUNNER_API_URL").env_remove("ECS_BRIDGE_RUNNER_ID"));
    assert_eq!(runner.exit_code(), Some(200));
    assert!(runner.said().contains("neither ECS_BRIDGE_RUNNER_API_URL nor ECS_BRIDGE_RUNNER_API_FUNCTION"));
    assert!(runner.said().contains("ECS_BRIDGE_RUNNER_ID is not set"));
}

#[test]
fn runner_without_credentials_exits_with_201() {
    let work = Work::new();
    let mut runner = Runner::start(program(&work).env_remove("AWS_ACCESS_KEY_ID"));
    assert_eq!(runner.exit_code(), Some(201));
    assert!(runner.said().contains("no AWS credentials: the task definition needs a task role"));
}

#[test]
fn help_lists_every_exit_code() {
    let mut runner = Runner::start(program(&Work::new()).arg("--help"));
    let mut help = String::new();
    std::io::Read::read_to_string(&mut runner.output, &mut help).unwrap();
    assert_eq!(runner.exit_code(), Some(0));
    for code in 200..=204 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}");
    }
}

#[test]
fn broken_zygote_does_not_stop_commands() {
    for zygote in ["no-such-program", "false", "echo {}", r#"echo {"zygote":{"version":2,"prefix":["sh"]}}"#] {
        let work = Work::new();
        let mut runner = Runner::start(program(&work).args(["--zygote", zygote]));
        let done = work.run(&["sh", "-c", "exit 3"]);
        assert_eq!(done.exit_code(), 3, "{zygote}");
        done.close();
        runner.ended();
        assert!(runner.said().contains("the zygote"), "{zygote}");
    }
}

#[test]
fn runner_stopped_unanswered_exits_with_failure_code() {
    let forbidden = json!({"Message": "Forbidden"});
    for (answer, code) in [(None, 204), (Some(&forbidden), 202)] {
        let work = Work::new();
        let mut runner = start(&work);
        let asked = work.asked();
        runner.signal("TERM");
        runner.until_said("received signal 15");
        match answer {
            None => drop(asked),
            Some(body) => asked.answer(403, body),
        }
        let stopping = work.asked();
        assert_eq!(stopping.body["stopping"], true);
        match answer {
            None => drop(stopping),
            Some(body) => stopping.answer(403, body),
        }
        assert_eq!(runner.exit_code(), Some(code));
    }
}
