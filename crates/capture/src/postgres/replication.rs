//! A replication connection: log-in, questions before the stream, and the stream itself as frames, without a task of its own between socket and reader.

use crate::error::{CaptureError, Result};
use crate::postgres::patterns::identifier;
use crate::postgres::pgoutput::Reader;
use bytes::{Buf, Bytes, BytesMut};
use md5::{Digest, Md5};
use pgwire_replication::auth::ScramClient;
use pgwire_replication::protocol::framing::{write_copy_data, write_password_message, write_query, write_startup_message};
use pgwire_replication::protocol::messages::{auth, parse_auth_request, parse_error_response};
use pgwire_replication::protocol::replication::{encode_standby_status_update, unix_to_pg_timestamp};
use pgwire_replication::tls::rustls::maybe_upgrade_to_tls;
use pgwire_replication::{Lsn, PgWireError, ReplicationConfig};
use socket2::SockRef;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout};

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;
const LOG_IN_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes read at once, if there are as many.
const READ_AHEAD: usize = 128 << 10;
/// Bytes received ahead, and in one segment, from a server on the same machine. The server sends each message by itself, and a segment through the loopback is
/// work for both ends; once the window is closed messages wait in the sender's socket and go over together. Segments must be much smaller than the window: it
/// would else stay closed until a timer of the sender's.
const LOOPBACK_BUFFER: u32 = 64 << 10;
const LOOPBACK_SEGMENT: u32 = 16 << 10;
/// How often the server hears from us when there is nothing new to say.
const IDLE_REPORT: Duration = Duration::from_secs(10);

/// What a connection runs over.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A row of an answer: the text of each column, `None` for NULL.
pub(super) type Row = Vec<Option<Bytes>>;

/// What the server sends once it replicates.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A message of `pgoutput`, with the LSN that it is about.
    Message(u64, Bytes),
    /// How far the server is.
    KeepAlive {
        /// LSN up to which it has sent what there is.
        wal_end: u64,
        /// It wants to know how far we are.
        reply_requested: bool,
    },
}

/// A replication connection.
pub(super) struct ReplicationConnection {
    wire: Box<dyn Wire>,
    config: ReplicationConfig,
    received: BytesMut,
    applied: u64,
    reported: Option<u64>,
    reported_at: Instant,
}

fn wire(error: Error) -> CaptureError {
    PgWireError::from(error).into()
}

fn unexpected(what: impl Into<String>) -> CaptureError {
    PgWireError::Protocol(what.into()).into()
}

/// Connects to one of the addresses of a host.
async fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let mut last = Error::from(ErrorKind::AddrNotAvailable);
    for address in lookup_host((host, port)).await.map_err(wire)? {
        match connect_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(wire(last))
}

async fn connect_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    // Not every system takes the size of a segment; a small window without it would stall.
    if address.ip().is_loopback() && SockRef::from(&socket).set_tcp_mss(LOOPBACK_SEGMENT).is_ok() {
        socket.set_recv_buffer_size(LOOPBACK_BUFFER)?;
    }
    socket.connect(address).await
}

impl ReplicationConnection {
    /// Connects and logs in, within 15 s.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] if the server can't be reached, or lets nobody in.
    pub async fn open(config: ReplicationConfig) -> Result<Self> {
        let opening = timeout(LOG_IN_TIMEOUT, Self::log_in(config));
        opening.await.unwrap_or_else(|_| Err(wire(ErrorKind::TimedOut.into())))
    }

    async fn log_in(config: ReplicationConfig) -> Result<Self> {
        let wire: Box<dyn Wire> = if config.is_unix_socket() {
            Box::new(UnixStream::connect(config.unix_socket_path()).await.map_err(wire)?)
        } else {
            Box::new(maybe_upgrade_to_tls(connect(&config.host, config.port).await?, &config.tls, &config.host).await?)
        };
        let applied = config.ack_lsn.unwrap_or(config.start_lsn).as_u64();
        let received = BytesMut::with_capacity(READ_AHEAD);
        let mut connection = Self { wire, config, received, applied, reported: None, reported_at: Instant::now() };
        let config = &connection.config;
        let parameters = [
            ("user", config.user.as_str()),
            ("database", config.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", config.application_name.as_deref().unwrap_or("muniment")),
            ("options", config.options.as_deref().unwrap_or_default()),
        ];
        write_startup_message(&mut connection.wire, PROTOCOL, &parameters).await?;
        loop {
            match connection.frame().await? {
                (b'R', request) => connection.authenticate(&request).await?,
                (b'Z', _) => return Ok(connection),
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self, request: &[u8]) -> Result<()> {
        let (code, data) = parse_auth_request(request)?;
        match code {
            auth::OK => Ok(()),
            auth::CLEARTEXT_PASSWORD => self.say_password(&self.config.password.clone()).await,
            auth::MD5_PASSWORD => self.say_password(&md5_password(&self.config.user, &self.config.password, data)).await,
            auth::SASL => self.authenticate_by_scram(data).await,
            other => Err(PgWireError::Auth(format!("the server wants authentication of kind {other}, which is not supported")).into()),
        }
    }

    async fn say_password(&mut self, password: &str) -> Result<()> {
        Ok(write_password_message(&mut self.wire, &[password.as_bytes(), b"\0"].concat()).await?)
    }

    /// RFC 7677, without channel binding.
    async fn authenticate_by_scram(&mut self, mechanisms: &[u8]) -> Result<()> {
        const MECHANISM: &[u8] = b"SCRAM-SHA-256";
        if !mechanisms.split(|byte| *byte == 0).any(|mechanism| mechanism == MECHANISM) {
            return Err(PgWireError::Auth("the server doesn't offer SCRAM-SHA-256".into()).into());
        }
        let scram = ScramClient::new(&self.config.user);
        let first = scram.client_first.as_bytes();
        let length = u32::try_from(first.len()).unwrap_or_default().to_be_bytes();
        write_password_message(&mut self.wire, &[MECHANISM, b"\0", &length, first].concat()).await?;
        let server_first = self.authentication_text(auth::SASL_CONTINUE).await?;
        let (last, message, salted) = scram.client_final(&self.config.password, &server_first)?;
        write_password_message(&mut self.wire, last.as_bytes()).await?;
        let server_last = self.authentication_text(auth::SASL_FINAL).await?;
        Ok(ScramClient::verify_server_final(&server_last, &salted, &message)?)
    }

    async fn authentication_text(&mut self, wanted: i32) -> Result<String> {
        loop {
            if let (b'R', request) = self.frame().await? {
                let (code, data) = parse_auth_request(&request)?;
                if code != wanted {
                    return Err(PgWireError::Auth(format!("authentication went on with {code} in place of {wanted}")).into());
                }
                return Ok(String::from_utf8_lossy(data).into_owned());
            }
        }
    }

    /// The rows that a statement answers, before the stream begins. After a server's error the connection can be used.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] if the statement or the connection fails.
    pub async fn ask(&mut self, statement: &str) -> Result<Vec<Row>> {
        write_query(&mut self.wire, statement).await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.any_frame().await? {
                (b'D', row) => rows.push(read_row(row)?),
                (b'E', error) => failed = Some(PgWireError::Server(parse_error_response(&error))),
                (b'Z', _) => return failed.map_or(Ok(rows), |error| Err(error.into())),
                _ => {}
            }
        }
    }

    /// Begins to replicate a slot from the position that the configuration names.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] with the server's reason, such as a slot that another connection holds.
    pub async fn replicate(&mut self, slot: &str, publication: &str) -> Result<()> {
        let publication = identifier(publication).replace('\'', "''");
        let from = self.config.start_lsn;
        let statement =
            format!("START_REPLICATION SLOT {slot} LOGICAL {from} (proto_version '1', publication_names '{publication}', messages 'true')");
        write_query(&mut self.wire, &statement).await?;
        while self.frame().await?.0 != b'W' {}
        self.report().await
    }

    /// Whether it is a Unix socket, which holds little, so that the server soon waits for a reader that sleeps.
    pub fn is_local(&self) -> bool {
        self.config.is_unix_socket()
    }

    /// What has been received and not been taken yet.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] if the server ends the stream or sends what is not of the protocol.
    pub fn received(&mut self) -> Result<Option<Received>> {
        while let Some((kind, mut frame)) = self.whole_frame()? {
            match kind {
                b'E' => return Err(PgWireError::Server(parse_error_response(&frame)).into()),
                b'c' => return Err(unexpected("the server has ended the stream")),
                b'd' => {}
                _ => continue,
            }
            let mut reader = Reader::new(&frame);
            return Ok(Some(match reader.u8()? {
                b'w' => {
                    let lsn = reader.u64()?;
                    reader.take(16)?;
                    frame.advance(25);
                    Received::Message(lsn, frame)
                }
                b'k' => {
                    let wal_end = reader.u64()?;
                    reader.u64()?;
                    Received::KeepAlive { wal_end, reply_requested: reader.u8()? != 0 }
                }
                other => return Err(unexpected(format!("a message of kind {other} in the stream"))),
            }));
        }
        Ok(None)
    }

    /// Waits until more has been received. May be cancelled while it waits.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] if the connection fails.
    pub async fn receive(&mut self) -> Result<()> {
        self.received.reserve(READ_AHEAD);
        match self.wire.read_buf(&mut self.received).await {
            Ok(0) => Err(wire(ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(wire(error)),
        }
    }

    /// Everything up to this LSN is durable here; the server hears it with the next report.
    pub fn applied(&mut self, lsn: u64) {
        self.applied = self.applied.max(lsn);
    }

    /// When the server has to hear from us.
    pub fn report_due(&self) -> Instant {
        let news = self.reported.is_none_or(|reported| self.applied > reported);
        self.reported_at + if news { self.config.status_interval } else { IDLE_REPORT }
    }

    /// Tells the server how far we are.
    ///
    /// # Errors
    /// [`CaptureError::Replication`] if the connection fails.
    #[expect(clippy::disallowed_methods, reason = "the server shows the time to whoever looks; nothing depends on it")]
    pub async fn report(&mut self) -> Result<()> {
        let now = unix_to_pg_timestamp(chrono::Utc::now().timestamp_micros());
        write_copy_data(&mut self.wire, &encode_standby_status_update(Lsn::from_u64(self.applied), now, false)).await?;
        self.reported = Some(self.applied);
        self.reported_at = Instant::now();
        Ok(())
    }

    /// The next frame; an error if it is the server's.
    async fn frame(&mut self) -> Result<(u8, Bytes)> {
        match self.any_frame().await? {
            (b'E', error) => Err(PgWireError::Server(parse_error_response(&error)).into()),
            frame => Ok(frame),
        }
    }

    async fn any_frame(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if let Some(frame) = self.whole_frame()? {
                return Ok(frame);
            }
            self.receive().await?;
        }
    }

    /// A frame that has been received whole: its kind, and what is in it.
    fn whole_frame(&mut self) -> Result<Option<(u8, Bytes)>> {
        let Some(([kind, length @ ..], _)) = self.received.split_first_chunk::<5>() else { return Ok(None) };
        let (kind, length) = (*kind, u32::from_be_bytes(*length) as usize);
        let payload_bytes = length.checked_sub(4).ok_or_else(|| unexpected("a message that is shorter than its length"))?;
        let limit_bytes = self.config.max_message_size;
        if payload_bytes > limit_bytes {
            return Err(PgWireError::MessageTooLarge { payload_bytes, limit_bytes }.into());
        }
        let missing = (length + 1).saturating_sub(self.received.len());
        if missing > 0 {
            self.received.reserve(missing);
            return Ok(None);
        }
        let mut frame = self.received.split_to(length + 1);
        frame.advance(5);
        Ok(Some((kind, frame.freeze())))
    }
}

/// `md5` and the hash, in hexadecimal digits, of that of password and user, and the server's salt.
fn md5_password(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = hex::encode(Md5::new().chain_update(password).chain_update(user).finalize());
    format!("md5{}", hex::encode(Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

fn read_row(frame: Bytes) -> Result<Row> {
    let mut reader = Reader::new(&frame);
    let columns = reader.u16()?;
    let column = |_| {
        let length = reader.u32()?;
        if length == u32::MAX { Ok(None) } else { Ok(Some(frame.slice_ref(reader.take(length as usize)?))) }
    };
    (0..columns).map(column).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    fn connection(wire: tokio::io::DuplexStream) -> ReplicationConnection {
        let config = ReplicationConfig::new("h", "u", "", "d", "s", "p").with_max_message_size(100);
        let (received, reported_at) = (BytesMut::new(), Instant::now());
        ReplicationConnection { wire: Box::new(wire), config, received, applied: 0, reported: None, reported_at }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind], &u32::try_from(payload.len() + 4).unwrap().to_be_bytes()[..], payload].concat()
    }

    fn message(text: &[u8]) -> Vec<u8> {
        frame(b'd', &[b"w", &[0; 24][..], text].concat())
    }

    /// What is received of these bytes, sent in pieces of this size.
    async fn received(bytes: &[u8], piece: usize) -> Result<Vec<Received>> {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut connection, mut all) = (connection(near), Vec::new());
        for piece in bytes.chunks(piece) {
            far.write_all(piece).await.unwrap();
            connection.receive().await?;
            while let Some(received) = connection.received()? {
                all.push(received);
            }
        }
        Ok(all)
    }

    #[tokio::test]
    async fn refused() {
        let too_large = received(b"d\0\0\x01\0", 5).await.unwrap_err();
        assert!(matches!(too_large, CaptureError::Replication(PgWireError::MessageTooLarge { payload_bytes: 252, limit_bytes: 100 })));
        for (bytes, reason) in [
            (b"d\0\0\0\x03".to_vec(), "shorter than its length"),
            (frame(b'd', b"?"), "kind 63"),
            (frame(b'd', b""), "shorter than it says"),
            (frame(b'd', b"k\0"), "shorter than it says"),
            (frame(b'd', b"w\0"), "shorter than it says"),
            (frame(b'c', b""), "ended the stream"),
            (frame(b'E', b"SFATAL\0C57P01\0Mgoing down\0\0"), "going down"),
        ] {
            let error = received(&bytes, 64).await.unwrap_err();
            let text = format!("{error} {:?}", std::error::Error::source(&error));
            assert!(text.contains(reason), "{reason}: {text}");
        }
    }

    #[test]
    fn passwords() {
        assert_eq!(md5_password("u", "p", &[1, 2, 3, 4]), "md5facdc455923b0a58efea84a6d9ee0e76");
    }

    proptest! {
        #[test]
        fn frames_may_come_in_pieces(texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..9), piece in 1usize..64) {
            let mut bytes = frame(b'd', &[b"k", &7u64.to_be_bytes()[..], &[0; 8], &[1]].concat());
            let mut expected = vec![Received::KeepAlive { wal_end: 7, reply_requested: true }];
            for text in texts {
                bytes.extend(frame(b'N', &text));
                bytes.extend(message(&text));
                expected.push(Received::Message(0, text.into()));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(received(&bytes, piece)).unwrap(), expected);
        }
    }
}
