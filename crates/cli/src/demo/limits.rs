//! The agency's rate limits: nobody works on more than a hundred cases in an hour, and who tries passwords has to wait.

use crate::error::Result;
use muniment_engine::limits::{CountedBy, Limit};
use muniment_engine::{ChangedBy, Engine};

/// Makes the limits that are not there.
pub async fn make(engine: &Engine) -> Result<()> {
    let limit = |name: &str, endpoint: &str, counted_by, calls, seconds, block| Limit {
        name: name.to_owned(),
        endpoint: Some(endpoint.to_owned()),
        method: None,
        counted_by,
        subject: None,
        limit_threshold: calls,
        time_window_seconds: seconds,
        burst: None,
        block_minutes: block,
        on_check: true,
        on_log: true,
        on_own_api: false,
        is_active: true,
    };
    let wanted =
        [limit("case-reading", "/api/cases/*", CountedBy::User, 100, 3600, 0), limit("login", "/login", CountedBy::Address, 5, 60, 15)];
    let known = engine.rate_limits().list().await?;
    let by = ChangedBy { username: "muniment:demo".to_owned(), reason: Some("start of the demo".to_owned()), ..ChangedBy::default() };
    for limit in wanted.iter().filter(|limit| known.iter().all(|known| known.name != limit.name)) {
        engine.rate_limits().put(limit, &by).await?;
    }
    Ok(())
}
