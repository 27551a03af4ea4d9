//! How fast a file of NDJSON change events becomes durable, hashed and queryable: `ingest_rate FILE DATA-FOLDER`.

use muniment_engine::{Engine, EngineConfig, FileIngest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(data)) = (arguments.next(), arguments.next()) else { return Err("usage: ingest_rate FILE DATA-FOLDER".into()) };
    let engine = Engine::open(EngineConfig::new(data)).await?;
    let began = std::time::Instant::now();
    let source = FileIngest { log: "sys_audit_log", source: Some(file.clone()), reader: Box::new(std::fs::File::open(&file)?) };
    let progress = engine.ingest_source(source, |_| {}).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{} records in {seconds:.2} s: {:.0} records/s", progress.records, progress.records as f64 / seconds);
    engine.shutdown().await?;
    let began = std::time::Instant::now();
    if arguments.next().as_deref() == Some("flush") {
        engine.flush_all().await?;
        println!("to Parquet in {:.2} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}
