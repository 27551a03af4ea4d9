//! Trees against the text of RFC 6962, and against `tlog_tiles`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;

use muniment_ledger::{
    Frontier, Hash, Node, NodeSource, compact_range, consistency_path, inclusion_path, node_hash, root_of_nodes, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// RFC 6962 §2.1, word for word.
mod rfc {
    use super::*;

    fn split(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    pub fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest(b"").into(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                Sha256::new().chain_update([1]).chain_update(root(left)).chain_update(root(right)).finalize().into()
            }
        }
    }

    pub fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = split(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut path, sibling) = if m < k { (path(m, left), right) } else { (path(m - k, right), left) };
        path.push(root(sibling));
        path
    }

    pub fn proof(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        subproof(m, leaves, true)
    }

    fn subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let k = split(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut proof, sibling) = if m <= k { (subproof(m, left, whole), right) } else { (subproof(m - k, right, false), left) };
        proof.push(root(sibling));
        proof
    }
}

/// Serves nodes from leaves, and refuses those outside of the tree.
struct Leaves<'a>(&'a [Hash]);

impl NodeSource for Leaves<'_> {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        let (start, end) = ((index << level) as usize, ((index + 1) << level) as usize);
        assert!(end <= self.0.len(), "node {level}/{index} is not inside the tree");
        Ok(rfc::root(&self.0[start..end]))
    }
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n as u64).map(|i| Sha256::digest(i.to_be_bytes()).into()).collect()
}

fn frontier(leaves: &[Hash]) -> Frontier {
    let mut frontier = Frontier::new();
    frontier.extend(leaves);
    frontier
}

#[test]
fn roots_are_those_of_the_rfc() {
    let all = leaves(300);
    let mut appended = Frontier::new();
    for n in 0..=all.len() {
        assert_eq!(appended.root(), rfc::root(&all[..n]), "append {n}");
        assert_eq!(frontier(&all[..n]), appended, "extend {n}");
        assert_eq!(Frontier::from_bytes(&appended.to_bytes()).unwrap(), appended);
        assert_eq!(appended.nodes(), compact_range(0, &all[..n]));
        if n < all.len() {
            appended.append(all[n]);
        }
    }
}

#[test]
fn a_frontier_is_not_read_from_bytes_that_do_not_fit() {
    let bytes = frontier(&leaves(5)).to_bytes();
    assert!(Frontier::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(Frontier::from_bytes(&bytes[..bytes.len() - 32]).is_err());
    assert!(Frontier::from_bytes(&[]).is_err());
    assert!(Frontier::from_bytes(&[&u64::MAX.to_be_bytes()[..], &[0; 64 * 32]].concat()).is_err());
}

#[test]
fn paths_are_those_of_the_rfc_for_all_sizes() {
    let all = leaves(70);
    for n in 1..=all.len() {
        let (tree, size) = (&all[..n], n as u64);
        let root = rfc::root(tree);
        for m in 0..n {
            let Ok(path) = inclusion_path(m as u64, size, &Leaves(tree));
            assert_eq!(path, rfc::path(m, tree), "inclusion {m} of {n}");
            assert!(verify_inclusion(&tree[m], m as u64, size, &path, &root), "inclusion {m} of {n}");
        }
        for m in 1..=n {
            let Ok(path) = consistency_path(m as u64, size, &Leaves(tree));
            assert_eq!(path, rfc::proof(m, tree), "consistency {m} to {n}");
            let old = rfc::root(&tree[..m]);
            assert!(verify_consistency(m as u64, &old, size, &root, &path), "consistency {m} to {n}");
        }
        let empty = Frontier::new().root();
        assert!(verify_consistency(0, &empty, size, &root, &[]));
        assert!(!verify_consistency(0, &root, size, &root, &[]));
        assert!(!verify_consistency(size, &root, size - 1, &root, &[]));
        assert!(!verify_inclusion(&root, size, size, &[], &root));
    }
}

/// Every variant of a path with one bit flipped, one hash less, or one more.
fn damaged(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut variants = Vec::new();
    for bit in 0..path.len() * 256 {
        let mut variant = path.to_vec();
        variant[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
        variants.push(variant);
    }
    for i in 0..path.len() {
        let mut variant = path.to_vec();
        variant.remove(i);
        variants.push(variant);
    }
    for i in 0..=path.len() {
        let mut variant = path.to_vec();
        variant.insert(i, [0; 32]);
        variants.push(variant);
    }
    variants
}

#[test]
fn p5_every_damaged_path_is_refused() {
    let all = leaves(21);
    for n in [1, 2, 3, 8, 13, 21] {
        let (tree, size) = (&all[..n], n as u64);
        let root = rfc::root(tree);
        for m in [0, n / 2, n - 1] {
            let Ok(path) = inclusion_path(m as u64, size, &Leaves(tree));
            for variant in damaged(&path) {
                assert!(!verify_inclusion(&tree[m], m as u64, size, &variant, &root));
            }
            for other in (0..size).filter(|other| *other != m as u64) {
                assert!(!verify_inclusion(&tree[m], other, size, &path, &root), "{m} as {other} of {n}");
            }
        }
        for m in [1, n / 2 + 1, n] {
            let old = rfc::root(&tree[..m]);
            let Ok(path) = consistency_path(m as u64, size, &Leaves(tree));
            for variant in damaged(&path) {
                assert!(!verify_consistency(m as u64, &old, size, &root, &variant), "{m} to {n}");
            }
            assert!(!verify_consistency(m as u64, &[9; 32], size, &root, &path));
            assert!(!verify_consistency(m as u64, &old, size, &[9; 32], &path));
        }
    }
}

/// The hashes that `tlog_tiles` stores, by its own numbering.
struct Stored(Vec<tlog_tiles::tlog::Hash>);

impl tlog_tiles::tlog::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::tlog::Hash>, tlog_tiles::tlog::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

#[test]
fn paths_are_those_of_tlog_tiles() {
    use tlog_tiles::tlog;
    let n = 100_u64;
    let mut stored = Stored(Vec::new());
    let mut all = Vec::new();
    for i in 0..n {
        let record = i.to_be_bytes();
        all.push(muniment_ledger::leaf_hash(&record));
        let new = tlog::stored_hashes(i, &record, &stored).unwrap();
        stored.0.extend(new);
    }
    for size in 1..=n {
        let tree = &all[..size as usize];
        assert_eq!(tlog::tree_hash(size, &stored).unwrap().0, frontier(tree).root());
        for index in [0, size / 3, size - 1] {
            let theirs = tlog::prove_record(size, index, &stored).unwrap();
            let Ok(ours) = inclusion_path(index, size, &Leaves(tree));
            assert_eq!(theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours);
        }
        for old in [1, size / 2 + 1, size] {
            let theirs = tlog::prove_tree(size, old, &stored).unwrap();
            let Ok(ours) = consistency_path(old, size, &Leaves(tree));
            assert_eq!(theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours, "{old} to {size}");
        }
    }
}

#[test]
fn nodes_that_leave_a_gap_or_overlap_are_refused() {
    let all = leaves(8);
    let nodes = compact_range(0, &all[..7]);
    assert!(root_of_nodes(&nodes[1..]).is_err());
    assert!(root_of_nodes([&nodes[0], &nodes[2]]).is_err());
    assert!(root_of_nodes([&nodes[0], &nodes[0]]).is_err());
    for (level, index) in [(63, 0), (62, 1), (255, 0), (0, u64::MAX), (40, u64::MAX)] {
        assert!(Frontier::new().push(&Node { level, index, hash: [0; 32] }).is_err(), "{level}/{index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_follows_from_any_cuts(n in 0..700_usize, cuts in prop::collection::vec(0..700_usize, 0..8)) {
        let all = leaves(n);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (n + 1)).chain([0, n]).collect();
        cuts.sort_unstable();
        let mut extended = Frontier::new();
        let mut nodes = Vec::new();
        for pair in cuts.windows(2) {
            let part = &all[pair[0]..pair[1]];
            extended.extend(part);
            let range = compact_range(pair[0] as u64, part);
            let covered: u64 = range.iter().map(|node| 1 << node.level).sum();
            prop_assert_eq!(covered as usize, part.len());
            prop_assert!(range.len() <= 20);
            nodes.extend(range);
        }
        prop_assert_eq!(extended.root(), rfc::root(&all));
        prop_assert_eq!(root_of_nodes(&nodes).unwrap(), rfc::root(&all));
        prop_assert_eq!(extended, frontier(&all));
    }

    #[test]
    fn paths_of_larger_trees_verify(n in 1..1500_usize, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let all = leaves(n);
        let (index, old) = (a.index(n), b.index(n) + 1);
        let cache = Cached::new(&all);
        let Ok(path) = inclusion_path(index as u64, n as u64, &cache);
        prop_assert!(verify_inclusion(&all[index], index as u64, n as u64, &path, &frontier(&all).root()));
        let Ok(path) = consistency_path(old as u64, n as u64, &cache);
        let (old_root, root) = (frontier(&all[..old]).root(), frontier(&all).root());
        prop_assert!(verify_consistency(old as u64, &old_root, n as u64, &root, &path));
    }
}

/// Every whole node of a tree.
struct Cached(BTreeMap<(u8, u64), Hash>);

impl Cached {
    fn new(leaves: &[Hash]) -> Self {
        let mut nodes = BTreeMap::new();
        let mut row = leaves.to_vec();
        let mut level = 0;
        while !row.is_empty() {
            nodes.extend(row.iter().enumerate().map(|(i, hash)| ((level, i as u64), *hash)));
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            level += 1;
        }
        Self(nodes)
    }
}

impl NodeSource for Cached {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0[&(level, index)])
    }
}
