//! Who was recognised by an identity provider's word: sessions of the console by their cookie, programs by their token. Kept in memory: after a restart a browser
//! logs in again, which most providers answer without a question.

use crate::answer::Refusal;
use crate::routes::App;
use muniment_access::Principal;
use muniment_engine::EngineError;
use muniment_engine::identity::Claims;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Age at which a principal is looked up again, as for keys.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Most sessions and tokens remembered. Beyond it those that end first are forgotten.
const MOST: usize = 20_000;

type Name = [u8; 32];

#[derive(Clone, Debug)]
struct Session {
    claims: Claims,
    expires_at: i64,
    /// What the session is called in records; `None` for a token.
    id: Option<String>,
    principal: Arc<Principal>,
    changes: u64,
    read: Instant,
}

/// The sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    known: Mutex<HashMap<Name, Session>>,
}

fn name(secret: &str) -> Name {
    let mut name = [0; 32];
    name.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    name
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a session is called in records; its cookie can't be found from it.
    pub(crate) fn id(secret: &str) -> String {
        name(&format!("session {secret}"))[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Ends a session; `true` if there was one.
    pub(crate) fn end(&self, secret: &str) -> Option<Arc<Principal>> {
        self.lock().remove(&name(secret)).map(|session| session.principal)
    }
}

impl App {
    /// Remembers whom a cookie or token stands for, until a time, µs UTC. `None` if that user is deactivated.
    pub(crate) async fn remember(
        &self,
        secret: &str,
        id: Option<String>,
        claims: Claims,
        expires_at: i64,
        now: i64,
    ) -> Result<Option<Arc<Principal>>, EngineError> {
        let (changes, read) = (self.engine.identities().changes(), Instant::now());
        let Some(principal) = self.engine.identities().sign_in(&claims, now).await? else { return Ok(None) };
        let principal = Arc::new(Principal { session_id: id.clone(), ..principal });
        let session = Session { claims, expires_at, id, principal: principal.clone(), changes, read };
        let mut known = self.sessions.lock();
        if known.len() >= MOST {
            known.retain(|_, session| session.expires_at > now);
            if known.len() >= MOST
                && let Some(first) = known.iter().min_by_key(|(_, session)| session.expires_at).map(|(name, _)| *name)
            {
                known.remove(&first);
            }
        }
        known.insert(name(secret), session);
        Ok(Some(principal))
    }

    /// Whom a cookie or token stands for, as things are now: roles that were taken away are gone, and nobody stays who was deactivated or whose session was ended.
    pub(crate) async fn remembered(&self, secret: &str, now: i64) -> Result<Option<Arc<Principal>>, Refusal> {
        let Some(session) = self.sessions.lock().get(&name(secret)).cloned() else { return Ok(None) };
        if session.expires_at <= now {
            self.sessions.lock().remove(&name(secret));
            return Ok(None);
        }
        if session.changes == self.engine.identities().changes() && session.read.elapsed() < REMEMBERED {
            return Ok(Some(session.principal));
        }
        let ended = match &session.id {
            Some(id) => self.engine.identities().is_ended(id).await?,
            None => false,
        };
        let again = match ended {
            true => None,
            false => self.remember(secret, session.id.clone(), session.claims, session.expires_at, now).await?,
        };
        if again.is_none() {
            self.sessions.lock().remove(&name(secret));
        }
        Ok(again)
    }
}
