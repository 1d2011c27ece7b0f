//! The calls to the runner API: retries, exits of the runner, and signatures.
#![allow(missing_docs)]

mod support;

use serde_json::json;
use support::{Api, Runner, program, start};

#[test]
fn done_is_retried_until_it_succeeds() {
    let api = Api::new();
    let mut runner = start(&api);
    let lost = api.run(&["sh", "-c", "exit 5"]);
    let body = lost.body.clone();
    drop(lost);
    let failed = api.request();
    assert_eq!(failed.body, body);
    failed.answer(500, &json!({"error": {"code": "internal", "message": "an internal error"}}));
    let throttled = api.request();
    assert_eq!(throttled.body, body);
    throttled.answer(429, &json!({"Reason": "ConcurrentInvocationLimitExceeded"}));
    let forbidden = api.request();
    assert_eq!(forbidden.body, body);
    forbidden.answer(403, &json!({"Message": "Forbidden"}));
    let nonsense = api.request();
    assert_eq!(nonsense.body, body);
    nonsense.answer(200, &json!([]));
    let last = api.request();
    assert_eq!(last.body, body);
    last.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn call_without_response_times_out() {
    let api = Api::new();
    let mut runner = start(&api);
    let unanswered = api.request();
    let again = api.request();
    assert_eq!(again.body, unanswered.body);
    again.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn submission_dispatched_twice_starts_once() {
    let api = Api::new();
    let mut runner = start(&api);
    let command = ["sh", "-c", "echo started; exit 4"];
    api.run(&command).run("s-1", &command);
    let again = api.request();
    assert_eq!(again.body["done"], json!({"submission_id": "s-1", "exit_code": 4}));
    again.run("s-2", &["echo", "another"]);
    api.request().run("s-1", &command);
    let again = api.request();
    assert_eq!(again.body["done"], json!({"submission_id": "s-1", "exit_code": 4}));
    again.close();
    assert_eq!([runner.line(), runner.line(), runner.line()], ["started", "another", ""]);
}

#[test]
fn second_incarnation_exits_with_203() {
    let api = Api::new();
    let mut runner = start(&api);
    api.request().answer(409, &json!({"error": {"code": "conflict", "message": "taken"}}));
    assert_eq!(runner.exit_code(), Some(203));
    assert!(runner.printed().contains("another process already runs as this runner: taken"));
}

#[test]
fn function_rejection_exits_with_202_and_message() {
    let api = Api::new();
    let mut runner = start(&api);
    let message = "the caller is not the task of this runner";
    api.request().answer(403, &json!({"error": {"code": "forbidden", "message": message}}));
    assert_eq!(runner.exit_code(), Some(202));
    assert!(runner.printed().contains(message));
    assert!(!runner.printed().contains("the-token"));
}

#[test]
fn incarnation_is_unique_per_process() {
    let api = Api::new();
    let _first = start(&api);
    let first = api.request().body["incarnation"].clone();
    let _second = start(&api);
    let mut second = api.request();
    while second.body["incarnation"] == first {
        second = api.request();
    }
    assert!(second.body["incarnation"].as_str().unwrap().len() >= 32);
}

#[test]
fn sigterm_while_idle_is_reported_once() {
    let api = Api::new();
    let mut runner = start(&api);
    let request = api.request();
    runner.signal("TERM");
    runner.until_printed("received signal 15");
    request.wait();
    let stopping = api.request();
    assert_eq!(stopping.body["stopping"], true);
    // The call gets no response and is not retried.
    drop(stopping);
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn command_received_after_sigterm_is_not_started() {
    let api = Api::new();
    let mut runner = start(&api);
    let request = api.request();
    runner.signal("TERM");
    runner.until_printed("received signal 15");
    request.run("s-1", &["echo", "started"]);
    let stopping = api.request();
    assert_eq!(stopping.body["stopping"], true);
    assert!(stopping.body.get("done").is_none());
    stopping.close();
    assert_eq!(runner.exit_code(), Some(0));
    assert_eq!(runner.line(), "");
    assert!(runner.printed().contains("s-1 is not started"));
}

#[test]
fn sigterm_reaches_group_and_is_reported() {
    let api = Api::new();
    let mut runner = start(&api);
    let child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let script = format!("trap 'wait; echo parent; exit 9' TERM; sh -c \"{child}\" & wait");
    api.request().run("s-1", &["sh", "-c", &script]);
    assert_eq!(runner.line(), "ready");
    runner.signal("TERM");
    let done = api.request();
    assert_eq!(done.body["done"], json!({"submission_id": "s-1", "exit_code": 9}));
    assert_eq!(done.body["stopping"], true);
    drop(done);
    let again = api.request();
    assert_eq!(again.exit_code(), 9);
    again.run("s-2", &["echo", "never"]);
    assert_eq!([runner.line(), runner.line(), runner.line()], ["child", "parent", ""]);
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn other_signals_are_forwarded_without_stopping() {
    let api = Api::new();
    let mut runner = start(&api);
    let script = "trap 'echo hup' HUP; trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done";
    api.request().run("s-1", &["sh", "-c", script]);
    assert_eq!(runner.line(), "ready");
    runner.signal("HUP");
    assert_eq!(runner.line(), "hup");
    runner.signal("USR1");
    let done = api.request();
    assert_eq!(done.exit_code(), 6);
    assert!(done.body.get("stopping").is_none());
    done.close();
}

#[test]
fn calls_are_signed_with_task_role() {
    let api = Api::new();
    let mut program = program(&api);
    program.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", api.url));
    program.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "to the endpoint");
    let _runner = Runner::start(&mut program);
    let endpoint = api.request();
    assert_eq!(endpoint.path, "/credentials");
    assert_eq!(endpoint.headers["authorization"], "to the endpoint");
    endpoint.answer(200, &json!({"AccessKeyId": "ASIAROLE", "SecretAccessKey": "x", "Token": "session"}));
    let request = api.request();
    let authorization = &request.headers["authorization"];
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIAROLE/"), "{authorization}");
    assert!(authorization.contains("/eu-central-1/lambda/aws4_request"), "{authorization}");
    assert_eq!(request.headers["x-amz-security-token"], "session");
    // Credentials are kept while they are accepted, and fetched again when they are rejected.
    request.wait();
    let request = api.request();
    assert_eq!(request.path, "/v1/poll");
    request.answer(403, &json!({"message": "The security token included in the request is expired"}));
    assert_eq!(api.request().path, "/credentials");
}

#[test]
fn clock_skew_is_reported_and_corrected() {
    let api = Api::new();
    let mut runner = start(&api);
    let date = "Date: Wed, 01 Jan 2031 00:00:00 GMT\r\n";
    api.request().answer_with(
        403,
        date,
        &json!({"message": "Signature expired: 20260101T000000Z is now earlier than …"}),
    );
    let next = api.request();
    assert!(next.headers["x-amz-date"].starts_with("20310101T00"), "{}", next.headers["x-amz-date"]);
    next.close();
    runner.ended();
    assert!(runner.printed().contains("the clock of this container is "));
    assert!(runner.printed().contains(" s behind AWS's"));
}

#[test]
fn function_is_invoked_through_lambda_api() {
    let api = Api::new();
    let mut program = program(&api);
    program.env_remove("ECS_BRIDGE_RUNNER_API_URL").env("AWS_ENDPOINT_URL_LAMBDA", &api.url);
    program.env("ECS_BRIDGE_RUNNER_API_FUNCTION", "arn:aws:lambda:us-west-2:123456789012:function:runner-api");
    let mut runner = Runner::start(&mut program);
    let embedded = |status: u16, body: &str| json!({"statusCode": status, "headers": {}, "body": body});
    let request = api.request();
    let function = "arn%3Aaws%3Alambda%3Aus-west-2%3A123456789012%3Afunction%3Arunner-api";
    assert_eq!(request.path, format!("/2015-03-31/functions/{function}/invocations"));
    assert!(request.headers["authorization"].contains("/us-west-2/lambda/"));
    assert_eq!(request.body["runner_id"], "runner-1");
    request.answer(200, &embedded(200, r#"{"run": {"submission_id": "s-1", "command": ["true"]}}"#));
    let done = api.request();
    assert_eq!(done.exit_code(), 0);
    done.answer_with(200, "X-Amz-Function-Error: Unhandled\r\n", &json!({"errorMessage": "timed out"}));
    let again = api.request();
    assert_eq!(again.exit_code(), 0);
    again.answer(200, &embedded(409, r#"{"error": {"code": "conflict", "message": "taken"}}"#));
    assert_eq!(runner.exit_code(), Some(203));
}

#[test]
fn runner_without_address_exits_with_200() {
    let api = Api::new();
    let mut runner =
        Runner::start(program(&api).env_remove("ECS_BRIDGE_RUNNER_API_URL").env_remove("ECS_BRIDGE_RUNNER_ID"));
    assert_eq!(runner.exit_code(), Some(200));
    assert!(runner.printed().contains("neither ECS_BRIDGE_RUNNER_API_URL nor ECS_BRIDGE_RUNNER_API_FUNCTION"));
    assert!(runner.printed().contains("ECS_BRIDGE_RUNNER_ID is not set"));
}

#[test]
fn runner_without_credentials_exits_with_201() {
    let api = Api::new();
    let mut runner = Runner::start(program(&api).env_remove("AWS_ACCESS_KEY_ID"));
    assert_eq!(runner.exit_code(), Some(201));
    assert!(runner.printed().contains("no AWS credentials: the task definition needs a task role"));
}

#[test]
fn help_lists_every_exit_code() {
    let mut runner = Runner::start(program(&Api::new()).arg("--help"));
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
        let api = Api::new();
        let mut runner = Runner::start(program(&api).args(["--zygote", zygote]));
        let done = api.run(&["sh", "-c", "exit 3"]);
        assert_eq!(done.exit_code(), 3, "{zygote}");
        done.close();
        runner.ended();
        assert!(runner.printed().contains("the zygote"), "{zygote}");
    }
}

#[test]
fn runner_stopped_unanswered_exits_with_failure_code() {
    let forbidden = json!({"Message": "Forbidden"});
    for (answer, code) in [(None, 204), (Some(&forbidden), 202)] {
        let api = Api::new();
        let mut runner = start(&api);
        let request = api.request();
        runner.signal("TERM");
        runner.until_printed("received signal 15");
        match answer {
            None => drop(request),
            Some(body) => request.answer(403, body),
        }
        let stopping = api.request();
        assert_eq!(stopping.body["stopping"], true);
        match answer {
            None => drop(stopping),
            Some(body) => stopping.answer(403, body),
        }
        assert_eq!(runner.exit_code(), Some(code));
    }
}
