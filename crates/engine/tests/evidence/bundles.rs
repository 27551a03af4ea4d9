//! Damage to an exported bundle.

use crate::scene::{AUTH, SYS_STREAM, Scene, copy_folder, rewrite_parquet};
use muniment_engine::EngineError;
use muniment_engine::evidence::{ExportOptions, Report, VerifyOptions, export, verify_bundle};
use muniment_ledger::bundle::{Manifest, RecordFormat};
use muniment_ledger::checkpoint::{self, SigningKey};
use muniment_ledger::verify::Verdict;
use std::path::{Path, PathBuf};

struct Bundle {
    scene: Scene,
    folder: PathBuf,
}

impl Bundle {
    async fn new(record_format: RecordFormat) -> Self {
        let scene = Scene::new().await;
        let folder = scene.folder.path().join("bundle");
        export(&scene.store().await, &ExportOptions { record_format, ..ExportOptions::all(&folder) }).await.unwrap();
        Self { scene, folder }
    }

    /// Verifies a copy that was tampered with.
    fn report(&self, tamper: impl FnOnce(&Path)) -> Report {
        let copy = self.scene.folder.path().join("tampered");
        if copy.exists() {
            std::fs::remove_dir_all(&copy).unwrap();
        }
        copy_folder(&self.folder, &copy);
        tamper(&copy);
        let options =
            VerifyOptions { trusted: Some(self.scene.key.clone()), published: vec![self.scene.note.clone()], ..Default::default() };
        verify_bundle(&copy, &options).unwrap()
    }

    fn finding(&self, tamper: impl FnOnce(&Path)) -> String {
        let report = self.report(tamper);
        report.outcome.findings.first().map(ToString::to_string).unwrap_or_default()
    }

    fn with_manifest(&self, change: impl FnOnce(&mut Manifest)) -> String {
        self.finding(|folder| change_manifest(folder, change))
    }
}

fn change_manifest(folder: &Path, change: impl FnOnce(&mut Manifest)) {
    let path = folder.join("manifest.json");
    let mut manifest = Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

const FILE: &str = "streams/sys_audit_log/7y/000000000000-000000001199.parquet";
const LINES: &str = "streams/sys_audit_log/7y/000000000000-000000001199.ndjson";

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_damage_to_a_bundle_of_parquet_is_named() {
    let bundle = Bundle::new(RecordFormat::Parquet).await;
    assert!(bundle.report(|_| ()).is_valid());
    let removed = |folder: &Path| {
        rewrite_parquet(&folder.join(FILE), |batch| {
            arrow_select::concat::concat_batches(&batch.schema(), &[batch.slice(0, 9), batch.slice(10, batch.num_rows() - 10)]).unwrap()
        });
    };
    assert_eq!(bundle.finding(removed), format!("missing: {SYS_STREAM}, record 9, in {FILE}: the records are not there"));
    let without = |column: &'static str| {
        move |folder: &Path| {
            rewrite_parquet(&folder.join(FILE), |batch| {
                let keep: Vec<usize> = (0..batch.num_columns()).filter(|at| batch.schema().field(*at).name() != column).collect();
                batch.project(&keep).unwrap()
            });
        }
    };
    assert!(bundle.finding(without("salt")).ends_with("it cannot be read: there is no column salt"));
    assert_eq!(
        bundle.finding(without("changed_by")),
        format!("altered: {SYS_STREAM}, record 0, in {FILE}: the record does not fit its blockchain_hash")
    );
    let gone = bundle.finding(|folder| std::fs::remove_file(folder.join(FILE)).unwrap());
    assert_eq!(gone, format!("missing: {SYS_STREAM}, records 0 to 1199, in {FILE}: the file is not there"));
    let unlisted = bundle.finding(|folder| std::fs::write(folder.join("streams/more.parquet"), "x").unwrap());
    assert_eq!(unlisted, "altered: in streams/more.parquet: nothing lists the file");
    let empty = bundle.finding(|folder| std::fs::write(folder.join(FILE), "").unwrap());
    assert!(empty.starts_with(&format!("malformed: {SYS_STREAM}, records 0 to 1199, in {FILE}: it cannot be read")), "{empty}");
    let listed = bundle.with_manifest(|manifest| manifest.streams[1].files[0].sha256[0] ^= 1);
    assert_eq!(listed, format!("altered: {SYS_STREAM}, in {FILE}: the file does not have the listed SHA-256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_damage_to_a_bundle_of_ndjson_is_named() {
    let bundle = Bundle::new(RecordFormat::Ndjson).await;
    let altered = |index: u64| format!("altered: {SYS_STREAM}, record {index}, in {LINES}: the record does not fit its blockchain_hash");
    let change = |from: &'static str, to: &'static str| bundle.finding(move |folder| replace(&folder.join(LINES), from, to));
    assert_eq!(change("\"primary_key\":\"321\"", "\"primary_key\":\"322\""), altered(321));
    assert_eq!(
        change(
            "\"table_name\":\"case.hoso\",\"operation\":\"UPDATE\",\"primary_key\":\"9\"",
            "\"operation\":\"UPDATE\",\"primary_key\":\"9\""
        ),
        altered(9)
    );
    let malformed = |index: u64, text: &str| {
        assert!(text.starts_with(&format!("malformed: {SYS_STREAM}, record {index}, in {LINES}: it cannot be read: ")), "{text}");
    };
    malformed(7, &change("{\"id\":8,", "{\"id\":8,\"id\":8,"));
    malformed(7, &change("{\"id\":8,", "{\"id\":8.0,"));
    malformed(7, &change("{\"id\":8,", "{\"id\":8,\"x\":1,"));
    malformed(7, &change("{\"id\":8,", "[\"id\":8,"));
    malformed(7, &change("{\"id\":8,", "{\"id\":99999999999999999999,"));
    let without_line = |n: usize| {
        move |folder: &Path| {
            let text = std::fs::read_to_string(folder.join(LINES)).unwrap();
            let kept: String = text.split_inclusive('\n').enumerate().filter(|(i, _)| *i != n).map(|(_, line)| line).collect();
            std::fs::write(folder.join(LINES), kept).unwrap();
        }
    };
    assert_eq!(bundle.finding(without_line(55)), format!("missing: {SYS_STREAM}, record 55, in {LINES}: the records are not there"));
    assert_eq!(bundle.finding(without_line(1199)), format!("missing: {SYS_STREAM}, record 1199, in {LINES}: the records are not there"));
    let swapped = bundle.finding(|folder| {
        let text = std::fs::read_to_string(folder.join(LINES)).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(3, 4);
        std::fs::write(folder.join(LINES), lines.join("\n") + "\n").unwrap();
    });
    assert_eq!(swapped, format!("altered: {SYS_STREAM}, record 3, in {LINES}: record 4 stands in its place"));
    let decimal = "streams/system_performance_log/1y/000000000000-000000000039.ndjson";
    let listed = bundle.report(|_| ());
    assert!(listed.is_valid());
    if bundle.folder.join(decimal).exists() {
        let changed =
            bundle.finding(|folder| replace(&folder.join(decimal), "\"metric_value\":\"7000049\"", "\"metric_value\":\"07000049\""));
        assert!(changed.starts_with("malformed: system_performance_log/1y, record 7"), "{changed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_manifest_proves_nothing() {
    let bundle = Bundle::new(RecordFormat::Parquet).await;
    let text = bundle.with_manifest(|manifest| manifest.columns.get_mut(AUTH).unwrap()[0].name = "other".to_owned());
    assert_eq!(text, format!("altered: the columns of {AUTH} are not those of its newest schema leaf"));
    let text = bundle.with_manifest(|manifest| drop(manifest.streams.remove(1)));
    assert_eq!(text, format!("missing: {SYS_STREAM}: the stream of 1200 records is not there"));
    let text = bundle.with_manifest(|manifest| manifest.streams[1].end = 1100);
    assert!(text.starts_with(&format!("missing: {SYS_STREAM}, records 1100 to 1199")), "{text}");
    let text = bundle.with_manifest(|manifest| manifest.streams[1].size = 1300);
    assert!(text.starts_with(&format!("altered: {SYS_STREAM}")), "{text}");
    let text = bundle.with_manifest(|manifest| manifest.streams[1].files.clear());
    assert!(text.starts_with("altered: in streams/") && text.ends_with("nothing lists the file"), "{text}");
    let text = bundle.with_manifest(|manifest| manifest.origin = "somebody.example.org".to_owned());
    assert!(text.starts_with("malformed: in checkpoint"), "{text}");
    let text = bundle.finding(|folder| std::fs::write(folder.join("manifest.json"), "{}").unwrap());
    assert!(text.starts_with("malformed: in manifest.json"), "{text}");
    let gone = verify_bundle(Path::new("nowhere"), &VerifyOptions { trusted: Some(bundle.scene.key.clone()), ..Default::default() });
    assert!(matches!(gone, Err(EngineError::File { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_checkpoints_and_meta_log_of_a_bundle_are_checked() {
    let bundle = Bundle::new(RecordFormat::Parquet).await;
    let verdict = |tamper: &dyn Fn(&Path)| bundle.report(tamper).verdict();
    let genuine = checkpoint::parse_unverified(&bundle.scene.note).unwrap();
    let stranger = SigningKey::from_bytes(&genuine.origin, &[7; 32]).unwrap();
    let forged = checkpoint::sign(&genuine, &[&stranger]).unwrap();
    assert_eq!(verdict(&|folder| std::fs::write(folder.join("checkpoint"), &forged).unwrap()), Verdict::Forged);
    assert_eq!(verdict(&|folder| std::fs::remove_file(folder.join("checkpoint")).unwrap()), Verdict::Missing);
    assert_eq!(verdict(&|folder| std::fs::remove_dir_all(folder.join("checkpoints")).unwrap()), Verdict::Forged);
    assert_eq!(verdict(&|folder| std::fs::write(folder.join("checkpoints/9"), "x").unwrap()), Verdict::Malformed);
    let meta = std::fs::read(bundle.folder.join("meta.cborseq")).unwrap();
    let write = |bytes: Vec<u8>| move |folder: &Path| std::fs::write(folder.join("meta.cborseq"), &bytes).unwrap();
    for at in (0..meta.len()).step_by(37) {
        let mut changed = meta.clone();
        changed[at] ^= 1;
        assert!(!bundle.report(write(changed)).is_valid(), "byte {at}");
    }
    assert_eq!(bundle.report(write(meta[..meta.len() - 1].to_vec())).verdict(), Verdict::Malformed);
    assert_ne!(bundle.report(write(Vec::new())).verdict(), Verdict::Valid);
}
