//! A source from what is stored of it.

use super::attach::slot_name;
use super::connection::Server;
use super::health::SlotMonitor;
use super::patterns::column_patterns;
use super::relations::ColumnRules;
use super::snapshot::{Reader, SnapshotSource};
use super::stream::{ReplicationConfig, ReplicationSource, SessionSource};
use crate::error::Result;
use crate::open::{Opened, SourceSpec, attach_options};
use crate::plan::Fallback;

/// The source of a specification, and what looks at its slot.
pub(crate) fn open(spec: &SourceSpec<'_>) -> Result<Opened> {
    let options = attach_options(spec)?;
    let slot = slot_name(spec.name);
    let mut config = ReplicationConfig::new(spec.name, spec.url, slot.clone(), slot);
    config.sessions = match options.attribution {
        Fallback::Activity => SessionSource::Activity,
        Fallback::Trigger => SessionSource::Trigger,
    };
    config.known_applications.clone_from(&options.known_applications);
    config.columns = ColumnRules { excluded: column_patterns(&options.exclude_columns)?, masked: column_patterns(&options.mask_columns)? };
    let source = ReplicationSource::new(config)?;
    let reader = Reader::new(Server::parse(spec.url)?, spec.name, source.config().columns.clone());
    let source = SnapshotSource::new(source, reader);
    Ok(Opened { source: Box::new(source), monitor: Some(Box::new(SlotMonitor::new(spec.url, spec.name)?)) })
}
