//! Listening: the server that accepts connections, limits them (`connections`) and serves HTTP/1.1 over them.
//!
//! It has the parts of actix-web's `HttpServer`, put together here since that one accepts plain streams only.

use std::fmt::Debug;
use std::future::ready;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpServiceBuilder, KeepAlive, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connections::{ClientConnection, ConnectionAdmission, ConnectionRefused, GuardedStream, WaitingConnections};

/// How long a client may take to close after the last response.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the service reads from a refused client, so that no reset destroys the response; and from how many.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELLS_MAX: usize = 32;

/// How many turns a new connection waits for evicted ones to close, before it is refused.
const TURNS_MAX: usize = 64;

/// The server over a listener; it serves once it is polled.
pub fn server<F, I, S, B>(
    listener: TcpListener,
    admission: &Arc<ConnectionAdmission>,
    workers: usize,
    grace: u64,
    app: F,
) -> std::io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build().workers(workers).shutdown_timeout(grace).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let admission = Arc::clone(admission);
    let builder = builder.listen("http", listener, move || {
        let stopping = stopping.clone();
        let app = app().into_factory().map_err(|error| error.into().error_response());
        let http = HttpServiceBuilder::default()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            // The guarded stream has these two limits, for every request of a connection.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // A client that closes its side has gone: a silent stream would not notice it otherwise.
            .h1_allow_half_closed(false)
            .on_connect_ext(|stream: &GuardedStream, data| {
                data.insert(Rc::clone(stream.connection()));
            })
            .expect(fn_service(|request: Request| {
                if let Some(connection) = request.conn_data::<Rc<ClientConnection>>() {
                    connection.expects_continue();
                }
                ready(Ok::<_, actix_http::Error>(request))
            }))
            .h1(map_config(app, |()| AppConfig::default()));
        let door = Rc::new(Door::new(Arc::clone(&admission)));
        fn_service(move |stream: TcpStream| Rc::clone(&door).let_in(stream)).and_then(http)
    })?;
    Ok(builder.run())
}

/// Admits the connections of a worker.
struct Door {
    admission: Arc<ConnectionAdmission>,
    waiting: Rc<WaitingConnections>,
    farewells: std::cell::Cell<usize>,
}

impl Door {
    fn new(admission: Arc<ConnectionAdmission>) -> Self {
        Self { admission, waiting: Rc::default(), farewells: std::cell::Cell::new(0) }
    }

    async fn let_in(
        self: Rc<Self>,
        stream: TcpStream,
    ) -> Result<(GuardedStream, Option<std::net::SocketAddr>), DispatchError> {
        // A connection without a peer is closed already.
        let peer = stream.peer_addr().map_err(DispatchError::Io)?;
        let admit = || self.admission.admit(peer.ip(), || self.waiting.evict_longest());
        let mut outcome = admit();
        // Evicted connections close on this same thread.
        for _ in 0..TURNS_MAX {
            if outcome.as_ref().err() != Some(&ConnectionRefused::Closing) {
                break;
            }
            tokio::task::yield_now().await;
            outcome = admit();
        }
        match outcome {
            Ok(place) => {
                let connection = ClientConnection::new(self.admission.bounds().timeouts, &self.waiting);
                Ok((GuardedStream::new(stream, connection, place), Some(peer)))
            }
            Err(why) => {
                why.count();
                if self.farewells.get() < FAREWELLS_MAX {
                    self.farewells.set(self.farewells.get() + 1);
                    // Nothing depends on whether the client reads it.
                    let _ = tokio::time::timeout(FAREWELL, turn_away(stream, why)).await;
                    self.farewells.set(self.farewells.get() - 1);
                }
                Err(DispatchError::DisconnectTimeout)
            }
        }
    }
}

/// Answers 503, whatever was requested, and closes.
async fn turn_away(mut stream: TcpStream, why: ConnectionRefused) -> std::io::Result<()> {
    let (code, detail) = match why {
        ConnectionRefused::Full | ConnectionRefused::Closing => {
            ("too_many_connections", "The service has as many connections as it takes.")
        }
        ConnectionRefused::Address => ("too_many_connections", "Your address has as many connections as one may have."),
    };
    let body =
        json!({ "type": format!("urn:product-base:problem:{code}"), "title": "Service Unavailable", "status": 503,
        "code": code, "detail": format!("{detail} Try again in 2 s.") })
        .to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\n\
        content-type: application/problem+json\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
