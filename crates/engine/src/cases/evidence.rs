//! Evidence: records that an investigation rests on, pinned down by their hash and a signed checkpoint.

use super::{EVIDENCE, refused, touched};
use crate::engine::Engine;
use crate::error::Result;
use crate::evidence::leaf_hash;
use crate::fields::{self, register};
use muniment_store::Store;
use muniment_store::register::{ChangedBy, RegisterChange};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// A record that is to be evidence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// Its log.
    pub log: String,
    /// Its `id`.
    pub id: i64,
    /// What it shows.
    pub note: Option<String>,
}

/// A record's leaf hash, in hexadecimal.
pub(super) async fn pin(store: &Arc<Store>, log: &str, id: i64) -> Result<String> {
    Ok(hex::encode(leaf_hash(store, log, id).await?))
}

impl Engine {
    /// Links a record to an investigation as evidence.
    ///
    /// # Errors
    /// [`crate::EngineError::NotFound`] if there is no such investigation or record; [`crate::EngineError::UnknownLog`]; [`crate::EngineError::Refused`] if the
    /// investigation is resolved.
    pub async fn add_evidence(&self, investigation: i64, evidence: &EvidenceRequest, by: &ChangedBy) -> Result<Json> {
        self.unresolved(investigation).await?;
        let table = register(EVIDENCE)?;
        let hash = pin(self.store(), &evidence.log, evidence.id).await?;
        let (name, note) = fields::field(table, "note", &json!(evidence.note), &["note"])?;
        let values = vec![
            ("investigation_id", investigation.into()),
            ("log_name", evidence.log.as_str().into()),
            ("record_id", evidence.id.into()),
            ("blockchain_hash", hash.into()),
            ("checkpoint", self.checkpoint().into()),
            (name, note),
            ("added_by", by.user_id.into()),
        ];
        let changes = [RegisterChange::Insert { table, values }, touched(investigation)?];
        self.store().db().change_registers(&changes, by).await.map_err(refused)?;
        self.case(investigation).await
    }
}
