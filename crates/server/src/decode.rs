//! Compressed bodies, unpacked as they arrive into a buffer that never grows beyond its limit, whatever the compressed bytes promise.

use crate::answer::{Code, Refusal};
use flate2::write::MultiGzDecoder;
use muniment_engine::EngineError;
use std::io::{self, Write};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

/// Smallest step by which a buffer grows.
const STEP_BYTES: usize = 64 << 10;
/// Memory of a gzip decoder: its window and tables.
const GZIP_BYTES: usize = 64 << 10;
/// Largest window of a Zstandard frame as a power of two: what RFC 8878 asks every decoder to support, and no more.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Takes memory out of the budget of requests under way, or says that there is none left.
pub(crate) type Reserve = Box<dyn FnMut(usize) -> Result<(), EngineError> + Send>;

/// A body's plain bytes. Its capacity is reserved before it is allocated.
pub(crate) struct Plain {
    bytes: Vec<u8>,
    limit: usize,
    expected: usize,
    reserve: Reserve,
}

impl Plain {
    /// An empty buffer for at most `limit` bytes; `expected` if their number was announced.
    pub(crate) fn new(limit: usize, expected: Option<usize>, reserve: Reserve) -> Self {
        Self { bytes: Vec::new(), limit, expected: expected.unwrap_or(usize::MAX), reserve }
    }

    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), Refusal> {
        Ok((self.reserve)(bytes)?)
    }

    /// Makes room for at least one byte more, for a writer that fills what room there is. A buffer may be one byte longer than its limit, so that
    /// what is too long can be told from what just fits.
    fn some_room(&mut self) -> Result<(), Refusal> {
        if self.bytes.len() > self.limit {
            return Err(too_large(self.limit));
        }
        self.grow_to(self.bytes.len() + 1)
    }

    fn grow_to(&mut self, length: usize) -> Result<(), Refusal> {
        if length > self.bytes.capacity() {
            let roomy = length.saturating_mul(2).max(STEP_BYTES).min(self.expected).min(self.limit + 1).max(length);
            self.reserve(roomy - self.bytes.capacity())?;
            self.bytes.reserve_exact(roomy - self.bytes.len());
        }
        Ok(())
    }

    pub(crate) fn extend(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let length = self.bytes.len().saturating_add(chunk.len());
        if length > self.limit {
            return Err(too_large(self.limit));
        }
        self.grow_to(length)?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

pub(crate) fn too_large(limit: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body is larger than {limit} bytes"))
}

/// What gzip unpacks into; keeps the reason why it took no more.
struct Sink {
    plain: Plain,
    refusal: Option<Refusal>,
}

impl Write for Sink {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        match self.plain.extend(chunk) {
            Ok(()) => Ok(chunk.len()),
            Err(refusal) => {
                self.refusal = Some(refusal);
                Err(io::Error::other("no room"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A decoder with the bytes it has unpacked.
pub(crate) enum Decoder {
    Identity(Plain),
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

impl Decoder {
    pub(crate) fn gzip(mut plain: Plain) -> Result<Self, Refusal> {
        plain.reserve(GZIP_BYTES)?;
        Ok(Self::Gzip(Box::new(Gzip { decoder: MultiGzDecoder::new(Sink { plain, refusal: None }) })))
    }

    pub(crate) fn zstd(plain: Plain) -> Result<Self, Refusal> {
        let out_of_memory = || Refusal::new(Code::Busy, "no memory for a decoder").retry_after(1);
        let mut context = DCtx::try_create().ok_or_else(out_of_memory)?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(damaged_zstd)?;
        Ok(Self::Zstd(Box::new(Zstd { context, plain, reserved: 0, open: true })))
    }

    /// Takes the next bytes of the body.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Identity(plain) => plain.extend(chunk),
            Self::Gzip(gzip) => gzip.feed(chunk),
            Self::Zstd(zstd) => zstd.feed(chunk),
        }
    }

    /// Ends the body.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Identity(plain) => Ok(plain.into_bytes()),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(zstd) if zstd.open => Err(damaged("the Zstandard data ends early")),
            Self::Zstd(zstd) => Ok(zstd.plain.into_bytes()),
        }
    }
}

pub(crate) struct Gzip {
    decoder: MultiGzDecoder<Sink>,
}

impl Gzip {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let written = self.decoder.write_all(chunk);
        written.map_err(|error| self.refusal(&error))
    }

    fn finish(mut self) -> Result<Vec<u8>, Refusal> {
        self.decoder.try_finish().map_err(|error| self.refusal(&error))?;
        let plain = &mut self.decoder.get_mut().plain;
        Ok(std::mem::take(&mut plain.bytes))
    }

    fn refusal(&mut self, error: &io::Error) -> Refusal {
        let kept = self.decoder.get_mut().refusal.take();
        kept.unwrap_or_else(|| damaged(format!("the gzip data is damaged or ends early: {error}")))
    }
}

pub(crate) struct Zstd {
    context: DCtx<'static>,
    plain: Plain,
    reserved: usize,
    /// Whether a frame has begun that has not ended.
    open: bool,
}

impl Zstd {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut input = InBuffer::around(chunk);
        loop {
            self.plain.some_room()?;
            let length = self.plain.bytes.len();
            let mut output = OutBuffer::around_pos(&mut self.plain.bytes, length);
            let left = self.context.decompress_stream(&mut output, &mut input).map_err(damaged_zstd)?;
            self.open = left != 0;
            self.account()?;
            let flushed = !self.open || self.plain.bytes.len() < self.plain.bytes.capacity();
            if input.pos() == chunk.len() && flushed {
                return if self.plain.bytes.len() > self.plain.limit { Err(too_large(self.plain.limit)) } else { Ok(()) };
            }
        }
    }

    /// Reserves what the decoder has come to use: it allocates its window when it has read a frame's header.
    fn account(&mut self) -> Result<(), Refusal> {
        let used = self.context.sizeof();
        if used > self.reserved {
            self.plain.reserve(used - self.reserved)?;
            self.reserved = used;
        }
        Ok(())
    }
}

fn damaged(reason: impl Into<String>) -> Refusal {
    Refusal::new(Code::DamagedBody, reason)
}

fn damaged_zstd(code: usize) -> Refusal {
    damaged(format!("the Zstandard data can't be unpacked: {}", zstd_safe::get_error_name(code)))
}
