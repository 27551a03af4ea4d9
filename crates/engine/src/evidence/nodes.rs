//! Nodes of the trees in a live store: of a stream from its files and batches, of the meta-log from its leaves.

use crate::{EngineError, Result};
use muniment_ledger::{Hash, Node, NodeSource, compact_range, leaf_hash, node_hash};
use muniment_store::parquet_file::nodes_from_bytes;
use muniment_store::{Store, StoreError, StreamSnapshot};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

/// Leaf hashes that are read at a time.
const STEP: u64 = 1 << 16;

/// A tree in the store.
pub(super) enum Tree<'a> {
    /// Of a stream.
    Stream(&'a Store, &'a str, &'a StreamSnapshot),
    /// Of the meta-log.
    Meta(&'a Store),
}

impl Tree<'_> {
    /// The compact range `[first, end)`, which must be there.
    pub(super) async fn range(&self, first: u64, end: u64) -> Result<Vec<Node>> {
        let mut nodes = Merged::default();
        let mut next = first;
        while next < end {
            if let Some(file) = self.whole_file(next, end)? {
                for node in file {
                    next = (node.index + 1) << node.level;
                    nodes.push(node);
                }
                continue;
            }
            let step = (next / STEP + 1) * STEP;
            let step = self.next_file(next).map_or(step, |file| step.min(file)).min(end);
            for node in compact_range(next, &self.leaves(next, step).await?) {
                nodes.push(node);
            }
            next = step;
        }
        Ok(nodes.0)
    }

    /// The nodes of a file that begins here and lies within.
    fn whole_file(&self, first: u64, end: u64) -> Result<Option<Vec<Node>>> {
        let Self::Stream(_, _, stream) = self else { return Ok(None) };
        let file = stream.files.iter().find(|file| file.extent.first == first && file.extent.end <= end);
        let Some(file) = file else { return Ok(None) };
        let nodes = nodes_from_bytes(&file.nodes)?;
        let covered = nodes.iter().try_fold(first, |at, node| (node.index << node.level == at).then(|| at + (1 << node.level)));
        if covered != Some(file.extent.end) {
            return Err(StoreError::Damaged(format!("the nodes of {} do not cover its records", file.path)).into());
        }
        Ok(Some(nodes))
    }

    /// Where the next file after a record begins.
    fn next_file(&self, after: u64) -> Option<u64> {
        let Self::Stream(_, _, stream) = self else { return None };
        stream.files.iter().map(|file| file.extent.first).find(|first| *first > after)
    }

    async fn leaves(&self, first: u64, end: u64) -> Result<Vec<Hash>> {
        match self {
            Self::Stream(store, name, stream) => Ok(store.hashes(name, stream, first, end).await?),
            Self::Meta(store) => {
                let leaves = store.db().meta_leaves(first, end).await?;
                if leaves.len() as u64 != end - first {
                    return Err(StoreError::Damaged(format!("leaves of the meta-log between {first} and {end} are missing")).into());
                }
                Ok(leaves.iter().map(|leaf| leaf_hash(leaf)).collect())
            }
        }
    }

    /// The inclusion path of a leaf in the tree of this size.
    pub(super) async fn inclusion_path(&self, index: u64, size: u64) -> Result<Vec<Hash>> {
        let wanted = Wanted::default();
        let Ok(_) = muniment_ledger::inclusion_path(index, size, &wanted);
        let mut nodes = Found::default();
        for (level, at) in wanted.0.into_inner() {
            let range = self.range(at << level, (at + 1) << level).await?;
            let [node] = range[..] else {
                return Err(StoreError::Damaged(format!("the node of level {level} and index {at} is not whole")).into());
            };
            nodes.0.insert((level, at), node.hash);
        }
        muniment_ledger::inclusion_path(index, size, &nodes)
    }
}

/// Adjacent nodes, merged where two are the children of one.
#[derive(Default)]
struct Merged(Vec<Node>);

impl Merged {
    fn push(&mut self, mut node: Node) {
        while let Some(left) = self.0.last().filter(|left| left.level == node.level && left.index % 2 == 0 && left.index + 1 == node.index)
        {
            node = Node { level: node.level + 1, index: node.index / 2, hash: node_hash(&left.hash, &node.hash) };
            self.0.pop();
        }
        self.0.push(node);
    }
}

/// Notes which nodes a path takes.
#[derive(Default)]
struct Wanted(RefCell<Vec<(u8, u64)>>);

impl NodeSource for Wanted {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        self.0.borrow_mut().push((level, index));
        Ok(muniment_ledger::NO_HASH)
    }
}

#[derive(Default)]
struct Found(BTreeMap<(u8, u64), Hash>);

impl NodeSource for Found {
    type Error = EngineError;

    fn node(&self, level: u8, index: u64) -> Result<Hash> {
        let missing = || StoreError::Damaged(format!("the node of level {level} and index {index} is not there")).into();
        self.0.get(&(level, index)).copied().ok_or_else(missing)
    }
}

/// An error and its sources in one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
