//! Violations that the records of `api_access_log` show: a follower that counts in event time.

use super::limit::window_key;
use super::limit::{Call, Door, LimitSet};
use super::violations::{self, Violation, actor};
use super::windows::{Count, WindowKey, Windows};
use crate::engine::Engine;
use crate::error::Result;
use crate::follow::{Consumer, Following, Outcome};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use muniment_store::StoreError;
use std::collections::BTreeMap;

const COLUMNS: &[&str] = &["user_id", "method", "endpoint", "ip_address", "user_agent", "api_key_id", "created_at"];

/// The follower.
pub(crate) fn following() -> Result<Following> {
    Ok(Following {
        name: "rate_limits",
        log: crate::ingest::log_named("api_access_log")?,
        columns: COLUMNS,
        slice: crate::follow::SLICE_RECORDS,
        by: actor(),
        consumer: Box::<Counter>::default(),
    })
}

#[derive(Default)]
struct Counter {
    windows: Windows,
}

/// A window over its limit, as far as this slice has changed it.
struct Exceeded {
    count: Count,
    closed: bool,
    /// The call that was the first beyond the limit, if it has no row yet.
    first: Option<Violation>,
}

impl Exceeded {
    /// Whether its row is to be written: at first, when the count has grown by a tenth, and when the window is closed. Each write is a change of a register, and on
    /// the record as one.
    fn is_due(&self) -> bool {
        let Count { calls, written } = self.count;
        calls > written && (written == 0 || self.closed || calls >= written + (written / 10).max(1))
    }
}

#[async_trait]
impl Consumer for Counter {
    fn restore(&mut self, state: &str) -> Result<()> {
        self.windows = match state {
            "" => Windows::default(),
            state => serde_json::from_str(state).map_err(|error| StoreError::Damaged(format!("windows of rate limits: {error}")))?,
        };
        Ok(())
    }

    async fn take(&mut self, engine: &Engine, records: &[RecordBatch]) -> Result<Outcome> {
        let limits = engine.rate_limits();
        let set = limits.set();
        let mut exceeded = BTreeMap::new();
        for batch in records {
            self.count(&set, &Columns::of(batch)?, &mut exceeded);
        }
        let mut outcome = Outcome::default();
        for (key, mut exceeded) in exceeded.into_iter().filter(|(_, exceeded)| exceeded.is_due()) {
            let calls = exceeded.count.calls;
            outcome.changes.extend(match &mut exceeded.first {
                Some(first) => {
                    first.calls = calls;
                    first.change(&limits.store).await?
                }
                None => violations::recount(&limits.store, &window_key(&key.limit, &key.subject, key.start), calls).await?,
            });
            self.windows.written(&key, calls);
        }
        outcome.state = serde_json::to_string(&self.windows).map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(outcome)
    }
}

impl Counter {
    fn count(&mut self, set: &LimitSet, columns: &Columns<'_>, exceeded: &mut BTreeMap<WindowKey, Exceeded>) {
        for row in 0..columns.times.len() {
            let call = columns.call(row);
            let time = Windows::time_of(columns.times.value(row), columns.recorded.value(row));
            for (limit, subject) in set.of(&call, Door::Log) {
                let Some((key, count)) = self.windows.count(limit, &subject, time) else { continue };
                if count.calls > limit.limit_threshold {
                    let start = key.start;
                    let first = || (count.written == 0).then(|| Violation::new(limit, &subject, start, count.calls, time, &call));
                    exceeded.entry(key).or_insert_with(|| Exceeded { count, closed: false, first: first() }).count = count;
                }
            }
            for (key, count) in self.windows.advance(time) {
                match exceeded.get_mut(&key) {
                    Some(exceeded) => exceeded.closed = true,
                    None if count.written > 0 => drop(exceeded.insert(key, Exceeded { count, closed: true, first: None })),
                    None => {}
                }
            }
        }
    }
}

/// The columns of a batch.
struct Columns<'a> {
    user_ids: &'a Int64Array,
    methods: &'a StringArray,
    endpoints: &'a StringArray,
    addresses: &'a StringArray,
    agents: &'a StringArray,
    keys: &'a StringArray,
    times: &'a TimestampMicrosecondArray,
    recorded: &'a TimestampMicrosecondArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| StoreError::Damaged(format!("{name} is missing")));
        let text = |name| -> Result<&StringArray> {
            let found = column(name)?.as_string_opt::<i32>();
            Ok(found.ok_or_else(|| StoreError::Damaged(format!("{name} is no text")))?)
        };
        let time = |name| -> Result<&TimestampMicrosecondArray> {
            let found = column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
            Ok(found.ok_or_else(|| StoreError::Damaged(format!("{name} is no time")))?)
        };
        let user_ids = column("user_id")?.as_primitive_opt::<Int64Type>();
        Ok(Self {
            user_ids: user_ids.ok_or_else(|| StoreError::Damaged("user_id is no number".to_owned()))?,
            methods: text("method")?,
            endpoints: text("endpoint")?,
            addresses: text("ip_address")?,
            agents: text("user_agent")?,
            keys: text("api_key_id")?,
            times: time("created_at")?,
            recorded: time("recorded_at")?,
        })
    }

    fn call(&self, row: usize) -> Call<'a> {
        let text = |column: &'a StringArray| column.is_valid(row).then(|| column.value(row));
        Call {
            endpoint: text(self.endpoints).unwrap_or_default(),
            method: text(self.methods),
            user_id: self.user_ids.is_valid(row).then(|| self.user_ids.value(row)),
            ip_address: text(self.addresses).and_then(|address| address.split('/').next()?.parse().ok()),
            api_key_id: text(self.keys),
            user_agent: text(self.agents),
        }
    }
}
