//! RFC 6962 Merkle trees: nodes, compact ranges, and the frontier of a growing tree (format §2).

use crate::sha256::{self, Block, Message};
use crate::{Error, Hash};

/// Before the two children of an inner node, RFC 6962 §2.1.
const NODE_PREFIX: u8 = 1;
/// Levels above this cannot occur: a tree has fewer than 2^63 leaves.
const MAX_LEVEL: u8 = 62;

/// A complete, aligned subtree: it covers the leaves `[index · 2^level, (index + 1) · 2^level)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Position among the nodes of its level, from 0.
    pub index: u64,
    /// The subtree's root.
    #[serde(with = "crate::hexadecimal")]
    pub hash: Hash,
}

/// The leaf hash of a meta-log leaf, `SHA-256(0x00 ‖ leaf)`; a record's is [`crate::Header::leaf_hash`].
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256::hash_one(&Message::new(&[0], leaf))
}

/// The hash of an inner node, `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256::hash_one(&node_message(left, right)[..])
}

#[inline]
fn node_message(left: &Hash, right: &Hash) -> [Block; 2] {
    let mut message = [[0; 64]; 2];
    let bytes = message.as_flattened_mut();
    bytes[0] = NODE_PREFIX;
    bytes[1..33].copy_from_slice(left);
    bytes[33..65].copy_from_slice(right);
    bytes[65] = 0x80;
    bytes[120..].copy_from_slice(&(65 * 8_u64).to_be_bytes());
    message
}

/// Appends the parents of an even number of nodes.
fn parents(children: &[Hash], out: &mut Vec<Hash>) {
    let (pairs, _) = children.as_chunks();
    let message = |i: usize| {
        let [left, right]: &[Hash; 2] = &pairs[i];
        node_message(left, right)
    };
    sha256::hash_each(pairs.len(), message, out);
}

/// The compact range of the leaves from number `first` on: the shortest list of aligned nodes, left to right, that covers just these.
pub fn compact_range(first: u64, leaves: &[Hash]) -> Vec<Node> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut current, mut above) = (Vec::new(), Vec::with_capacity(leaves.len() / 2));
    let mut row = leaves;
    let mut start = first;
    let mut level = 0;
    loop {
        if start % 2 == 1
            && let Some((hash, rest)) = row.split_first()
        {
            left.push(Node { level, index: start, hash: *hash });
            row = rest;
            start += 1;
        }
        if row.len() % 2 == 1
            && let Some((hash, rest)) = row.split_last()
        {
            right.push(Node { level, index: start + rest.len() as u64, hash: *hash });
            row = rest;
        }
        if row.is_empty() {
            break;
        }
        above.clear();
        parents(row, &mut above);
        std::mem::swap(&mut current, &mut above);
        row = &current;
        start /= 2;
        level += 1;
    }
    left.extend(right.into_iter().rev());
    left
}

/// The compact range `[0, n)` of a growing tree: all that is needed to append to it and to know its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One hash for each bit set in `size`, from the highest.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf, by its leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        self.merge(0, leaf);
    }

    /// Appends leaves, by their leaf hashes.
    pub fn extend(&mut self, leaves: &[Hash]) {
        for node in compact_range(self.size, leaves) {
            self.merge(node.level, node.hash);
        }
    }

    /// Appends all leaves of a node.
    ///
    /// # Errors
    ///
    /// [`Error::NotAdjacent`] if the node does not begin at leaf [`size`](Self::size).
    pub fn push(&mut self, node: &Node) -> Result<(), Error> {
        let Node { level, index, hash } = *node;
        let refused = Error::NotAdjacent { level, index, size: self.size };
        let fits = level <= MAX_LEVEL && index < 1 << (MAX_LEVEL - level) && index << level == self.size;
        if !fits {
            return Err(refused);
        }
        self.merge(level, hash);
        Ok(())
    }

    /// Appends a subtree of `2^level` leaves; the size is a multiple of that.
    fn merge(&mut self, level: u8, mut hash: Hash) {
        let mut bit = level;
        while self.size >> bit & 1 == 1
            && let Some(left) = self.hashes.pop()
        {
            hash = node_hash(&left, &hash);
            bit += 1;
        }
        self.hashes.push(hash);
        self.size += 1 << level;
    }

    /// The tree's root; `SHA-256("")` if it is empty.
    pub fn root(&self) -> Hash {
        let folded = self.hashes.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(|| sha256::digest(b""))
    }

    /// The nodes, left to right.
    pub fn nodes(&self) -> Vec<Node> {
        let levels = (0..64_u8).rev().filter(|level| self.size >> level & 1 == 1);
        let node = |(level, hash): (u8, &Hash)| Node { level, index: (self.size >> level) - 1, hash: *hash };
        levels.zip(&self.hashes).map(node).collect()
    }

    /// The size (u64, big-endian) and then each node's hash, left to right.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.size.to_be_bytes(), self.hashes.as_flattened()].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Frontier`] if the number of hashes does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (size, rest) = bytes.split_first_chunk().ok_or(Error::Frontier)?;
        let size = u64::from_be_bytes(*size);
        let (hashes, []) = rest.as_chunks() else { return Err(Error::Frontier) };
        if hashes.len() != size.count_ones() as usize || size >= 1 << MAX_LEVEL {
            return Err(Error::Frontier);
        }
        Ok(Self { size, hashes: hashes.to_vec() })
    }
}

/// The root of the tree that these nodes, left to right, cover from leaf 0 on.
///
/// # Errors
///
/// [`Error::NotAdjacent`] if they leave a gap or overlap.
pub fn root_of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Result<Hash, Error> {
    let mut frontier = Frontier::new();
    for node in nodes {
        frontier.push(node)?;
    }
    Ok(frontier.root())
}
