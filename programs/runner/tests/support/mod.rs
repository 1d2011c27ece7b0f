//! A scripted runner API, and runners that poll it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// This is only an upper bound that a busy machine may need.
const DEADLINE: Duration = Duration::from_secs(240);

/// Requests wait for the test to respond.
pub struct Api {
    pub url: String,
    request: Receiver<Request>,
}

/// A request that waits for its response. Dropping it closes the connection without one.
pub struct Request {
    stream: TcpStream,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
}

impl Api {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, request) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || read_request(stream.unwrap(), &sender));
            }
        });
        Self { url, request }
    }

    pub fn request(&self) -> Request {
        self.request.recv_timeout(DEADLINE).expect("the runner sends a request")
    }

    /// Responds to the next request with a command, and returns its `done`.
    pub fn run(&self, command: &[&str]) -> Request {
        self.request().run("s-1", command);
        self.request()
    }
}

fn read_request(stream: TcpStream, sender: &Sender<Request>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let Some((start, headers)) = lines.split_first() else { return };
    let headers: HashMap<_, _> = headers
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let path = start.split(' ').nth(1).unwrap().to_owned();
    let _ = sender.send(Request { stream, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() });
}

impl Request {
    pub fn answer_with(mut self, status: u16, headers: &str, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
        self.stream.write_all((head + &body).as_bytes()).unwrap();
    }

    pub fn answer(self, status: u16, body: &Value) {
        self.answer_with(status, "", body);
    }

    pub fn run(self, id: &str, command: &[&str]) {
        self.answer(200, &json!({"run": {"submission_id": id, "command": command, "environment": []}}));
    }

    pub fn wait(self) {
        self.answer(200, &json!({"wait_ms": 1}));
    }

    pub fn close(self) {
        self.answer(200, &json!({"close": true}));
    }

    pub fn exit_code(&self) -> &Value {
        &self.body["done"]["exit_code"]
    }
}

/// A runner with pipes for its output.
pub struct Runner {
    pub process: Child,
    pub output: BufReader<ChildStdout>,
    stderr: Receiver<String>,
    printed: Vec<String>,
}

/// Returns the program, configured for a runner API. Of this process's environment, it keeps only PATH.
pub fn program(api: &Api) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ecs-bridge-runner"));
    configure(&mut program, api);
    program
}

pub fn configure(program: &mut Command, api: &Api) {
    program.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs([
        ("ECS_BRIDGE_RUNNER_API_URL", &*api.url),
        ("ECS_BRIDGE_RUNNER_ID", "runner-1"),
        ("ECS_BRIDGE_RUNNER_TOKEN", "the-token"),
        ("ECS_BRIDGE_POLL_INTERVAL_MS", "1"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIAFIXED"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
}

pub fn start(api: &Api) -> Runner {
    Runner::start(&mut program(api))
}

impl Runner {
    pub fn start(program: &mut Command) -> Self {
        let mut process = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, stderr) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, output, stderr, printed: Vec::new() }
    }

    /// Waits until it has printed these words to stderr.
    pub fn until_printed(&mut self, words: &str) {
        while !self.printed.iter().any(|line| line.contains(words)) {
            match self.stderr.recv_timeout(DEADLINE) {
                Ok(line) => self.printed.push(line),
                Err(_) => panic!("it never printed {words:?}, but {:?}", self.printed),
            }
        }
    }

    /// Returns the next line of its stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        let ended = self.process.wait().unwrap();
        self.printed.extend(self.stderr.iter());
        ended
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.ended().code()
    }

    /// Returns its whole stderr. It must have ended.
    pub fn printed(&self) -> String {
        self.printed.join("\n")
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the condition holds.
pub fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never held");
        std::thread::yield_now();
    }
}

/// Returns `true` if the process exists, even as a zombie.
pub fn exists(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).exists()
}
