//! TLS: a certificate of an authority, its renewal, and those who speak plainly.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Service;
use muniment_server::{AccessMode, Server, ServerConfig, ServerError, TlsConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::crypto::ring::default_provider;
use ureq::tls::{Certificate, RootCerts};

/// An authority of `tests/certificates`.
#[derive(Clone, Copy)]
struct Authority(&'static str);

impl Authority {
    fn pem(self, what: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/certificates/{}-{what}.pem", env!("CARGO_MANIFEST_DIR"), self.0)).unwrap()
    }

    /// Puts its certificate for this machine, and the key, into a folder.
    fn write(self, folder: &Path) -> TlsConfig {
        let config = TlsConfig { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        std::fs::write(&config.certificate, self.pem("certificate")).unwrap();
        std::fs::write(&config.key, self.pem("key")).unwrap();
        config
    }

    /// Asks over a new connection, trusting this authority only.
    fn alive(self, service: &Service) -> Result<String, ureq::Error> {
        let root = Certificate::from_pem(&self.pem("authority"))?;
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(RootCerts::new_with_certs(&[root]))
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(Duration::from_secs(30))).build().into();
        agent.get(format!("https://{}/healthz", service.address)).call()?.body_mut().read_to_string()
    }
}

async fn service(config: TlsConfig) -> Service {
    Service::with(|_, server| {
        server.access = AccessMode::Keys;
        server.tls = Some(config);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority("old"), Authority("new"));
    let service = service(old.write(folder.path())).await;
    let asks = |authority: Authority| tokio::task::block_in_place(|| authority.alive(&service));
    assert_eq!(asks(old).unwrap(), "alive\n");
    assert!(asks(new).is_err(), "who trusts another authority is not answered");
    let mut plain = service.connect().await;
    plain.send("GET", "/healthz", &[], b"").await;
    assert!(plain.try_answer().await.is_none(), "plain HTTP gets no answer");

    std::fs::write(folder.path().join("certificate.pem"), "half a certif").unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(asks(old).unwrap(), "alive\n");
    new.write(folder.path());
    let began = Instant::now();
    while asks(new).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(asks(old).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_certificate_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let good = Authority("old").write(folder.path());
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Authority("new").write(other.path());
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let service = Service::start().await;
    for wrong in [
        TlsConfig { certificate: folder.path().join("absent.pem"), ..good.clone() },
        TlsConfig { certificate: empty.clone(), ..good.clone() },
        TlsConfig { key: empty.clone(), ..good.clone() },
        TlsConfig { key: elsewhere.key.clone(), ..good.clone() },
    ] {
        let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), tls: Some(wrong.clone()), ..ServerConfig::default() };
        let outcome = Server::bind(service.engine.clone(), config).await;
        assert!(matches!(outcome, Err(ServerError::Tls(_))), "{wrong:?}");
    }
}
