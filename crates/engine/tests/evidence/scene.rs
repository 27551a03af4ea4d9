//! A store with records of three logs in files and hot batches, and ways to tamper with copies of it.

use arrow_array::RecordBatch;
use bytes::Bytes;
use muniment_engine::evidence::{Report, VerifyOptions, verify_store};
use muniment_engine::{Engine, EngineConfig, IngestRequest};
use muniment_ledger::checkpoint::VerifierKey;
use muniment_model::Format;
use muniment_store::parquet_file::{Lifetime, hash_file, writer_properties};
use muniment_store::{Mode, Store};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Row};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

pub const SYS: &str = "sys_audit_log";
pub const AUTH: &str = "auth_audit_log";
pub const PERFORMANCE: &str = "system_performance_log";
pub const SYS_STREAM: &str = "sys_audit_log/7y";
/// Records of the stream [`SYS_STREAM`] in its one file, and in hot batches of [`STEP`].
pub const IN_FILE: u64 = 1000;
pub const HOT: u64 = 200;
pub const STEP: u64 = 100;

pub fn event(log: &str, n: u64) -> String {
    match log {
        SYS => format!(
            r#"{{"table_name":"case.hoso","operation":"UPDATE","primary_key":"{n}","old_values":{{"n":{n},"s":"đã nộp"}},"new_values":{{"n":{}}},"changed_by":{}}}"#,
            n + 1,
            n % 7
        ),
        AUTH => format!(r#"{{"event_type":"LOGIN","user_id":{},"ip_address":"10.0.0.{}"}}"#, n % 90, n % 250),
        _ => format!(r#"{{"metric_name":"latency","metric_category":"API","metric_value":{n}.{:06},"metric_unit":"ms"}}"#, n * 7),
    }
}

pub async fn send(engine: &Arc<Engine>, log: &str, records: std::ops::Range<u64>) {
    let body: String = records.map(|n| event(log, n) + "\n").collect();
    let body = Bytes::from(body);
    engine.ingest(IngestRequest { log, body, format: Format::Ndjson, idempotency_key: None, position: None }).await.unwrap();
}

/// A closed store, its trusted key, and a folder for copies.
pub struct Scene {
    pub folder: TempDir,
    pub key: VerifierKey,
    pub note: String,
    pub early_note: String,
}

impl Scene {
    /// Ten commits into files, a rotation of the key, two commits that stay hot.
    pub async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        let key = engine.store().db().landmarks("key").await.unwrap()[0].1.parse().unwrap();
        for first in (0..IN_FILE).step_by(STEP as usize) {
            send(&engine, SYS, first..first + STEP).await;
            send(&engine, AUTH, first..first + 30).await;
        }
        engine.flush_all().await.unwrap();
        let early_note = engine.checkpoint();
        engine.rotate_key().await.unwrap();
        send(&engine, SYS, IN_FILE..IN_FILE + STEP).await;
        send(&engine, PERFORMANCE, 0..40).await;
        send(&engine, SYS, IN_FILE + STEP..IN_FILE + HOT).await;
        engine.shutdown().await.unwrap();
        let note = engine.checkpoint();
        drop(engine);
        Self { folder, key, note, early_note }
    }

    /// A copy of the data folder to tamper with. The database is copied by itself: its connections may still be closing.
    pub async fn copy(&self, name: &str) -> Copy {
        let (data, to) = (self.folder.path().join("data"), self.folder.path().join(name));
        copy_folder(&data.join("objects"), &to.join("objects"));
        let options = SqliteConnectOptions::new().filename(data.join("muniment.db"));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let target = to.join("muniment.db").to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO $1").bind(target).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Copy { folder: to, key: self.key.clone(), published: vec![self.note.clone()] }
    }

    pub async fn store(&self) -> Arc<Store> {
        Store::open(&self.folder.path().join("data"), Mode::Read).await.unwrap().0
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A data folder that is tampered with.
pub struct Copy {
    pub folder: PathBuf,
    pub key: VerifierKey,
    pub published: Vec<String>,
}

impl Copy {
    pub async fn verify(&self) -> Report {
        let store = Store::open(&self.folder, Mode::Read).await.unwrap().0;
        let options =
            VerifyOptions { trusted: Some(self.key.clone()), published: self.published.clone(), threads: 2, ..Default::default() };
        verify_store(&store, options).await.unwrap()
    }

    /// The findings as text.
    pub async fn findings(&self) -> Vec<String> {
        let report = self.verify().await;
        assert_eq!(report.exit_code(), u8::from(!report.is_valid()));
        report.outcome.findings.iter().map(ToString::to_string).collect()
    }

    pub async fn sql(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.join("muniment.db")).foreign_keys(false);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    pub async fn execute(&self, sql: &'static str) -> u64 {
        let mut connection = self.sql().await;
        let done = sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected();
        connection.close().await.unwrap();
        done
    }

    /// The one file of [`SYS_STREAM`]: its path in the catalog and on disk.
    pub async fn file(&self) -> (String, PathBuf) {
        let mut connection = self.sql().await;
        let row = sqlx::query("SELECT path FROM file WHERE stream = $1").bind(SYS_STREAM).fetch_one(&mut connection).await.unwrap();
        let path: String = row.get(0);
        connection.close().await.unwrap();
        let place = self.folder.join("objects").join(&path);
        (path, place)
    }

    /// Rewrites the file with valid checksums, and makes the catalog say so, too.
    pub async fn rewrite(&self, change: impl FnOnce(RecordBatch) -> RecordBatch) -> String {
        let (path, place) = self.file().await;
        rewrite_parquet(&place, change);
        let (sha256, bytes) = hash_file(&place).unwrap();
        let mut connection = self.sql().await;
        let update = sqlx::query("UPDATE file SET sha256 = $1, bytes = $2 WHERE path = $3");
        update.bind(&sha256[..]).bind(bytes as i64).bind(&path).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        path
    }
}

pub fn read_parquet(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap()
}

pub fn rewrite_parquet(path: &Path, change: impl FnOnce(RecordBatch) -> RecordBatch) {
    let changed = change(read_parquet(path));
    let table = muniment_model::table(SYS).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, changed.schema(), Some(writer_properties(table, Lifetime::Lasting))).unwrap();
    writer.write(&changed).unwrap();
    writer.close().unwrap();
}
