//! Receiving a request's body: as fast as the sender must be, never more memory than the limit, and unpacked on the way.

use crate::answer::{Code, Refusal};
use crate::decode::{Decoder, Plain, too_large};
use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use axum::http::request::Parts;
use bytes::Bytes;
use futures::StreamExt;
use muniment_engine::Engine;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest time for which the rest of a refused body is read, so that its sender sees the answer and not a broken connection.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Most bytes of it.
const DISCARD_BYTES: usize = 64 << 20;

/// What a body may be and how fast it must come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Bytes, both as received and unpacked.
    pub(crate) bytes: usize,
    /// Time for a body of any size.
    pub(crate) time: Duration,
    /// Bytes that must arrive in each second beyond that time.
    pub(crate) bytes_per_second: u64,
}

/// Receives a body. Its memory is reserved while it arrives; whoever goes on with it reserves what that takes.
pub(crate) async fn receive(engine: &Engine, request: Request, limits: BodyLimits) -> Result<(Parts, Bytes), Refusal> {
    let (parts, body) = request.into_parts();
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let mut receiver = Receiver { stream: body.into_data_stream(), limits, began: Instant::now(), received: 0 };
    let outcome = match announced {
        Some(bytes) if bytes > limits.bytes => Err(too_large(limits.bytes)),
        announced => receiver.collect(engine, &parts, announced).await,
    };
    match outcome {
        Ok(bytes) => Ok((parts, bytes)),
        Err(refusal) => {
            if refusal.code() != Code::SlowSender {
                discard(&parts.headers, receiver.stream).await;
            }
            Err(refusal)
        }
    }
}

/// Refuses a request without regard to its body.
pub(crate) async fn refuse(request: Request, refusal: Refusal) -> Refusal {
    let (parts, body) = request.into_parts();
    discard(&parts.headers, body.into_data_stream()).await;
    refusal
}

/// Reads the rest of a refused body for a while. A sender who waits to be asked for it is not asked.
async fn discard(headers: &HeaderMap, mut body: BodyDataStream) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let deadline = Instant::now() + DISCARD_TIME;
    let mut discarded = 0;
    while let Ok(Some(Ok(chunk))) = timeout_at(deadline, body.next()).await {
        discarded += chunk.len();
        if discarded > DISCARD_BYTES {
            return;
        }
    }
}

struct Receiver {
    stream: BodyDataStream,
    limits: BodyLimits,
    began: Instant,
    received: usize,
}

impl Receiver {
    async fn collect(&mut self, engine: &Engine, parts: &Parts, announced: Option<usize>) -> Result<Bytes, Refusal> {
        let mut reservation = engine.reserve(0)?;
        let reserve = Box::new(move |bytes| reservation.grow(bytes));
        let plain = |expected| Plain::new(self.limits.bytes, expected, reserve);
        let mut decoder = match encoding(parts)? {
            Encoding::Identity => Decoder::Identity(plain(announced)),
            Encoding::Gzip => Decoder::gzip(plain(None))?,
            Encoding::Zstd => Decoder::zstd(plain(None))?,
        };
        while let Some(chunk) = self.next().await? {
            if matches!(decoder, Decoder::Identity(_)) && announced == Some(chunk.len()) {
                return Ok(chunk);
            }
            decoder.feed(&chunk)?;
        }
        Ok(Bytes::from(decoder.finish()?))
    }

    /// The next bytes as they were sent.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let paced = self.received as f64 / self.limits.bytes_per_second.max(1) as f64;
        let deadline = self.began + self.limits.time + Duration::from_secs_f64(paced);
        let slow = |_| Refusal::new(Code::SlowSender, format!("only {} bytes of the body came in time", self.received));
        let next = timeout_at(deadline, self.stream.next()).await.map_err(slow)?;
        let Some(chunk) = next else { return Ok(None) };
        let chunk = chunk.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "a body ended early");
            Refusal::new(Code::IncompleteBody, "the body ended early or is not framed as HTTP asks")
        })?;
        self.received += chunk.len();
        if self.received > self.limits.bytes {
            return Err(too_large(self.limits.bytes));
        }
        Ok(Some(chunk))
    }
}

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(parts: &Parts) -> Result<Encoding, Refusal> {
    let mut values = parts.headers.get_all(CONTENT_ENCODING).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(Encoding::Identity) };
    match value.to_str().map(|name| name.trim().to_ascii_lowercase()).as_deref() {
        Ok("identity") if second.is_none() => Ok(Encoding::Identity),
        Ok("gzip" | "x-gzip") if second.is_none() => Ok(Encoding::Gzip),
        Ok("zstd") if second.is_none() => Ok(Encoding::Zstd),
        _ => Err(Refusal::new(Code::UnsupportedEncoding, "Content-Encoding is gzip, zstd or absent")),
    }
}
