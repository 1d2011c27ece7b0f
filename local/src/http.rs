//! Serves routers on the loopback interface, on connections that may also be broken off without an answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Put on a response: it is thrown away, and its connection closed.
#[derive(Clone, Copy, Debug)]
pub struct NoAnswer;

/// A server that ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: AbortHandle,
}

impl Server {
    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener on this port, or on a free one where it is 0.
///
/// # Errors
/// Where the port is taken.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await
}

/// Serves until the returned server is dropped.
///
/// # Errors
/// Where the listener has no address any more.
pub fn serve(listener: TcpListener, router: Router) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: connections that end make room.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Small answers must not wait for the caller's acknowledgement.
            let _ = stream.set_nodelay(true);
            let router = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let answer = service_fn(move |request: hyper::Request<Incoming>| {
                    let answer = router.call(request);
                    async move {
                        let answer = answer.await.unwrap_or_else(|never| match never {});
                        match answer.extensions().get::<NoAnswer>() {
                            Some(NoAnswer) => Err(io::Error::other("asked to break off")),
                            None => Ok(answer),
                        }
                    }
                });
                // A caller that goes away is not our error.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(Server { address, task: task.abort_handle() })
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, body: &Value) -> Response<Body> {
    bytes(status, "application/json", body.to_string().into())
}

/// An answer of this content type.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Adds a header; a value that cannot be one is left out.
pub fn set_header(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Locks; what a panicking holder left behind is as good as any, for no lock here guards a half-done change.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn answer_of(path: &str) -> String {
        let router = Router::new().route("/answers", get(async || "yes")).route(
            "/breaks-off",
            get(async || {
                let mut response = Response::new(Body::from("never seen"));
                response.extensions_mut().insert(NoAnswer);
                response
            }),
        );
        let server = serve(listen(0).await.unwrap(), router).unwrap();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_connection_is_broken_off_without_a_byte() {
        assert!(answer_of("/answers").await.ends_with("yes"));
        assert_eq!(answer_of("/breaks-off").await, "");
    }
}
