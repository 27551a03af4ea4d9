//! Thresholds of measurements: those of the register `metric_thresholds` are written into the records that bring none of their own when they arrive, and decide there
//! whether they are exceeded. A measurement that becomes critical is a finding (`follow`).

mod amount;
mod follow;
mod rules;
mod units;

pub use amount::Amount;
pub use rules::Threshold;

pub(crate) use follow::following;
pub(crate) use rules::Thresholds;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use muniment_model::{Table, table};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange};
use muniment_store::{Store, StoreError};
use std::sync::{Arc, Mutex, PoisonError};

/// The log that thresholds are for.
pub(crate) const LOG: &str = "system_performance_log";

/// The thresholds as they are at the moment.
#[derive(Debug, Default)]
pub(crate) struct Current(Mutex<Arc<Thresholds>>);

impl Current {
    pub(crate) fn get(&self) -> Arc<Thresholds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what the register says now.
    pub(crate) async fn refresh(&self, store: &Store, built_in: Vec<Threshold>) -> Result<()> {
        let thresholds = Thresholds::new(list(store).await?, built_in);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(thresholds);
        Ok(())
    }
}

fn register() -> Result<&'static Table> {
    table("metric_thresholds").ok_or_else(|| EngineError::NotFound("metric_thresholds".to_owned()))
}

async fn list(store: &Store) -> Result<Vec<Threshold>> {
    let rows = store.db().find_in_register(&Lookup::new(register()?, Vec::new())).await?;
    Ok(rows.iter().map(Threshold::of_row).collect())
}

impl Engine {
    /// The thresholds of the register.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn thresholds(&self) -> Result<Vec<Threshold>> {
        list(self.store()).await
    }

    /// Makes thresholds, or replaces those for the same metric, category and component. They hold for what arrives from now on.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names what is wrong with them.
    pub async fn put_threshold(&self, threshold: &Threshold, by: &ChangedBy) -> Result<Threshold> {
        threshold.validate()?;
        let (table, now) = (register()?, crate::now());
        let known = self.store().db().find_in_register(&Lookup::new(table, threshold.subject())).await?.pop();
        let mut values = threshold.values(now);
        let change = match known {
            Some(row) => RegisterChange::Update { table, id: row.id(), values, expected: Vec::new() },
            None => {
                values.extend(threshold.subject());
                values.push(("created_at", now.into()));
                RegisterChange::Insert { table, values }
            }
        };
        let ids = self.store().db().change_registers(&[change], by).await.map_err(told)?;
        self.refresh_thresholds().await?;
        Ok(Threshold { id: ids.first().copied(), ..threshold.clone() })
    }

    /// Removes thresholds. What was decided by them stays.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there are none of this number.
    pub async fn remove_threshold(&self, id: i64, by: &ChangedBy) -> Result<()> {
        let removed = self.store().db().change_registers(&[RegisterChange::Delete { table: register()?, id }], by).await;
        match removed {
            Err(StoreError::Conflict { .. }) => Err(EngineError::NotFound(format!("threshold {id}"))),
            outcome => {
                outcome?;
                self.refresh_thresholds().await
            }
        }
    }

    /// Takes over what the register says now.
    pub(crate) async fn refresh_thresholds(&self) -> Result<()> {
        let built_in = crate::measures::own_thresholds(self.limits());
        self.shared.thresholds.refresh(self.store(), built_in).await
    }
}

fn told(error: StoreError) -> EngineError {
    match error {
        StoreError::Conflict { table, reason } => EngineError::Refused(format!("{table}: {reason}")),
        error => error.into(),
    }
}
