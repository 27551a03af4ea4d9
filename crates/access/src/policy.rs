//! The policy: Cedar decides, and what it decided is remembered.

use crate::area::{AREAS, area};
use crate::{Action, Masking, Principal, Role, View, Views};
use cedar_policy::{
    Authorizer, Context, Decision as Verdict, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy as Rule, PolicySet, Request,
    RestrictedExpression,
};
use muniment_model::Table;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// The policies, in the order in which they are read.
const SOURCES: [&str; 2] = [include_str!("../policies/roles.cedar"), include_str!("../policies/scope.cedar")];

/// `compliance_level` of confidential records.
const CONFIDENTIAL: u8 = 3;

/// Why the policies can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the access policy can't be used: {what}")]
pub struct PolicyError {
    what: &'static str,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

fn failed<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> PolicyError {
    move |source| PolicyError { what, source: Box::new(source) }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why: the policies that permit or forbid it, or that none permits it.
    pub reason: Arc<str>,
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    roles: u8,
    action: Action,
    table: Option<&'static str>,
    level: u8,
    in_scope: bool,
}

/// Decides for every door.
#[derive(Debug)]
pub struct Policy {
    rules: PolicySet,
    /// Tables, areas and the service; a caller is added for each question that is new.
    world: Entities,
    known: RwLock<HashMap<Question, Decision>>,
    masking: Masking,
}

impl Policy {
    /// Reads the policies that are part of the program.
    ///
    /// # Errors
    /// If they are not valid Cedar, which a test excludes.
    pub fn load() -> Result<Self, PolicyError> {
        Ok(Self { rules: rules()?, world: world()?, known: RwLock::default(), masking: Masking::default() })
    }

    /// The same with masks by configuration.
    #[must_use]
    pub fn masking(self, masking: Masking) -> Self {
        Self { masking, ..self }
    }

    /// Whether somebody may do something to a table (`None`: not about one, or about any), to records of this `compliance_level` (`None`: of any
    /// below 3). Whatever goes wrong is a refusal.
    pub fn decide(&self, principal: &Principal, action: Action, table: Option<&str>, level: Option<u8>) -> Decision {
        let roles = principal.roles.iter().fold(0, |bits, role| bits | 1 << *role as u8);
        let level = level.unwrap_or_default();
        let in_scope = principal.scope.admits(action, table);
        // Only names of the model are remembered: others come from outside, and there is no end to them.
        let remembered = table.map(|name| muniment_model::table(name).map(|table| table.name));
        let question = match remembered {
            Some(None) => return self.evaluate(&principal.roles, action, table, level, in_scope),
            known => Question { roles, action, table: known.flatten(), level, in_scope },
        };
        if let Some(decision) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&question) {
            return decision.clone();
        }
        let decision = self.evaluate(&principal.roles, action, table, level, in_scope);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(question, decision.clone());
        decision
    }

    /// What somebody sees of a table.
    pub fn view(&self, principal: &Principal, table: &Table) -> View {
        let may = |action, level| self.decide(principal, action, Some(table.name), level).allowed;
        if !may(Action::Read, None) {
            return View::Forbidden;
        }
        let clear = (may(Action::ReadUnmasked, None), may(Action::ReadUnmasked, Some(CONFIDENTIAL)));
        View::configured(table, clear, &self.masking)
    }

    /// What somebody sees of all tables.
    pub fn views(&self, principal: &Principal) -> Views {
        Views::new(|table| self.view(principal, table))
    }

    fn evaluate(&self, roles: &BTreeSet<Role>, action: Action, table: Option<&str>, level: u8, in_scope: bool) -> Decision {
        self.ask(roles, action, table, level, in_scope).unwrap_or_else(|error| {
            let reason = match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            Decision { allowed: false, reason: reason.into() }
        })
    }

    fn ask(&self, roles: &BTreeSet<Role>, action: Action, table: Option<&str>, level: u8, in_scope: bool) -> Result<Decision, PolicyError> {
        let caller = uid("Caller", "caller")?;
        let parents = roles.iter().map(|role| uid("Role", role.name())).collect::<Result<HashSet<_>, _>>()?;
        let mut added = vec![Entity::new_no_attrs(caller.clone(), parents)];
        let resource = match table {
            Some(name) => uid("Table", name)?,
            None => uid("Service", "muniment")?,
        };
        if self.world.get(&resource).is_none() {
            added.push(Entity::new_no_attrs(resource.clone(), HashSet::new()));
        }
        let world = self.world.clone().add_entities(added, None).map_err(failed("the caller"))?;
        let context = Context::from_pairs([
            ("level".to_owned(), RestrictedExpression::new_long(level.into())),
            ("in_scope".to_owned(), RestrictedExpression::new_bool(in_scope)),
        ]);
        let context = context.map_err(failed("the context"))?;
        let request = Request::new(caller, uid("Action", action.name())?, resource, context, None).map_err(failed("the question"))?;
        let answer = Authorizer::new().is_authorized(&request, &self.rules, &world);
        let named = answer.diagnostics().reason().map(ToString::to_string).collect::<BTreeSet<_>>();
        let named = named.into_iter().collect::<Vec<_>>().join(", ");
        let allowed = answer.decision() == Verdict::Allow && answer.diagnostics().errors().next().is_none();
        let reason = match (allowed, named.is_empty()) {
            (true, _) | (false, false) => named,
            (false, true) => "no policy permits it".to_owned(),
        };
        Ok(Decision { allowed, reason: reason.into() })
    }
}

/// The policies, each by its `@id`.
fn rules() -> Result<PolicySet, PolicyError> {
    let mut rules = PolicySet::new();
    for source in SOURCES {
        let parsed = PolicySet::from_str(source).map_err(failed("a policy can't be read"))?;
        for rule in parsed.policies() {
            let rule = match rule.annotation("id") {
                Some(id) => rule.new_id(id.parse().map_err(failed("the id of a policy"))?),
                None => rule.clone(),
            };
            rules.add(Rule::clone(&rule)).map_err(failed("two policies with one id"))?;
        }
    }
    Ok(rules)
}

fn world() -> Result<Entities, PolicyError> {
    let areas = AREAS.iter().map(|(name, _)| uid("Area", name)).collect::<Result<HashSet<_>, _>>()?;
    let mut entities: Vec<Entity> = areas.iter().cloned().map(|area| Entity::new_no_attrs(area, HashSet::new())).collect();
    for table in AREAS.iter().flat_map(|(_, tables)| *tables) {
        let parents = area(table).map(|area| uid("Area", area)).transpose()?;
        entities.push(Entity::new_no_attrs(uid("Table", table)?, parents.into_iter().collect()));
    }
    entities.push(Entity::new_no_attrs(uid("Service", "muniment")?, areas));
    Entities::from_entities(entities, None).map_err(failed("the tables and their areas"))
}

fn uid(kind: &str, name: &str) -> Result<EntityUid, PolicyError> {
    let kind = EntityTypeName::from_str(kind).map_err(failed("the name of a kind"))?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Scope;
    use cedar_policy::{Schema, ValidationMode, Validator};

    #[test]
    fn the_policies_fit_their_schema() {
        let (schema, warnings) = Schema::from_cedarschema_str(include_str!("../policies/schema.cedarschema")).unwrap();
        assert_eq!(warnings.count(), 0);
        let outcome = Validator::new(schema).validate(&rules().unwrap(), ValidationMode::Strict);
        let found: Vec<String> = outcome.validation_errors().map(ToString::to_string).collect();
        let warned: Vec<String> = outcome.validation_warnings().map(ToString::to_string).collect();
        assert_eq!((found, warned), (vec![], vec![]));
    }

    #[test]
    fn every_action_is_in_the_schema_and_permitted_to_somebody() {
        let policy = Policy::load().unwrap();
        let schema = include_str!("../policies/schema.cedarschema");
        for action in Action::ALL {
            assert!(schema.contains(action.name()), "{}", action.name());
            assert!(policy.decide(&Principal::unrestricted(), action, None, None).allowed, "{}", action.name());
        }
    }

    #[test]
    fn roles_add_up_and_nobody_may_nothing() {
        let policy = Policy::load().unwrap();
        let check = |roles: &[Role], action, table, level, allowed| {
            let principal = Principal::with_roles("somebody", roles.iter().copied());
            let decision = policy.decide(&principal, action, table, level);
            assert_eq!(decision.allowed, allowed, "{roles:?} {action:?} {table:?} {level:?}: {}", decision.reason);
            assert_eq!(policy.decide(&principal, action, table, level), decision, "a remembered decision differs");
        };
        let changes = Some("sys_audit_log");
        check(&[], Action::Read, changes, None, false);
        check(&[Role::Ingest], Action::Ingest, changes, None, true);
        check(&[Role::Ingest], Action::Read, changes, None, false);
        check(&[Role::Ingest, Role::Viewer], Action::Read, changes, None, true);
        check(&[Role::Viewer], Action::ReadUnmasked, changes, None, false);
        check(&[Role::Viewer], Action::Read, Some("api_keys"), None, false);
        check(&[Role::Viewer], Action::Read, Some("no such table"), None, false);
        check(&[Role::Auditor], Action::ReadUnmasked, changes, Some(3), true);
        check(&[Role::Auditor], Action::Ingest, changes, None, false);
        check(&[Role::Investigator], Action::Read, changes, None, false);
        check(&[Role::Investigator], Action::ReadUnmasked, Some("security_audit_log"), Some(2), true);
        check(&[Role::Investigator], Action::ReadUnmasked, Some("security_audit_log"), Some(3), false);
        check(&[Role::Administrator], Action::Read, changes, None, false);
        check(&[Role::Administrator], Action::Read, None, None, true);
        check(&[Role::Administrator], Action::ManageKeys, None, None, true);
        check(&[Role::ComplianceOfficer], Action::ManageKeys, None, None, false);
    }

    #[test]
    fn a_scope_only_takes_away() {
        let policy = Policy::load().unwrap();
        let tables = Some(BTreeSet::from(["auth_audit_log".to_owned()]));
        let actions = Some(BTreeSet::from(["ingest".to_owned()]));
        let principal = Principal { scope: Scope { tables, actions }, ..Principal::unrestricted() };
        assert!(policy.decide(&principal, Action::Ingest, Some("auth_audit_log"), None).allowed);
        let refused = policy.decide(&principal, Action::Ingest, Some("sys_audit_log"), None);
        assert_eq!((refused.allowed, &*refused.reason), (false, "outside-the-scope"));
        assert!(!policy.decide(&principal, Action::Read, Some("auth_audit_log"), None).allowed);
        let nobody = Principal { roles: BTreeSet::new(), ..principal };
        assert!(!policy.decide(&nobody, Action::Ingest, Some("auth_audit_log"), None).allowed);
    }
}
