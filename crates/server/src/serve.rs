//! Listening, accepting connections within limits, and stopping without breaking a request that is under way.

use crate::connection::PatientStream;
use crate::identity::AccessMode;
use crate::oidc::{OidcConfig, OidcError, Provider};
use crate::peers::Peers;
use crate::routes::{App, Doors, router};
use crate::tls::{Tls, TlsConfig, TlsError};
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use muniment_access::{Masking, Policy, PolicyError};
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{Engine, EngineError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Buffer of a connection: bounds a request's headers and what is read ahead.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 << 10;
/// Pause after the system refused to accept a connection, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one. By default port 7117 on loopback.
    pub listen: SocketAddr,
    /// Whether callers have to say who they are.
    pub access: AccessMode,
    /// What is masked, and which documents are shown but for some fields, beside what always is.
    pub masking: Masking,
    /// The certificate to show; plain HTTP without one.
    pub tls: Option<TlsConfig>,
    /// The identity provider; without one there are only keys.
    pub oidc: Option<OidcConfig>,
    /// How long a session of the console lasts.
    pub session: Duration,
    /// What one query may use.
    pub query: QueryLimits,
    /// Time in which a request's headers must arrive, and after which an idle connection is closed.
    pub header_timeout: Duration,
    /// Time in which a request's body must arrive; longer by a second for each [`ServerConfig::bytes_per_second`] received.
    pub request_timeout: Duration,
    /// Slowest rate at which a body may arrive in the long run.
    pub bytes_per_second: u64,
    /// Time for which an answer waits for a client that takes nothing of it.
    pub write_timeout: Duration,
    /// Time for requests under way to finish at shutdown.
    pub shutdown_timeout: Duration,
    /// Most connections. Further clients wait to be accepted.
    pub connections: usize,
    /// Most requests of one client address under way.
    pub requests_per_client: usize,
}

/// The port that the service listens on unless told otherwise.
const DEFAULT_PORT: u16 = 7117;

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            access: AccessMode::Keys,
            masking: Masking::default(),
            tls: None,
            oidc: None,
            session: Duration::from_secs(8 * 3600),
            query: QueryLimits::default(),
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(15),
            bytes_per_second: 16 << 10,
            write_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            connections: 1024,
            requests_per_client: 512,
        }
    }
}

/// What can go wrong with a server as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Queries can't be set up.
    #[error("queries can't be set up")]
    Query(#[source] EngineError),
    /// The certificate can't be used.
    #[error("TLS can't be set up")]
    Tls(#[source] TlsError),
    /// The identity provider can't be used as it is configured.
    #[error("the identity provider can't be set up")]
    Oidc(#[source] OidcError),
    /// The access policy can't be used.
    #[error("access can't be set up")]
    Policy(#[source] PolicyError),
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: ServerConfig,
    app: Arc<App>,
    tls: Option<Tls>,
}

impl Server {
    /// Starts to listen. Clients can connect from now on; they are answered once [`Server::serve`] runs.
    ///
    /// # Errors
    /// If the address is taken or not of this machine.
    pub async fn bind(engine: Arc<Engine>, config: ServerConfig) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let query = QueryEngine::new(engine.store().clone(), config.query).map_err(ServerError::Query)?;
        let policy = Policy::load().map_err(ServerError::Policy)?.masking(config.masking.clone());
        let tls = config.tls.as_ref().map(Tls::open).transpose().map_err(ServerError::Tls)?;
        let provider = config.oidc.clone().map(Provider::new).transpose().map_err(ServerError::Oidc)?;
        let named = config.oidc.as_ref().and_then(|oidc| oidc.public_url.as_deref()).map(|url| url.trim_end_matches('/').to_owned());
        let public_url = named.unwrap_or_else(|| format!("{}://{address}", if tls.is_some() { "https" } else { "http" }));
        let app = Arc::new(App::new(engine, query, Doors { policy, provider, public_url }, config.clone()));
        Ok(Self { listener, address, config, app, tls })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then accepts no more, finishes what is under way within [`ServerConfig::shutdown_timeout`], and returns.
    /// The engine is left running: stop it afterwards.
    ///
    /// # Errors
    /// None at present: what goes wrong with one connection is that connection's matter.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { listener, config, app, tls, .. } = self;
        let keeper = tls.clone().map(|tls| tokio::spawn(tls.keep_current()));
        let acceptor = Acceptor::new(&config, &app, tls);
        let (closing, closed) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                (stream, peer, permit) = acceptor.accept(&listener) => {
                    connections.spawn(acceptor.connection(stream, peer, permit, closed.clone()));
                }
            }
        }
        drop(listener);
        if let Some(keeper) = keeper {
            keeper.abort();
        }
        app.stop();
        closing.send_replace(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(config.shutdown_timeout, finished).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests were cut off, as they didn't finish in time");
            connections.shutdown().await;
        }
        Ok(())
    }
}

struct Acceptor {
    http: http1::Builder,
    router: Router,
    peers: Peers,
    permits: Arc<Semaphore>,
    write_timeout: Duration,
    /// Time for the handshake of TLS.
    handshake_timeout: Duration,
    tls: Option<TlsAcceptor>,
}

impl Acceptor {
    fn new(config: &ServerConfig, app: &Arc<App>, tls: Option<Tls>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_header_size(HEADER_BYTES).max_buf_size(BUFFER_BYTES);
        Self {
            http,
            router: router(app.clone()),
            peers: Peers::default(),
            permits: Arc::new(Semaphore::new(config.connections)),
            write_timeout: config.write_timeout,
            handshake_timeout: config.header_timeout,
            tls: tls.map(|tls| tls.acceptor),
        }
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        let permit = self.permits.clone().acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, permit),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Option<OwnedSemaphorePermit>,
        mut closing: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let _ = stream.set_nodelay(true);
        let peer = self.peers.enter(peer.ip());
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        });
        let stream = PatientStream::new(stream, self.write_timeout);
        let (http, tls, patience) = (self.http.clone(), self.tls.clone(), self.handshake_timeout);
        async move {
            let _permit = permit;
            let outcome = match tls {
                None => answer(http.serve_connection(TokioIo::new(stream), service), &mut closing).await,
                Some(tls) => match tokio::time::timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => answer(http.serve_connection(TokioIo::new(stream), service), &mut closing).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a connection is not TLS, or doesn't trust this certificate");
                        return;
                    }
                    Err(_) => return,
                },
            };
            if let Err(error) = outcome {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
            }
        }
    }
}

/// Answers the requests of a connection until it ends; once the service closes, only those that are under way.
async fn answer<I, S>(connection: http1::Connection<I, S>, closing: &mut watch::Receiver<bool>) -> hyper::Result<()>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::ResBody: hyper::body::Body + 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = closing_began(closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn closing_began(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
