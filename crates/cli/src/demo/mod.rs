//! `muniment demo`: a server with an agency at work behind it, so that every log fills. Its events come in as JSON, like anyone's.

mod access;
mod agency;
mod cases;
mod events;
mod guide;
mod keys;
mod limits;
mod random;
mod staff;

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::logging;
use crate::serve::{Service, Signals};
use agency::{ATTACKS, Agency};
use bytes::Bytes;
use guide::Guide;
use muniment_engine::{Engine, EngineError, IngestRequest};
use muniment_model::Format;
use muniment_server::AccessMode;
use muniment_store::StreamSnapshot;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Events of a log that are sent together while the past is filled in.
const BODY_LINES: usize = 4_000;
/// Time between two rounds of live events.
const TICK: Duration = Duration::from_millis(200);
/// No attack lasts longer. One that is seen now has been going on for so long, so that none of its events lies in the future.
const LONGEST_ATTACK: Duration = Duration::from_secs(30 * 60);
/// Time of the first live attack, and time between two.
const FIRST_ATTACK: Duration = Duration::from_secs(30);
const ATTACK_EVERY: Duration = Duration::from_secs(150);

/// Runs the command.
pub async fn run(config: Config, options: args::Demo) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let signals = Signals::listen()?;
    let service = Service::start(&config).await?;
    let engine = service.engine.clone();
    let guide_parts = (service.url.clone(), service.key.clone());
    println!("Muniment {} shows an agency at work in {} at {}", env!("CARGO_PKG_VERSION"), config.data().display(), service.url);
    println!("Verifier key: {}", service.key);
    println!("{}", service.published());
    let (stopping, stopped) = watch::channel(false);
    let duration = options.duration;
    let stop = async move {
        match duration {
            Some(duration) => tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = signals.first() => {}
            },
            None => signals.first().await,
        }
        stopping.send_replace(true);
    };
    let work = tokio::spawn(async move { play(&engine, &config, &options, guide_parts, stopped).await });
    let served = service.run(stop);
    let (served, worked) = tokio::join!(served, work);
    served?;
    match worked {
        Ok(Err(error)) if !matches!(error, crate::error::CliError::Engine(EngineError::Stopped)) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn play(
    engine: &Arc<Engine>,
    config: &Config,
    options: &args::Demo,
    (url, key): (String, String),
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let records: u64 = engine.store().snapshot_of("sys_audit_log").values().map(StreamSnapshot::end).sum();
    let mut agency = Agency::new(options.seed.wrapping_add(records), records);
    staff::register(engine.store().db(), &agency.staff).await?;
    limits::make(engine).await?;
    if records == 0 {
        fill_in(engine, &mut agency, options.backfill, &stopped).await?;
    }
    let keys = match config.access {
        AccessMode::Keys => Some(keys::create(engine).await?),
        AccessMode::Open => None,
    };
    let guide = Guide { data: config.data(), url: &url, key: &key, keys: keys.as_ref(), tampered: agency.tampered.as_deref() };
    println!("{}", guide.text());
    println!("About {} events a second come in until you press Ctrl-C.", options.events_per_second);
    live(engine, &mut agency, options.events_per_second, &mut stopped).await
}

async fn fill_in(engine: &Arc<Engine>, agency: &mut Agency, count: u64, stopped: &watch::Receiver<bool>) -> Result<()> {
    let began = Instant::now();
    let mut past = agency.past(muniment_engine::now(), count);
    while !*stopped.borrow() && agency.fill(&mut past) {
        send(engine, agency, BODY_LINES).await?;
    }
    send(engine, agency, 1).await?;
    println!("{} events of the last {} days were stored in {:.1} s.", agency.events.total, agency::DAYS, began.elapsed().as_secs_f64());
    Ok(())
}

async fn live(engine: &Arc<Engine>, agency: &mut Agency, rate: f64, stopped: &mut watch::Receiver<bool>) -> Result<()> {
    let (began, from, start) = (Instant::now(), muniment_engine::now(), agency.events.total);
    let mut attacks = (0_u32..).zip(ATTACKS.into_iter().cycle()).peekable();
    let mut attacked = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        }
        let elapsed = began.elapsed();
        if let Some((_, attack)) = attacks.next_if(|(number, _)| elapsed >= FIRST_ATTACK + ATTACK_EVERY * *number) {
            let before = agency.events.total;
            agency.attack(attack, muniment_engine::now() - LONGEST_ATTACK.as_micros() as i64);
            attacked += agency.events.total - before;
        }
        let due = (elapsed.as_secs_f64() * rate) as u64;
        while agency.events.total - start - attacked < due {
            let share = (agency.events.total - start - attacked) as f64 / rate;
            agency.step(from + (share * 1e6) as i64);
        }
        send(engine, agency, 1).await?;
    }
}

/// Sends the bodies that have at least so many lines, and waits where the engine asks for it.
async fn send(engine: &Arc<Engine>, agency: &mut Agency, lines: usize) -> Result<()> {
    for (log, body) in agency.events.take(lines) {
        let body = Bytes::from(body);
        loop {
            let request = IngestRequest { log, body: body.clone(), format: Format::Ndjson, idempotency_key: None, position: None };
            match engine.ingest(request).await {
                Ok(_) => break,
                Err(EngineError::Busy { retry_after, .. }) => tokio::time::sleep(Duration::from_secs(retry_after.into())).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
