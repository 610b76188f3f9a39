//! Listening: the server that takes connections, bounds them (`connections`) and speaks HTTP/1.1 over them.
//!
//! It is what `HttpServer` of actix-web is made of, put together here since that one takes plain streams only.

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

use super::connections::{Admission, Connection, Guarded, Refused, Waiting};

/// How long a client may take to close after the last answer.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long somebody who is turned away is listened to, so that the answer is not lost with a reset; and how many are.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELLS_MAX: usize = 32;

/// How often a new connection lets those close that make room for it, before it is turned away.
const TURNS_MAX: usize = 64;

/// The server over a listener; it serves once it is polled.
pub fn server<F, I, S, B>(
    listener: TcpListener,
    admission: &Arc<Admission>,
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
            // The guarded stream has these two bounds, for every request of a connection.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // Whoever closes their side is gone: a stream in which nothing is said for a while would not notice it otherwise.
            .h1_allow_half_closed(false)
            .on_connect_ext(|stream: &Guarded, data| {
                data.insert(Rc::clone(stream.connection()));
            })
            .expect(fn_service(|request: Request| {
                if let Some(connection) = request.conn_data::<Rc<Connection>>() {
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

/// Where the connections of a worker come in.
struct Door {
    admission: Arc<Admission>,
    waiting: Rc<Waiting>,
    farewells: std::cell::Cell<usize>,
}

impl Door {
    fn new(admission: Arc<Admission>) -> Self {
        Self { admission, waiting: Rc::default(), farewells: std::cell::Cell::new(0) }
    }

    async fn let_in(
        self: Rc<Self>,
        stream: TcpStream,
    ) -> Result<(Guarded, Option<std::net::SocketAddr>), DispatchError> {
        // One without a peer is gone already.
        let peer = stream.peer_addr().map_err(DispatchError::Io)?;
        let admit = || self.admission.admit(peer.ip(), || self.waiting.evict_longest());
        let mut outcome = admit();
        // Those that make room close on this very thread.
        for _ in 0..TURNS_MAX {
            if outcome.as_ref().err() != Some(&Refused::Closing) {
                break;
            }
            tokio::task::yield_now().await;
            outcome = admit();
        }
        match outcome {
            Ok(place) => {
                let connection = Connection::new(self.admission.bounds().timeouts, &self.waiting);
                Ok((Guarded::new(stream, connection, place), Some(peer)))
            }
            Err(why) => {
                why.count();
                if self.farewells.get() < FAREWELLS_MAX {
                    self.farewells.set(self.farewells.get() + 1);
                    // Nothing depends on whether they hear it.
                    let _ = tokio::time::timeout(FAREWELL, turn_away(stream, why)).await;
                    self.farewells.set(self.farewells.get() - 1);
                }
                Err(DispatchError::DisconnectTimeout)
            }
        }
    }
}

/// Answers 503, whatever was asked, and closes.
async fn turn_away(mut stream: TcpStream, why: Refused) -> std::io::Result<()> {
    let (code, detail) = match why {
        Refused::Full | Refused::Closing => {
            ("too_many_connections", "The service has as many connections as it takes.")
        }
        Refused::Address => ("too_many_connections", "Your address has as many connections as one may have."),
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
