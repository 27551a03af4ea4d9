//! Texts of which a batch has few different ones: their numbers, and each of them once. Finding that out costs less than compressing the repetitions.

use arrow_array::{Array, ArrayRef, Int8Array, StringArray, UInt32Array};
use arrow_buffer::NullBuffer;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Different texts at most: as many as a signed byte can number.
const TEXTS: usize = 127;
/// Slots of the hash table, a power of two.
const SLOTS: usize = 1024;
/// Rows after which a column of mostly different texts is given up.
const TRIAL_ROWS: usize = 256;
/// Different texts among those rows at most.
const TRIAL_TEXTS: usize = 64;
/// Bytes of a text at most.
const TEXT_BYTES: usize = 256;

/// A column as numbers of texts.
pub(super) struct Numbered {
    /// The number of each row's text, null where the text is.
    pub(super) numbers: Int8Array,
    /// The texts: length (u16 LE) and bytes of each.
    pub(super) texts: Vec<u8>,
}

/// Numbers a column's texts; `None` if they are too many or too long.
pub(super) fn number(column: &StringArray) -> Option<Numbered> {
    let mut slots = [0_u8; SLOTS];
    let mut known: Vec<&[u8]> = Vec::with_capacity(TEXTS);
    let (offsets, bytes) = (column.value_offsets(), column.value_data());
    let mut numbers = Vec::with_capacity(column.len());
    for row in 0..column.len() {
        if column.is_null(row) {
            numbers.push(0);
            continue;
        }
        let text = &bytes[offsets[row] as usize..offsets[row + 1] as usize];
        if text.len() > TEXT_BYTES || (known.len() > TRIAL_TEXTS && row < TRIAL_ROWS) {
            return None;
        }
        let mut slot = xxh3_64(text) as usize % SLOTS;
        let number = loop {
            match slots[slot].checked_sub(1) {
                Some(number) if known[usize::from(number)] == text => break number,
                Some(_) => slot = (slot + 1) % SLOTS,
                None if known.len() == TEXTS => return None,
                None => {
                    known.push(text);
                    slots[slot] = known.len() as u8;
                    break known.len() as u8 - 1;
                }
            }
        };
        numbers.push(number as i8);
    }
    let mut texts = Vec::new();
    for text in known {
        texts.extend_from_slice(&(text.len() as u16).to_le_bytes());
        texts.extend_from_slice(text);
    }
    Some(Numbered { numbers: Int8Array::new(numbers.into(), column.nulls().cloned()), texts })
}

/// The column that was numbered; says what is wrong if it can't be one.
pub(super) fn texts(numbers: &Int8Array, mut texts: &[u8]) -> Result<ArrayRef, &'static str> {
    let mut known = Vec::new();
    while let Some((length, rest)) = texts.split_first_chunk() {
        let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or("a text is cut off")?;
        known.push(std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")?);
        texts = rest;
    }
    if !texts.is_empty() {
        return Err("a text is cut off");
    }
    let nulls = numbers.nulls().cloned().unwrap_or_else(|| NullBuffer::new_valid(numbers.len()));
    let within = |row: usize| nulls.is_null(row) || usize::try_from(numbers.value(row)).is_ok_and(|number| number < known.len());
    if !(0..numbers.len()).all(within) {
        return Err("a number has no text");
    }
    let indices: UInt32Array = numbers.iter().map(|number| number.map(|number| number as u32)).collect();
    let column = arrow_select::take::take(&StringArray::from(known), &indices, None).map_err(|_| "a number has no text")?;
    Ok(Arc::new(arrow_array::cast::AsArray::as_string::<i32>(&column).clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_stand_for_texts(rows in prop::collection::vec(prop::option::of("[a-c]{0,3}|é|x{250}"), 0..400)) {
            let column = StringArray::from(rows);
            let numbered = number(&column).unwrap();
            let again = texts(&numbered.numbers, &numbered.texts).unwrap();
            prop_assert_eq!(again.as_ref(), &column as &dyn Array);
        }

        #[test]
        fn damage_is_an_error(numbers in prop::collection::vec(any::<i8>(), 0..9), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = texts(&Int8Array::from(numbers), &bytes);
        }
    }

    #[test]
    fn too_many_or_too_long() {
        let different = |n: usize| StringArray::from_iter_values((0..1000).map(|row| (row / 5 % n).to_string()));
        assert!(number(&different(127)).is_some());
        assert!(number(&different(128)).is_none());
        assert!(number(&StringArray::from_iter_values((0..100).map(|row| row.to_string()))).is_none());
        assert!(number(&StringArray::from_iter_values(["x".repeat(257)])).is_none());
    }
}
