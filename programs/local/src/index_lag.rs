//! DynamoDB with global secondary indexes that lag behind their table (eventual consistency).
//!
//! Every write also goes to a second database, later and in the same order. A Query of an index reads the second database.
//! So an index shows an earlier state of the table: it still has rows that have left it, and lacks rows that are new.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{self, Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::http;
use crate::options::Delay;
use crate::rng::Chance;

/// The limit on a body, in bytes: more than DynamoDB's of 16 MB.
const BODY_BYTES: usize = 17 * 1024 * 1024;

/// A request to the databases.
#[derive(Clone, Debug)]
struct Call {
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug)]
struct Lagging {
    table: SocketAddr,
    indexes: SocketAddr,
    lag: Delay,
    chance: Chance,
    /// Writes that the indexes must apply, each with its time. The lock is held during a write, so that both databases
    /// apply the same order.
    writes: Mutex<Writes>,
}

#[derive(Debug)]
struct Writes {
    count: u64,
    last: Instant,
    queue: mpsc::UnboundedSender<(Instant, Call)>,
}

/// Returns a router that sends requests to the first database, and Queries of indexes to the second. The second database
/// lags by `lag` milliseconds.
pub fn router((table, indexes): (SocketAddr, SocketAddr), lag: Delay, chance: Chance) -> Router {
    let (queue, follows) = mpsc::unbounded_channel();
    tokio::spawn(follow(indexes, follows));
    let writes = Mutex::new(Writes { count: 0, last: Instant::now(), queue });
    let lagging = Arc::new(Lagging { table, indexes, lag, chance, writes });
    Router::new().fallback(answer).layer(DefaultBodyLimit::max(BODY_BYTES)).with_state(lagging)
}

async fn answer(State(lagging): State<Arc<Lagging>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let call = Call { headers, body };
    let answer = if call.is_write() {
        lagging.write(call).await
    } else if call.is_of_index() {
        send(lagging.indexes, call).await
    } else {
        send(lagging.table, call).await
    };
    answer.unwrap_or_else(|error| http::bytes(StatusCode::BAD_GATEWAY, "text/plain", error.to_string().into()))
}

impl Call {
    fn operation(&self) -> &str {
        let target = self.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        target.rsplit('.').next().unwrap_or_default()
    }

    fn is_write(&self) -> bool {
        ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"].contains(&self.operation())
    }

    fn is_of_index(&self) -> bool {
        let names_index =
            || serde_json::from_slice::<Value>(&self.body).is_ok_and(|body| body.get("IndexName").is_some());
        ["Query", "Scan"].contains(&self.operation()) && names_index()
    }
}

impl Lagging {
    async fn write(&self, call: Call) -> io::Result<Response<Body>> {
        let mut writes = self.writes.lock().await;
        let answer = send(self.table, call.clone()).await?;
        if answer.status().is_success() {
            writes.count += 1;
            let lag = self.chance.between(&self.lag.0, "index lag", &writes.count.to_string());
            // An index applies changes in their order.
            writes.last = writes.last.max(Instant::now() + Duration::from_millis(lag));
            // The receiver lives as long as the stack.
            let _ = writes.queue.send((writes.last, call));
        }
        Ok(answer)
    }
}

/// Applies each write to the database of the indexes at its time.
async fn follow(indexes: SocketAddr, mut writes: mpsc::UnboundedReceiver<(Instant, Call)>) {
    while let Some((at, call)) = writes.recv().await {
        tokio::time::sleep_until(at).await;
        // The same write succeeded in the table, whose items are equal.
        let _ = send(indexes, call).await;
    }
}

async fn send(to: SocketAddr, Call { headers, body }: Call) -> io::Result<Response<Body>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut request = hyper::Request::post("/").body(Body::from(body)).map_err(io::Error::other)?;
    *request.headers_mut() = headers;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let (parts, body) = answer.into_parts();
    let body = body::to_bytes(Body::new(body), BODY_BYTES).await.map_err(io::Error::other)?;
    let mut response = Response::from_parts(parts, Body::from(body));
    // The whole body is known.
    response.headers_mut().remove("transfer-encoding");
    Ok(response)
}
