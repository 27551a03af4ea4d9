//! `muniment serve`: the engine and the HTTP server on a data folder, until a signal.

use crate::config::Config;
use crate::data_folder::ServerFile;
use crate::error::{CliError, Result};
use crate::logging;
use muniment_engine::Engine;
use muniment_server::{AccessMode, Server, ServerConfig};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Holds the first administrator's key, where there is no terminal to show it on.
const FIRST_KEY_FILE: &str = "administrator.key";
/// Exit code after a second signal, as a shell reports an interrupt.
const INTERRUPTED: i32 = 130;

/// Runs the command.
pub async fn run(config: Config) -> Result<ExitCode> {
    logging::start(&config, "info")?;
    let stop = Signals::listen()?;
    let service = Service::start(&config).await?;
    println!("Muniment {} serves {} at {}", env!("CARGO_PKG_VERSION"), config.data().display(), service.url);
    println!("Verifier key: {}", service.key);
    println!("{}", service.published());
    if let Some(told) = service.first_key(&config).await? {
        println!("{told}");
    }
    tracing::info!(data = %config.data().display(), url = service.url, key = service.key, "serving");
    service.run(stop.first()).await?;
    Ok(ExitCode::SUCCESS)
}

/// A server that is bound and ready.
pub struct Service {
    /// The engine behind it.
    pub engine: Arc<Engine>,
    /// Where it is reached.
    pub url: String,
    /// The key that its checkpoints are verified with.
    pub key: String,
    server: Server,
    file: ServerFile,
}

impl Service {
    /// Opens the data folder and binds.
    pub async fn start(config: &Config) -> Result<Self> {
        if config.access == AccessMode::Open {
            let reason = "access is open: whoever reaches this address, any program on this machine, may do everything";
            tracing::warn!(address = %config.listen, "{reason}");
        }
        if config.tls.is_none() && !config.listen.ip().is_loopback() {
            let reason = "keys and records travel unencrypted: set tls.certificate and tls.key, or put something in front that speaks TLS";
            tracing::warn!(address = %config.listen, "{reason}");
        }
        let engine = Engine::open(config.engine.clone()).await?;
        match Self::bind(config, &engine).await {
            Ok(service) => Ok(service),
            Err(error) => {
                engine.shutdown().await?;
                Err(error)
            }
        }
    }

    async fn bind(config: &Config, engine: &Arc<Engine>) -> Result<Self> {
        let settings = ServerConfig {
            listen: config.listen,
            access: config.access,
            masking: config.masking.clone(),
            tls: config.tls.clone(),
            oidc: config.oidc.clone(),
            session: config.session,
            query: config.query,
            ..ServerConfig::default()
        };
        let server = Server::bind(engine.clone(), settings).await.map_err(|error| CliError::Server(Box::new(error)))?;
        let url = url_of(server.local_addr(), config.tls.is_some());
        let key = engine.store().db().landmarks("key").await?.pop().map(|(_, key)| key).unwrap_or_default();
        let file = ServerFile::write(config.data(), &url)?;
        engine.start_capture().await?;
        engine.start_following()?;
        Ok(Self { engine: engine.clone(), url, key, server, file })
    }

    /// Makes the first administrator's key in a new data folder, and says where it is: at a terminal it is said itself, and kept nowhere. Where standard output
    /// may be a log, it goes to a file that only its owner can read.
    pub async fn first_key(&self, config: &Config) -> Result<Option<String>> {
        if config.access == AccessMode::Open {
            return Ok(None);
        }
        let Some(created) = self.engine.identities().first_key(muniment_engine::now()).await? else { return Ok(None) };
        if std::io::stdout().is_terminal() {
            return Ok(Some(format!("Administrator key, shown only this once: {}", created.key)));
        }
        let path = config.data().join(FIRST_KEY_FILE);
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            writeln!(file, "{}", created.key)
        };
        write().map_err(CliError::file("writing", &path))?;
        Ok(Some(format!("The administrator key is in {}: take it away from there.", path.display())))
    }

    /// Where checkpoints go, in words.
    pub fn published(&self) -> String {
        let folders: Vec<String> = self.engine.config().publish.iter().map(|folder| folder.display().to_string()).collect();
        match folders.as_slice() {
            [] => "Checkpoints are not published: an older copy of the data folder would not be found out.".to_owned(),
            folders => format!("Checkpoints are published to {}", folders.join(", ")),
        }
    }

    /// Serves until `stop`, then finishes what is under way.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let served = self.server.serve(stop).await.map_err(|error| CliError::Server(Box::new(error)));
        let stopped = self.engine.shutdown().await;
        drop(self.file);
        served?;
        stopped?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn url_of(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match address {
        address if address.ip().is_unspecified() && address.is_ipv4() => format!("{scheme}://127.0.0.1:{}", address.port()),
        address if address.ip().is_unspecified() => format!("{scheme}://[::1]:{}", address.port()),
        address => format!("{scheme}://{address}"),
    }
}

/// The signals that stop a server.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on these signals don't end the process by themselves.
    pub fn listen() -> Result<Self> {
        let on = |kind| signal(kind).map_err(CliError::file("listening for", "signals"));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for the first signal. A second one ends the process at once: what is acknowledged is durable all the same.
    pub async fn first(mut self) {
        self.next().await;
        tracing::info!("stopping; a second signal stops at once");
        tokio::spawn(async move {
            self.next().await;
            #[expect(clippy::disallowed_methods, reason = "the operator asked twice, and P1 holds at any instant")]
            std::process::exit(INTERRUPTED);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
