//! The documents after a change by what they don't share with those before it. Most changes leave most of a row as it was: to compare the two costs a third
//! of what compressing the second would.

use arrow_array::builder::BinaryBuilder;
use arrow_array::{Array, BinaryArray, StringArray};

/// Columns of documents before and after a change.
const PAIRS: [[&str; 2]; 1] = [["old_values", "new_values"]];
/// Bytes that are compared at once.
const STEP: usize = 16;

/// The column whose documents those of this column follow from.
pub(super) fn base_of(column: &str) -> Option<&'static str> {
    PAIRS.iter().find(|[_, after]| *after == column).map(|[before, _]| *before)
}

/// Of each document the bytes at its start and at its end that its base shares (LEB128 each), and those between.
pub(super) fn cut(base: &StringArray, documents: &StringArray) -> BinaryArray {
    let mut cut = BinaryBuilder::with_capacity(documents.len(), documents.value_data().len() / 2);
    let mut scratch = Vec::new();
    for row in 0..documents.len() {
        if documents.is_null(row) {
            cut.append_null();
            continue;
        }
        let document = documents.value(row).as_bytes();
        let before = if base.is_null(row) { &[] } else { base.value(row).as_bytes() };
        let start = shared_start(before, document);
        let end = shared_end(&before[start..], &document[start..]);
        scratch.clear();
        push_length(&mut scratch, start);
        push_length(&mut scratch, end);
        scratch.extend_from_slice(&document[start..document.len() - end]);
        cut.append_value(&scratch);
    }
    cut.finish()
}

/// The documents again.
///
/// # Errors
/// What is wrong with them, if the base is not that from which they were cut.
pub(super) fn restore(base: &StringArray, cut: &BinaryArray) -> Result<StringArray, &'static str> {
    let mut documents = BinaryBuilder::with_capacity(cut.len(), cut.value_data().len() + base.value_data().len());
    let mut scratch = Vec::new();
    for row in 0..cut.len() {
        if cut.is_null(row) {
            documents.append_null();
            continue;
        }
        let before = if base.is_null(row) { &[] } else { base.value(row).as_bytes() };
        let rest = &mut cut.value(row);
        let (start, end) = (take_length(rest), take_length(rest));
        let (Some(start), Some(end)) = (start, end) else { return Err("a length of shared text is cut off") };
        let shared = start.checked_add(end).filter(|shared| *shared <= before.len()).ok_or("more text is shared than there is")?;
        scratch.clear();
        scratch.reserve(shared + rest.len());
        scratch.extend_from_slice(&before[..start]);
        scratch.extend_from_slice(rest);
        scratch.extend_from_slice(&before[before.len() - end..]);
        documents.append_value(&scratch);
    }
    StringArray::try_from_binary(documents.finish()).map_err(|_| "a document is not UTF-8")
}

fn shared_start(a: &[u8], b: &[u8]) -> usize {
    let (steps, _) = a.as_chunks::<STEP>();
    let (others, _) = b.as_chunks::<STEP>();
    let start = STEP * steps.iter().zip(others).take_while(|(a, b)| a == b).count();
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

fn shared_end(a: &[u8], b: &[u8]) -> usize {
    let (_, steps) = a.as_rchunks::<STEP>();
    let (_, others) = b.as_rchunks::<STEP>();
    let end = STEP * steps.iter().rev().zip(others.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    end + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn document() -> impl Strategy<Value = Option<String>> {
        let parts = prop::collection::vec(
            prop_oneof![Just("äöü".to_owned()), Just("a long part that repeats itself ".to_owned()), ".{0,3}"],
            0..20,
        );
        prop::option::weighted(0.8, parts.prop_map(|parts| parts.concat()))
    }

    proptest! {
        #[test]
        fn documents_are_restored(pairs in prop::collection::vec((document(), document()), 0..20)) {
            let (before, after): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let (before, after) = (StringArray::from(before), StringArray::from(after));
            prop_assert_eq!(restore(&before, &cut(&before, &after)).unwrap(), after.clone());
            prop_assert_eq!(restore(&after, &cut(&after, &after)).unwrap(), after);
        }

        #[test]
        fn arbitrary_bytes_are_documents_or_refused(before in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let cut = BinaryArray::from(vec![bytes.as_slice()]);
            let _refused_or_not = restore(&StringArray::from(vec![before]), &cut);
        }
    }

    #[test]
    fn only_what_differs_is_kept() {
        let before = StringArray::from(vec![r#"{"state":"OPEN","owner":12,"due":"2026-01-01"}"#]);
        let after = StringArray::from(vec![r#"{"state":"OPEN","owner":17,"due":"2026-01-01"}"#]);
        let cut = cut(&before, &after);
        assert_eq!(cut.value(0), [25, 20, b'7']);
    }

    #[test]
    fn another_base_is_refused() {
        let long = StringArray::from(vec!["the same text in both of them"]);
        let cut = cut(&long, &long);
        assert_eq!(restore(&StringArray::from(vec!["short"]), &cut), Err("more text is shared than there is"));
        let half = BinaryArray::from(vec![&[1_u8, 0][..]]);
        assert_eq!(restore(&StringArray::from(vec!["ä"]), &half), Err("a document is not UTF-8"));
    }
}
