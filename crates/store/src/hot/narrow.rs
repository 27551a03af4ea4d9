//! Integers by how far they are from the least of them, or how much further than the one before: ids and times need a few bytes of eight so, which costs
//! much less than compressing them.

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, UInt8Array, UInt16Array, UInt32Array};
use arrow_buffer::NullBuffer;
use std::sync::Arc;

/// A column of integers with fewer bytes each.
pub(super) struct Narrowed {
    /// What is to be added to each.
    pub(super) values: ArrayRef,
    /// Bytes of each: 1, 2 or 4.
    pub(super) width: u8,
    /// The least value (i64 LE); or the first, and the least step from one to the next.
    pub(super) base: Vec<u8>,
}

/// The integers with fewer bytes each; `None` if they are too far apart.
pub(super) fn narrow(values: &[i64], nulls: Option<&NullBuffer>) -> Option<Narrowed> {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    let (least, width) = match nulls {
        None => bounds(values.iter().copied()),
        Some(nulls) => bounds(nulls.valid_indices().map(|row| values[row])),
    }?;
    let first = *values.first()?;
    let steps = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let by_steps = nulls.is_none().then(|| bounds(steps())).flatten();
    match by_steps.filter(|(_, steps)| *steps < width) {
        Some((step, width)) => {
            let values = std::iter::once(0).chain(steps().map(|next| next.wrapping_sub(step)));
            let base = [first.to_le_bytes(), step.to_le_bytes()].concat();
            Some(Narrowed { values: array(values, width, None)?, width, base })
        }
        None => {
            let values = values.iter().map(|value| value.wrapping_sub(least));
            Some(Narrowed { values: array(values, width, nulls)?, width, base: least.to_le_bytes().to_vec() })
        }
    }
}

/// The least of some integers, and how many bytes the distance to the greatest needs: 1, 2, 4 or 8.
fn bounds(values: impl Iterator<Item = i64>) -> Option<(i64, u8)> {
    let (least, most) = values.fold((i64::MAX, i64::MIN), |(least, most), value| (least.min(value), most.max(value)));
    let width = match u64::try_from(i128::from(most) - i128::from(least)).ok()? {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    Some((least, width))
}

/// What is left of the values in columns of this width.
fn array(values: impl Iterator<Item = i64>, width: u8, nulls: Option<&NullBuffer>) -> Option<ArrayRef> {
    let nulls = nulls.cloned();
    Some(match width {
        1 => Arc::new(UInt8Array::new(values.map(|value| value as u8).collect(), nulls)),
        2 => Arc::new(UInt16Array::new(values.map(|value| value as u16).collect(), nulls)),
        4 => Arc::new(UInt32Array::new(values.map(|value| value as u32).collect(), nulls)),
        _ => return None,
    })
}

/// The integers again; says what is wrong if they can't be any.
pub(super) fn widen(narrowed: &dyn Array, base: &[u8]) -> Result<Vec<i64>, &'static str> {
    let rest: Vec<i64> = match narrowed.as_primitive_opt::<UInt8Type>() {
        Some(values) => values.values().iter().map(|value| i64::from(*value)).collect(),
        None => match (narrowed.as_primitive_opt::<UInt16Type>(), narrowed.as_primitive_opt::<UInt32Type>()) {
            (Some(values), _) => values.values().iter().map(|value| i64::from(*value)).collect(),
            (None, Some(values)) => values.values().iter().map(|value| i64::from(*value)).collect(),
            (None, None) => return Err("integers are not narrow"),
        },
    };
    let (numbers, []) = base.as_chunks::<8>() else { return Err("the least integer is cut off") };
    Ok(match *numbers {
        [least] => rest.into_iter().map(|value| value.wrapping_add(i64::from_le_bytes(least))).collect(),
        [first, step] => {
            let (mut last, step) = (i64::from_le_bytes(first).wrapping_sub(i64::from_le_bytes(step)), i64::from_le_bytes(step));
            let next = |value| {
                last = last.wrapping_add(step).wrapping_add(value);
                last
            };
            rest.into_iter().map(next).collect()
        }
        _ => return Err("the least integer is missing"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::Int64Array;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Vec<Option<i64>>> {
        let value = prop_oneof![0..200_i64, 0..70_000_i64, 0..5_000_000_000_i64, any::<i64>()];
        let base = prop_oneof![Just(i64::MIN), Just(-3), any::<i64>()];
        let column = (prop_oneof![0..2_i64, 0..300_i64, 0..70_000_i64], base, prop::collection::vec(value, 0..40));
        column.prop_flat_map(|(range, base, other)| {
            let near = prop::collection::vec((0..=range).prop_map(move |value| Some(base.wrapping_add(value))), 0..40);
            let other: Vec<_> = other.into_iter().map(Some).collect();
            prop_oneof![
                near.clone(),
                Just(other),
                near.prop_flat_map(|near| {
                    let rows = near.len();
                    prop::collection::vec(any::<bool>(), rows)
                        .prop_map(move |valid| near.iter().zip(valid).map(|(value, valid)| value.filter(|_| valid)).collect())
                })
            ]
        })
    }

    proptest! {
        #[test]
        fn narrow_integers_are_the_same(values in values()) {
            let column = Int64Array::from(values);
            if let Some(narrowed) = narrow(column.values(), column.nulls()) {
                let again = widen(&narrowed.values, &narrowed.base).unwrap();
                prop_assert_eq!(Int64Array::new(again.into(), column.nulls().cloned()), column);
            }
        }

        #[test]
        fn damage_is_an_error(values in prop::collection::vec(any::<u16>(), 0..9), base in prop::collection::vec(any::<u8>(), 0..20)) {
            let widened = widen(&UInt16Array::from(values), &base);
            prop_assert_eq!(widened.is_ok(), [8, 16].contains(&base.len()));
        }
    }

    #[test]
    fn as_few_bytes_as_suffice() {
        let width = |values: &[i64]| narrow(values, None).map(|narrowed| (narrowed.width, narrowed.base.len()));
        assert_eq!(width(&(1000..5000).collect::<Vec<_>>()), Some((1, 16)), "ids by their steps");
        assert_eq!(width(&[7, 3, 260, 9]), Some((2, 8)));
        assert_eq!(width(&[1 << 40, (1 << 40) + (1 << 33), (1 << 40) + (1 << 34) + (1 << 20)]), Some((4, 16)));
        assert_eq!(width(&[i64::MIN, i64::MAX, 0]), None);
        assert_eq!(width(&[5]), Some((1, 8)));
        assert_eq!(width(&[]), None);
    }
}
