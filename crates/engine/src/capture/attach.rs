//! Attaching and detaching through the engine: the database's side by `muniment_capture`, the list of sources, and the record of both acts.

use super::batch::FINDINGS;
use super::registers::REGISTERS_SOURCE;
use super::runner::Running;
use super::{SourceStatus, position_name};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{IngestRequest, SourcePosition};
use muniment_capture::open::{self, SourceSpec};
use muniment_capture::plan::{AttachOptions, Baseline, Plan};
use muniment_capture::remainder::Remainder;
use muniment_model::Format;
use muniment_store::db::CaptureSourceRow;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const ATTACHING: &str = "attaching";
pub(super) const ATTACHED: &str = "attached";
pub(super) const DETACHING: &str = "detaching";
/// Most bytes of a source's URL.
const URL_BYTES: usize = 4096;
/// How long what a source still has may take when it is detached, and how often is looked.
const READ_REMAINDER: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub use muniment_capture::open::Mode;

/// What is to be attached.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Where the database is, with the password.
    pub url: String,
    /// The way in.
    #[serde(default)]
    pub mode: Mode,
    /// Tables and the rest.
    #[serde(default)]
    pub options: AttachOptions,
}

impl std::fmt::Debug for AttachRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachRequest").field("place", &without_password(&self.url)).field("options", &self.options).finish_non_exhaustive()
    }
}

/// Who attaches or detaches.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Name, such as that of the operating system's user.
    pub name: Option<String>,
    /// Address that the request came from.
    pub address: Option<IpAddr>,
}

/// What becomes of what a source has that is detached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
    /// It is read first.
    #[default]
    Complete,
    /// What is not read yet is lost.
    Discard,
    /// The same, and the database stays as it is, for one that is gone.
    Forget,
}

impl Farewell {
    /// What somebody wishes who may say both.
    pub fn of(forget: bool, discard: bool) -> Self {
        match (forget, discard) {
            (true, _) => Self::Forget,
            (false, true) => Self::Discard,
            (false, false) => Self::Complete,
        }
    }
}

/// What attaching or detaching did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// What was found and done.
    pub plan: Plan,
    /// The source now; `None` if it is detached, or nothing was done yet.
    pub source: Option<SourceStatus>,
}

/// A URL as it may be shown: without the password, and without parameters, which might hold one.
pub fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    if url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".to_owned() };
    let shown = match rest.rsplit_once('@') {
        Some((user, place)) => format!("{}@{place}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    format!("{scheme}://{shown}")
}

impl Engine {
    /// Says what attaching would do, and does nothing.
    ///
    /// # Errors
    /// If the database can't be asked, or the request is not valid.
    pub async fn plan_attach(&self, request: &AttachRequest) -> Result<Plan> {
        if request.url.len() > URL_BYTES {
            return Err(EngineError::Parameter { name: "url", reason: format!("it has more than {URL_BYTES} bytes") });
        }
        let name = open::source_name(&request.url, request.mode, &request.options)?;
        if name == REGISTERS_SOURCE {
            let reason = format!("{name} is the source of Muniment's own registers; choose another with --name");
            return Err(EngineError::Parameter { name: "name", reason });
        }
        let known = self.source_row(&name).await?;
        Ok(open::plan_attach(&request.url, request.mode, &request.options, known.is_some()).await?)
    }

    /// Attaches tables of a database, or further ones of a database that is attached already, and starts to capture them if this engine captures.
    ///
    /// # Errors
    /// If something is in the way; then nothing is left behind.
    pub async fn attach(self: &Arc<Self>, request: AttachRequest, actor: &Actor) -> Result<Attachment> {
        let _changing = self.captures().changing.lock().await;
        let plan = self.plan_attach(&request).await?;
        plan.permitted()?;
        let known = self.source_row(&plan.name).await?;
        let kind = open::kind(&request.url, request.mode)?;
        if let Some(known) = &known
            && known.kind != kind
        {
            let reason = format!("{} is attached in another way ({}); detach it first", plan.name, known.kind);
            return Err(EngineError::Parameter { name: "mode", reason });
        }
        if let Some(known) = known.as_ref().filter(|row| row.state != ATTACHING && !plan.is_registered)
            && without_password(&known.url) != without_password(&request.url)
        {
            let place = without_password(&known.url);
            let reason = format!(
                "{} is {place}, and this database knows nothing of it: choose another with --name, or detach that first",
                plan.name
            );
            return Err(EngineError::Parameter { name: "name", reason });
        }
        let fresh = known.as_ref().is_none_or(|row| row.state == ATTACHING);
        let before = known.as_ref().map(options_of).transpose()?;
        let options = merged(before, &request.options, &plan.name);
        let mut row = CaptureSourceRow {
            name: plan.name.clone(),
            kind: kind.to_owned(),
            url: request.url.clone(),
            options: to_json(&options)?,
            attached_at: crate::now(),
            state: ATTACHING.to_owned(),
        };
        if fresh {
            self.store().db().put_capture_source(&row).await?;
        }
        if let Err(error) = open::apply_attach(&request.url, request.mode, &plan, fresh).await {
            if fresh {
                self.store().db().remove_capture_source(&row.name).await?;
            }
            return Err(error.into());
        }
        self.stop_source(&row.name).await;
        if fresh && options.snapshot == Baseline::Initial && kind != open::POSTGRES_QUEUE {
            self.end_former_rows(&plan).await?;
        }
        row.state = ATTACHED.to_owned();
        self.record("CAPTURE_ATTACHED", &row, &options.tables, actor, fresh).await?;
        self.store().db().put_capture_source(&row).await?;
        self.start_source(&row);
        let source = self.sources().await?.into_iter().find(|source| source.name == row.name);
        Ok(Attachment { plan, source })
    }

    /// Says what detaching a source would do, and does nothing.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such source; or if the database can't be asked.
    pub async fn plan_detach(&self, name: &str) -> Result<Plan> {
        let row = self.source_row(name).await?.ok_or_else(|| EngineError::NotFound(format!("source {name}")))?;
        Ok(open::plan_detach(&spec(&row)).await?)
    }

    /// Detaches a source: what it still has to hand out is stored, and what was set up in its database is removed.
    ///
    /// # Errors
    /// If the database refuses, or what it has can't be read in time; then detaching can be repeated.
    pub async fn detach(self: &Arc<Self>, name: &str, farewell: Farewell, actor: &Actor) -> Result<Attachment> {
        let _changing = self.captures().changing.lock().await;
        let mut row = self.source_row(name).await?.ok_or_else(|| EngineError::NotFound(format!("source {name}")))?;
        let is_left = farewell == Farewell::Forget;
        let mut plan = if is_left { Plan::new(name) } else { open::plan_detach(&spec(&row)).await? };
        if farewell == Farewell::Discard {
            plan.overrule();
        }
        plan.permitted()?;
        row.state = DETACHING.to_owned();
        self.store().db().put_capture_source(&row).await?;
        if !is_left {
            open::end(&spec(&row), &plan).await?;
        }
        if farewell == Farewell::Complete {
            self.read_remainder(&row).await?;
        }
        self.stop_source(name).await;
        if !is_left {
            open::apply_detach(&spec(&row), &plan).await?;
        }
        self.record("CAPTURE_DETACHED", &row, &options_of(&row)?.tables, actor, true).await?;
        self.store().db().remove_capture_source(name).await?;
        Ok(Attachment { plan, source: None })
    }

    /// Rows of a source that was attached before under this name end before the new baseline has them: what happened meanwhile is not known.
    async fn end_former_rows(self: &Arc<Self>, plan: &Plan) -> Result<()> {
        if self.store().db().position(&position_name(&plan.name)).await?.is_none() || plan.tables.is_empty() {
            return Ok(());
        }
        let now = crate::now();
        // The transaction is before all others, so that reconciling counts it whatever instant it compares.
        let line = |(number, table): (usize, &String)| {
            serde_json::json!({
                "table_name": table, "operation": "TRUNCATE", "primary_key": "*", "changed_at": now, "attribution": "NONE",
                "change_details": "attached again: a new baseline tells what is there",
                "transaction_id": format!("{}:0@0/0", plan.name), "source_position": format!("{}:0.{now}.{number}", plan.name),
            })
            .to_string()
        };
        let body = plan.tables.iter().enumerate().map(line).collect::<Vec<_>>().join("\n").into();
        let request = IngestRequest { log: super::batch::CHANGES, body, format: Format::Ndjson, idempotency_key: None, position: None };
        self.ingest(request).await.map(drop)
    }

    /// Waits until what a source has is stored; in a task of its own if this engine doesn't capture.
    async fn read_remainder(self: &Arc<Self>, row: &CaptureSourceRow) -> Result<()> {
        let Some(mut remainder) = Remainder::of(&spec(row)).await? else { return Ok(()) };
        let own = (!self.captures().has(&row.name)).then(|| Running::start(self, row.clone()));
        let outcome = self.wait_for(&mut remainder, row).await;
        if let Some(own) = own {
            own.stop().await;
        }
        outcome
    }

    async fn wait_for(&self, remainder: &mut Remainder, row: &CaptureSourceRow) -> Result<()> {
        let began = Instant::now();
        loop {
            let position = self.store().db().position(&position_name(&row.name)).await?.unwrap_or_default();
            if remainder.is_stored(&position).await? {
                return Ok(());
            }
            if began.elapsed() > READ_REMAINDER {
                let seconds = READ_REMAINDER.as_secs();
                let reason = format!("what {} still has could not be read within {seconds} s: detach again, or discard it", row.name);
                return Err(EngineError::Refused(reason));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn source_row(&self, name: &str) -> Result<Option<CaptureSourceRow>> {
        if name == REGISTERS_SOURCE {
            let reason = format!("{name} is Muniment's own registers: they are always captured, and can't be detached or compared");
            return Err(EngineError::Parameter { name: "name", reason });
        }
        Ok(self.store().db().capture_sources().await?.into_iter().find(|row| row.name == name))
    }

    /// Puts the act on the record. `begins` sets the source's position back to the beginning in the same commit: another attachment is another slot.
    async fn record(self: &Arc<Self>, act: &str, row: &CaptureSourceRow, tables: &[String], actor: &Actor, begins: bool) -> Result<()> {
        let address = actor.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let shown = format!("{} {}: {}", row.name, without_password(&row.url), tables.join(", "));
        let line = serde_json::json!({
            "event_type": act, "event_category": "SYSTEM", "severity": 1, "username": actor.name, "ip_address": address,
            "user_agent": concat!("muniment/", env!("CARGO_PKG_VERSION")), "resource_accessed": shown.chars().take(500).collect::<String>(),
        });
        let position = begins.then(|| SourcePosition { source: position_name(&row.name), value: String::new(), after: None });
        let body = line.to_string().into();
        self.ingest(IngestRequest { log: FINDINGS, body, format: Format::Json, idempotency_key: None, position }).await?;
        Ok(())
    }
}

fn spec(row: &CaptureSourceRow) -> SourceSpec<'_> {
    SourceSpec { name: &row.name, kind: &row.kind, url: &row.url, options: &row.options }
}

fn options_of(row: &CaptureSourceRow) -> Result<AttachOptions> {
    serde_json::from_str(&row.options)
        .map_err(|error| muniment_store::StoreError::Damaged(format!("the options of source {} can't be read: {error}", row.name)).into())
}

fn to_json(options: &AttachOptions) -> Result<String> {
    serde_json::to_string(options).map_err(|error| EngineError::Parameter { name: "options", reason: error.to_string() })
}

/// What a source has after further tables were attached: lists grow, the rest is as asked for last.
fn merged(before: Option<AttachOptions>, asked: &AttachOptions, name: &str) -> AttachOptions {
    let mut options = asked.clone();
    options.name = Some(name.to_owned());
    let Some(before) = before else { return options };
    let join = |mut first: Vec<String>, then: &[String]| {
        first.extend(then.iter().filter(|text| !first.contains(text)).cloned().collect::<Vec<_>>());
        first
    };
    options.tables = join(before.tables, &asked.tables);
    options.exclude_columns = join(before.exclude_columns, &asked.exclude_columns);
    options.mask_columns = join(before.mask_columns, &asked.mask_columns);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let check = |url: &str, shown: &str| assert_eq!(without_password(url), shown);
        check("postgres://u:secret@h:5432/d", "postgres://u@h:5432/d");
        check("postgres://u:sec@ret@h/d", "postgres://u@h/d");
        check("postgres://h/d?password=secret", "postgres://h/d");
        check("postgres:///d?host=/run", "postgres:///d");
        check("sqlite:///var/app.db", "sqlite:///var/app.db");
        check("secret", "(not a URL)");
    }
}
