//! Texts that a batch has more than once: their numbers, and each of them once. Finding that out costs less than compressing the repetitions.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, UInt16Type};
use arrow_array::{Array, ArrayRef, Int8Array, StringArray, UInt16Array, UInt32Array};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Few different texts: as many as a signed byte can number.
pub(super) const FEW: usize = 127;
/// Different texts at most.
pub(super) const MANY: usize = 4096;
/// Slots of the hash table, a power of two.
const SLOTS: usize = 4 * MANY;
/// Rows after which a column is given up that seems to have about as many different texts as rows.
const TRIAL_ROWS: usize = 256;
/// Different texts at most where there are fewer rows than that.
const TRIAL_TEXTS: usize = 64;
/// Bytes of a text at most.
const TEXT_BYTES: usize = 256;

/// A column as numbers of texts.
pub(super) struct Numbered {
    /// The number of each row's text, null where the text is: Int8 if they are few, otherwise UInt16.
    pub(super) numbers: ArrayRef,
    /// The texts: length (u16 LE) and bytes of each.
    pub(super) texts: Vec<u8>,
}

/// Numbers a column's texts; `None` if more than `limit` are different, or nearly as many as there are rows, or one is too long.
pub(super) fn number(column: &StringArray, limit: usize) -> Option<Numbered> {
    let mut slots = [0_u16; SLOTS];
    let mut known: Vec<&[u8]> = Vec::with_capacity(FEW);
    let (offsets, bytes) = (column.value_offsets(), column.value_data());
    let mut numbers = Vec::with_capacity(column.len());
    let (rows, mut seen) = (column.len() - column.null_count(), 0);
    for row in 0..column.len() {
        if column.is_null(row) {
            numbers.push(0);
            continue;
        }
        let text = &bytes[offsets[row] as usize..offsets[row + 1] as usize];
        if text.len() > TEXT_BYTES || (seen == TRIAL_ROWS && !promising(seen - known.len(), rows)) {
            return None;
        }
        seen += 1;
        let mut slot = xxh3_64(text) as usize % SLOTS;
        let number = loop {
            match slots[slot].checked_sub(1) {
                Some(number) if known[usize::from(number)] == text => break number,
                Some(_) => slot = (slot + 1) % SLOTS,
                None if known.len() == limit.min(MANY) => return None,
                None => {
                    known.push(text);
                    slots[slot] = known.len() as u16;
                    break known.len() as u16 - 1;
                }
            }
        };
        numbers.push(number);
    }
    if rows < TRIAL_ROWS && known.len() > TRIAL_TEXTS {
        return None;
    }
    let nulls = column.nulls().cloned();
    let numbers: ArrayRef = if known.len() <= FEW {
        Arc::new(Int8Array::new(numbers.into_iter().map(|number| number as i8).collect(), nulls))
    } else {
        Arc::new(UInt16Array::new(numbers.into(), nulls))
    };
    let mut texts = Vec::new();
    for text in known {
        texts.extend_from_slice(&(text.len() as u16).to_le_bytes());
        texts.extend_from_slice(text);
    }
    Some(Numbered { numbers, texts })
}

/// Whether a column is worth numbering of whose first [`TRIAL_ROWS`] rows so many repeated a text before them. Of texts drawn at random from `n`
/// different ones about `TRIAL_ROWS² / 2n` do: those of a column with as many rows as that, or more, are.
fn promising(repeated: usize, rows: usize) -> bool {
    repeated * rows * 2 >= TRIAL_ROWS * TRIAL_ROWS
}

/// The column that was numbered; says what is wrong if it can't be one.
pub(super) fn texts(numbers: &dyn Array, mut texts: &[u8]) -> Result<ArrayRef, &'static str> {
    let mut known = Vec::new();
    while let Some((length, rest)) = texts.split_first_chunk() {
        let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or("a text is cut off")?;
        known.push(std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")?);
        texts = rest;
    }
    if !texts.is_empty() {
        return Err("a text is cut off");
    }
    let indices: UInt32Array = match (numbers.as_primitive_opt::<Int8Type>(), numbers.as_primitive_opt::<UInt16Type>()) {
        // A negative number is far beyond all texts.
        (Some(numbers), _) => numbers.unary(|number| number as u32),
        (None, Some(numbers)) => numbers.unary(u32::from),
        (None, None) => return Err("texts have no numbers"),
    };
    if indices.iter().flatten().any(|number| number as usize >= known.len()) {
        return Err("a number has no text");
    }
    let column = arrow_select::take::take(&StringArray::from(known), &indices, None).map_err(|_| "a number has no text")?;
    Ok(Arc::new(column.as_string::<i32>().clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_stand_for_texts(
            rows in prop::collection::vec(prop::option::of("[a-c]{0,3}|é|x{250}"), 0..400),
            many in prop::collection::vec(prop::option::of("[a-f]{3}"), 0..2000),
        ) {
            let rows = StringArray::from(rows);
            let numbered = number(&rows, FEW).unwrap();
            let again = texts(&numbered.numbers, &numbered.texts).unwrap();
            prop_assert_eq!(again.as_ref(), &rows as &dyn Array);
            let many = StringArray::from(many);
            if let Some(numbered) = number(&many, MANY) {
                let again = texts(&numbered.numbers, &numbered.texts).unwrap();
                prop_assert_eq!(again.as_ref(), &many as &dyn Array);
            }
        }

        #[test]
        fn damage_is_an_error(numbers in prop::collection::vec(any::<i8>(), 0..9), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let wide = UInt16Array::from_iter_values(numbers.iter().map(|number| *number as u16));
            let _ = (texts(&Int8Array::from(numbers), &bytes), texts(&wide, &bytes));
        }
    }

    #[test]
    fn as_many_as_repeat() {
        let different = |n: usize| StringArray::from_iter_values((0..1000).map(|row| (row / 2 % n).to_string()));
        let width = |column, limit| number(&column, limit).map(|numbered| numbered.numbers.data_type().primitive_width());
        assert_eq!(width(different(127), MANY), Some(Some(1)));
        assert_eq!(width(different(128), MANY), Some(Some(2)));
        assert_eq!(width(different(128), FEW), None);
        assert_eq!(width(StringArray::from_iter_values((0..10_000).map(|row| (row / 2).to_string())), MANY), None);
        for rows in [100, 1000] {
            assert_eq!(width(StringArray::from_iter_values((0..rows).map(|row| row.to_string())), MANY), None);
        }
        assert_eq!(width(StringArray::from_iter_values(["x".repeat(257)]), MANY), None);
    }
}
