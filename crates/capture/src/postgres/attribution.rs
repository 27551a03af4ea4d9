//! Who made a transaction: what the application said in it, else what is known of the database session, else nobody.

use crate::change::{Attribution, Context};
use std::borrow::Cow;
use std::fmt;

/// Most bytes of a message that says something about its transaction.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// A session of the audited database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(default)]
pub struct Session {
    /// Database user.
    pub user: Option<String>,
    /// `application_name`.
    pub application: Option<String>,
    /// Client address; `None` for a local socket.
    pub address: Option<String>,
}

/// What a transaction has said so far about who made it.
#[derive(Debug, Default)]
pub(super) struct Speaker {
    context: Context,
    malformed: Option<String>,
    session: Option<Session>,
    probable: Option<Session>,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or =
            |part: &Option<String>, other: &'static str| part.clone().filter(|part| !part.is_empty()).unwrap_or_else(|| other.to_owned());
        let (user, application) = (or(&self.user, "an unknown user"), or(&self.application, "an unnamed application"));
        write!(f, "{user} with {application} from {}", or(&self.address, "the same machine"))
    }
}

impl Speaker {
    /// Takes the content of a `muniment.context` message; it replaces an earlier one. Nothing, `null` and `{}` say that there is none.
    pub fn hear_context(&mut self, content: &[u8]) {
        (self.context, self.malformed) = Context::read(content);
    }

    /// Takes the content of a `muniment.session` message, which the statement trigger sends.
    pub fn hear_session(&mut self, content: &[u8]) {
        if content.len() <= MAX_MESSAGE_BYTES {
            self.session = serde_json::from_slice::<Session>(content).ok().filter(|session| session.user.is_some());
        }
    }

    /// Takes what else is known of the session.
    pub fn set_session(&mut self, session: Session) {
        self.session = Some(session);
    }

    /// Takes a guess at the session, which names nobody but helps an investigation.
    pub fn set_probable(&mut self, session: Session) {
        self.probable = Some(session);
    }

    /// The session that it may have been.
    pub fn probable(&self) -> Option<&Session> {
        self.probable.as_ref().filter(|_| self.session.is_none())
    }

    /// The session, if known.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Why the context could not be understood.
    pub fn malformed(&self) -> Option<&str> {
        self.malformed.as_deref()
    }

    /// Whether knowing the session would help: the application named nobody.
    pub fn wants_session(&self) -> bool {
        self.session.is_none() && self.malformed.is_none() && !self.context.names_somebody()
    }

    /// What a change made now records.
    pub fn attribution(&self) -> (Cow<'_, Context>, Attribution) {
        let context = &self.context;
        if context.names_somebody() {
            return (Cow::Borrowed(context), Attribution::Application);
        }
        match (&self.session, &self.malformed) {
            (Some(session), None) => {
                let context = context.clone();
                let context = Context {
                    user_name: session.user.clone(),
                    user_agent: context.user_agent.or_else(|| session.application.clone().filter(|name| !name.is_empty())),
                    ip_address: context.ip_address.or_else(|| session.address.clone()),
                    ..context
                };
                (Cow::Owned(context), Attribution::Database)
            }
            _ => (Cow::Borrowed(context), Attribution::None),
        }
    }

    /// Whether a change made now is nobody's and not a known application's either.
    pub fn is_unattributed(&self, known_applications: &[String]) -> bool {
        let known = |session: &Session| session.application.as_ref().is_some_and(|application| known_applications.contains(application));
        !self.context.names_somebody() && (self.malformed.is_some() || !self.session.as_ref().is_some_and(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(messages: &[&str], session: Option<&str>) -> (Speaker, Attribution) {
        let mut speaker = Speaker::default();
        messages.iter().for_each(|message| speaker.hear_context(message.as_bytes()));
        if let Some(session) = session {
            speaker.hear_session(session.as_bytes());
        }
        let attribution = speaker.attribution().1;
        (speaker, attribution)
    }

    #[test]
    fn contexts() {
        let session = r#"{"user":"dba","application":"psql","address":"10.0.0.1"}"#;
        let check = |messages: &[&str], session: Option<&str>, expected| assert_eq!(after(messages, session).1, expected, "{messages:?}");
        check(&[r#"{"user_id":7}"#], Some(session), Attribution::Application);
        check(&[r#"{"user_id":"7"}"#], Some(session), Attribution::Application);
        check(&[], Some(session), Attribution::Database);
        check(&[], None, Attribution::None);
        for nothing in ["", "  ", "null", "{}"] {
            check(&[nothing], Some(session), Attribution::Database);
            check(&[r#"{"user_id":7}"#, nothing], None, Attribution::None);
        }
        for malformed in ["{", r#"{"user_id":"seven"}"#, r#"{"user_id":""}"#, r#"{"user_id":7.5}"#, "[]", "7"] {
            check(&[malformed], Some(session), Attribution::None);
            check(&[malformed, r#"{"user_name":"lan"}"#], None, Attribution::Application);
        }
        let (speaker, attribution) = after(&[r#"{"change_reason":"nightly"}"#], Some(session));
        assert_eq!(attribution, Attribution::Database);
        let context = speaker.attribution().0;
        assert_eq!((context.user_name.as_deref(), context.change_reason.as_deref()), (Some("dba"), Some("nightly")));
    }

    #[test]
    fn unattributed() {
        let known = ["shop".to_owned()];
        let check = |messages: &[&str], session, expected| assert_eq!(after(messages, session).0.is_unattributed(&known), expected);
        check(&[r#"{"user_id":7}"#], None, false);
        check(&[], None, true);
        check(&[], Some(r#"{"user":"dba","application":"psql"}"#), true);
        check(&[], Some(r#"{"user":"app","application":"shop"}"#), false);
        check(&["{"], Some(r#"{"user":"app","application":"shop"}"#), true);
    }
}
