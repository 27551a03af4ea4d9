//! Inclusion and consistency paths (RFC 6962 §2.1.1 and §2.1.2) and their verification (RFC 9162 §2.1.3.2 and §2.1.4.2).

use crate::Hash;
use crate::tree::node_hash;

/// Where paths get the nodes of a tree from.
pub trait NodeSource {
    /// Why a node could not be had.
    type Error;

    /// The hash of a node that lies inside the tree: `[index · 2^level, (index + 1) · 2^level)`.
    ///
    /// # Errors
    ///
    /// What the source says; it ends the making of the path.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The path that shows leaf `index` to be in the tree of `size` leaves, from the leaf up. Empty if `index` is not below `size`.
///
/// # Errors
///
/// The first one of the source.
pub fn inclusion_path<S: NodeSource>(index: u64, size: u64, source: &S) -> Result<Vec<Hash>, S::Error> {
    let mut path = Vec::new();
    if index >= size {
        return Ok(path);
    }
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(subtree(middle, high, source)?);
            high = middle;
        } else {
            path.push(subtree(low, middle, source)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The path that shows the tree of `new` leaves to begin with the tree of `old` leaves. Empty if `old` is 0 or not below `new`.
///
/// # Errors
///
/// The first one of the source.
pub fn consistency_path<S: NodeSource>(old: u64, new: u64, source: &S) -> Result<Vec<Hash>, S::Error> {
    let mut path = Vec::new();
    if old == 0 || old >= new {
        return Ok(path);
    }
    let (mut low, mut high) = (0, new);
    while high != old {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(subtree(middle, high, source)?);
            high = middle;
        } else {
            path.push(subtree(low, middle, source)?);
            low = middle;
        }
    }
    if low > 0 {
        path.push(subtree(low, high, source)?);
    }
    path.reverse();
    Ok(path)
}

/// The largest power of two smaller than `n`, for `n ≥ 2`.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The root of the leaves `[low, high)`, where `low` is a multiple of the power of two at or above `high - low`.
fn subtree<S: NodeSource>(low: u64, high: u64, source: &S) -> Result<Hash, S::Error> {
    let mut end = high;
    let mut root = None;
    while end > low {
        let level = (end - low).trailing_zeros() as u8;
        let start = end - (1 << level);
        let hash = source.node(level, start >> level)?;
        root = Some(root.map_or(hash, |right| node_hash(&hash, &right)));
        end = start;
    }
    Ok(root.unwrap_or(crate::NO_HASH))
}

/// Whether `path` shows that the leaf with hash `leaf` is number `index` of the tree with this size and root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            let up = node.trailing_zeros();
            node >>= up;
            last >>= up;
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` shows that the tree of `new_size` leaves and root `new_root` begins with the tree of `old_size` leaves and root `old_root`.
pub fn verify_consistency(old_size: u64, old_root: &Hash, new_size: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return path.is_empty() && *old_root == crate::Frontier::new().root();
    }
    if old_size > new_size {
        return false;
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    let whole = node.trailing_ones();
    node >>= whole;
    last >>= whole;
    let (mut old, rest) = match path.split_first() {
        _ if old_size.is_power_of_two() => (*old_root, path),
        Some((first, rest)) => (*first, rest),
        None => return false,
    };
    let mut new = old;
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            let up = node.trailing_zeros();
            node >>= up;
            last >>= up;
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *new_root
}
