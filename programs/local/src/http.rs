//! Serves routers on the loopback interface. A response may also be replaced by a broken connection.

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

/// An extension of a response: the response is dropped and its connection closed.
#[derive(Clone, Copy, Debug)]
pub struct NoResponse;

/// A server that ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: AbortHandle,
}

impl Server {
    /// Returns `http://127.0.0.1:PORT`.
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

/// Opens a listener on this port of 127.0.0.1, or on a free port if it is 0.
///
/// # Errors
/// If the port is in use.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await
}

/// Serves until the returned server is dropped.
///
/// # Errors
/// If the listener has no address.
pub fn serve(listener: TcpListener, router: Router) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = listener.accept().await else {
                // Most likely out of file descriptors, until connections end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Small responses must not wait for the acknowledgement of the caller.
            let _ = stream.set_nodelay(true);
            let router = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let answer = service_fn(move |request: hyper::Request<Incoming>| {
                    let answer = router.call(request);
                    async move {
                        let answer = answer.await.unwrap_or_else(|never| match never {});
                        match answer.extensions().get::<NoResponse>() {
                            Some(NoResponse) => Err(io::Error::other("connection closed by an injected fault")),
                            None => Ok(answer),
                        }
                    }
                });
                // A caller that disconnects is not an error.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(Server { address, task: task.abort_handle() })
}

/// Returns a JSON response.
#[must_use]
pub fn json(status: StatusCode, body: &Value) -> Response<Body> {
    bytes(status, "application/json", body.to_string().into())
}

/// Returns a response with this content type.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Adds a header. An invalid value is omitted.
pub fn set_header(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Locks a mutex. Poisoning is ignored because every critical section is a single step.
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
                response.extensions_mut().insert(NoResponse);
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
    async fn no_response_closes_the_connection() {
        assert!(answer_of("/answers").await.ends_with("yes"));
        assert_eq!(answer_of("/breaks-off").await, "");
    }
}
