//! How the files of a scan are shared out. Partitions take slices from one queue, so that all cores have work until the end, also when all records that match lie
//! close to each other: the records of a month are a few row groups of one file.

use crate::db::FileRow;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use std::sync::Arc;

/// Slices that every partition gets, if they are not too small.
const SLICES: u64 = 8;
/// Bytes of a slice at least: two row groups or so. Opening a slice under a condition costs as much as aggregating ten thousand records.
const SLICE_BYTES: u64 = 8 << 20;

/// The files in order, cut into slices. A row group belongs to the slice in which it begins.
pub(super) fn groups(files: &[Arc<FileRow>], partitions: usize) -> Vec<FileGroup> {
    let partitions = partitions.max(1) as u64;
    let all: u64 = files.iter().map(|file| file.bytes).sum();
    let size = if partitions == 1 { u64::MAX } else { (all / (partitions * SLICES)).max(SLICE_BYTES) };
    let mut groups = vec![FileGroup::default(); partitions as usize];
    let mut before = 0;
    for file in files {
        let count = file.bytes.div_ceil(size).max(1);
        for at in 0..count {
            let (from, to) = (file.bytes * at / count, file.bytes * (at + 1) / count);
            let slice = PartitionedFile::new(file.path.clone(), file.bytes);
            let slice = if count == 1 { slice } else { slice.with_range(from as i64, to as i64) };
            groups[((before + from) * partitions / all.max(1)).min(partitions - 1) as usize].push(slice);
        }
        before += file.bytes;
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Extent;
    use std::collections::BTreeMap;

    fn file(path: &str, bytes: u64) -> Arc<FileRow> {
        let extent = Extent {
            stream: "log/7y".to_owned(),
            first: 0,
            end: 1,
            first_id: 1,
            last_id: 1,
            recorded_from: 0,
            recorded_to: 0,
            min_time: 0,
            max_time: 0,
        };
        let (month, sha256, previous_hash) = ("2026-01".to_owned(), [0; 32], [0; 32]);
        Arc::new(FileRow { path: path.to_owned(), extent, month, bytes, sha256, previous_hash, nodes: Vec::new() })
    }

    #[test]
    fn slices_tile_every_file() {
        let mib = 1 << 20;
        for sizes in [vec![1], vec![1000, 300], vec![300 * mib], vec![340 * mib, 350 * mib, 3 * mib, 270 * mib + 7], vec![mib; 300]] {
            let files: Vec<_> = sizes.iter().enumerate().map(|(at, bytes)| file(&format!("f{at}"), *bytes)).collect();
            for partitions in [0, 1, 2, 3, 64] {
                let groups = groups(&files, partitions);
                assert!((1..=partitions.max(1)).contains(&groups.len()));
                assert!(groups.iter().all(|group| !group.is_empty()));
                let mut ends: BTreeMap<String, u64> = BTreeMap::new();
                for slice in groups.iter().flat_map(FileGroup::iter) {
                    let (from, to) = slice.range();
                    let end = ends.entry(slice.object_meta.location.to_string()).or_default();
                    assert_eq!(*end, from, "{sizes:?} {partitions}");
                    assert!(to > from);
                    *end = to;
                }
                let expected: BTreeMap<_, _> = files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
                assert_eq!(ends, expected);
            }
        }
    }
}
