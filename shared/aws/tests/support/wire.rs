//! A server that records every request and responds by its script.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
};

use dynoxide::Database;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::TABLE;

/// A received request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The last part of `x-amz-target`.
    pub operation: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl Seen {
    pub fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The reply to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// A response with a truncated body.
    CutShort,
    /// The connection is closed without a response.
    Closed,
    /// The request is accepted and never gets a response.
    Never,
    /// The database responds.
    PassOn,
    /// The database handles the request, and its response is lost.
    AnswerLost,
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// A server that stops when this is dropped.
pub struct Wire {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Wire {
    /// Starts a server that responds by `script`, which also gets the number of earlier requests of this operation.
    pub async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// Starts the same server on a socket that already listens.
    pub fn start_on(listener: TcpListener, script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(listener, Arc::new(script), String::new(), JoinSet::new())
    }

    /// Starts a server in front of a database with the deployment's table.
    pub async fn dynamodb(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let database = Database::memory().unwrap();
        let create = json!({
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "submission_id", "AttributeType": "S"},
                {"AttributeName": "feed", "AttributeType": "S"}, {"AttributeName": "changed_at", "AttributeType": "N"},
                {"AttributeName": "due", "AttributeType": "S"}, {"AttributeName": "check_at", "AttributeType": "N"},
                {"AttributeName": "pool", "AttributeType": "S"},
                {"AttributeName": "rank", "AttributeType": "N"}],
            "KeySchema": [{"AttributeName": "submission_id", "KeyType": "HASH"}],
            "GlobalSecondaryIndexes": [
                {"IndexName": "feed", "KeySchema": [{"AttributeName": "feed", "KeyType": "HASH"},
                                                    {"AttributeName": "changed_at", "KeyType": "RANGE"}],
                 "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["state", "exit_code", "reason"]}},
                {"IndexName": "due", "KeySchema": [{"AttributeName": "due", "KeyType": "HASH"},
                                                   {"AttributeName": "check_at", "KeyType": "RANGE"}],
                 "Projection": {"ProjectionType": "KEYS_ONLY"}},
                {"IndexName": "pool", "KeySchema": [{"AttributeName": "pool", "KeyType": "HASH"},
                                                    {"AttributeName": "rank", "KeyType": "RANGE"}],
                 "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["priority"]}}],
        });
        database.create_table(serde_json::from_value(create).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            let _ = dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await;
        });
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(script), behind, tasks)
    }

    fn serve(listener: TcpListener, script: Arc<Script>, behind: String, mut tasks: JoinSet<()>) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let context = Arc::new(Context { script, behind, client, seen: Arc::clone(&seen), counts: Mutex::default() });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let context = Arc::clone(&context);
                connections.spawn(async move {
                    let answer = service_fn(move |request| Arc::clone(&context).answer(request));
                    // Disconnected callers and truncated replies are intended.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { url, seen, _tasks: tasks }
    }

    /// Returns all requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the operations of all requests so far.
    pub fn operations(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.operation).collect()
    }

    /// Returns the requests since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap()).into_iter().map(|seen| seen.operation).collect()
    }
}

struct Context {
    script: Arc<Script>,
    behind: String,
    client: Client<HttpConnector, Full<Bytes>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    counts: Mutex<HashMap<String, usize>>,
}

impl Context {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Answer>> {
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = head.headers.get("x-amz-target").map_or("", |target| target.to_str().unwrap());
        let seen = Seen {
            operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
            text: String::from_utf8(bytes.to_vec()).unwrap(),
            headers: head.headers.clone(),
        };
        let nth = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(seen.operation.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let reply = (self.script)(&seen, nth);
        self.seen.lock().unwrap().push(seen);
        let content_type = "application/x-amz-json-1.1";
        match reply {
            Reply::Answer(status, text) => {
                let answer = Response::builder().status(status).header("content-type", content_type);
                Ok(answer.body(Answer::Whole(Full::from(text))).unwrap())
            }
            Reply::CutShort => {
                let answer = Response::builder().header("content-type", content_type).header("content-length", "1000");
                Ok(answer.body(Answer::CutShort(false)).unwrap())
            }
            Reply::Closed => Err(io::Error::other("asked to close")),
            Reply::Never => std::future::pending().await,
            Reply::PassOn | Reply::AnswerLost => {
                let is_lost = matches!(reply, Reply::AnswerLost);
                let mut request = Request::post(&self.behind).body(Full::from(bytes)).unwrap();
                *request.headers_mut() = head.headers;
                let (head, body) = self.client.request(request).await.map_err(io::Error::other)?.into_parts();
                let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
                if is_lost {
                    return Err(io::Error::other("asked to lose the answer"));
                }
                Ok(Response::from_parts(head, Answer::Whole(Full::from(bytes))))
            }
        }
    }
}

/// The body of a response.
enum Answer {
    Whole(Full<Bytes>),
    /// `true` if a part was sent already.
    CutShort(bool),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never: Infallible| match never {}),
            Self::CutShort(sent) if !*sent => {
                *sent = true;
                std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{\"tasks\": [")))))
            }
            Self::CutShort(_) => std::task::Poll::Ready(Some(Err(io::Error::other("asked to break off")))),
        }
    }
}
