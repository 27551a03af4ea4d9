//! TLS: the certificate and its key, read again when their files change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the certificate, and those between it and the authority's.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// What can be wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or is no PEM.
    #[error("{} can't be read as PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    /// The key can't be used, or belongs to another certificate.
    #[error("the key doesn't go with the certificate")]
    Key(#[source] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
struct Current {
    config: TlsConfig,
    key: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Accepts TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    current: Arc<Current>,
    pub(crate) acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("config", &self.current.config).finish_non_exhaustive()
    }
}

fn load(config: &TlsConfig) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&config.certificate).map_err(pem(&config.certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem(&config.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(config.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(pem(&config.key))?;
    let certified = CertifiedKey::new(chain, any_supported_type(&key).map_err(TlsError::Key)?);
    certified.keys_match().map_err(TlsError::Key)?;
    Ok(certified)
}

impl Tls {
    /// Reads the certificate.
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        let current = Arc::new(Current { config: config.clone(), key: RwLock::new(Arc::new(load(config)?)) });
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
        let mut server = builder.map_err(TlsError::Key)?.with_no_client_auth().with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { current, acceptor: TlsAcceptor::from(Arc::new(server)) })
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        let config = &self.current.config;
        [&config.certificate, &config.key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }

    /// Reads the files again; what is wrong with them is told, and the old certificate stays in use.
    fn reload(&self) {
        match load(&self.current.config) {
            Ok(key) => {
                *self.current.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!(certificate = %self.current.config.certificate.display(), "the certificate was read again");
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the new certificate can't be used; the old one stays"),
        }
    }

    /// Reads the files again whenever they have changed, and on SIGHUP. Never ends.
    pub(crate) async fn keep_current(self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut seen = self.changed_at();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = asked => self.reload(),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let now = self.changed_at();
                    // Both files are there, and are not those that were read: a renewal that is half done is looked at again the next time.
                    if now != seen && now.iter().all(Option::is_some) {
                        self.reload();
                        seen = now;
                    }
                }
            }
        }
    }
}
