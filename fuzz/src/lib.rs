//! What the fuzz targets share: a small ledger to take genuine documents from, and edits that damage them.

use std::sync::LazyLock;

#[path = "../../crates/ledger/tests/common/mod.rs"]
mod common;

pub mod capture;
#[path = "../../crates/capture/src/change.rs"]
pub mod change;
#[path = "../../crates/capture/src/envelope/mod.rs"]
pub mod envelope;
#[path = "../../crates/capture/src/finding.rs"]
pub mod finding;
#[path = "../../crates/capture/src/row.rs"]
pub mod row;

pub use capture as error;
pub use capture::check_envelopes;
pub use common::{Book, ORIGIN, OTHER, STREAM};

/// Two streams, four commits, one key rotation between them.
pub static BOOK: LazyLock<Book> = LazyLock::new(|| {
    let mut book = Book::new();
    book.commit(&[(STREAM, 3)]);
    book.commit(&[(OTHER, 1), (STREAM, 4)]);
    book.rotate();
    book.commit(&[(STREAM, 6)]);
    book.commit(&[(OTHER, 2)]);
    book
});

/// The document that an input stands for. An input that starts with an even byte is the document itself; else it is a list of edits of a
/// genuine one, three bytes each: the position (big endian), and the byte to put there.
pub fn document(genuine: &[u8], input: &[u8]) -> Vec<u8> {
    match input.split_first() {
        None => Vec::new(),
        Some((kind, text)) if kind % 2 == 0 => text.to_vec(),
        Some((_, edits)) => {
            let mut damaged = genuine.to_vec();
            for &[high, low, byte] in edits.as_chunks::<3>().0 {
                let at = usize::from(u16::from_be_bytes([high, low])) % damaged.len();
                damaged[at] = byte;
            }
            damaged
        }
    }
}
