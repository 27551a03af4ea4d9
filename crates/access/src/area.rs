//! Which tables belong together when it comes to who may see them.

/// Name of an area, and its tables.
pub(crate) const AREAS: [(&str, &[&str]); 10] = [
    ("changes", &["sys_audit_log", "sys_audit_queue"]),
    ("security", &["auth_audit_log", "security_audit_log", "security_events", "rate_limit_violations"]),
    ("traffic", &["api_access_log"]),
    ("performance", &["system_performance_log"]),
    ("sessions", &["user_sessions"]),
    ("cases", &["investigations", "investigation_notes", "investigation_evidence"]),
    ("people", &["users", "user_external_ids"]),
    ("access", &["api_keys", "user_roles"]),
    ("compliance", &["data_retention_policies", "compliance_reports", "legal_holds", "unmasking_grants"]),
    ("configuration", &["metric_thresholds", "rate_limits"]),
];

/// All areas with their tables.
pub fn areas() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    AREAS.into_iter()
}

/// The area of a table. A table without one is read only by those who read everything.
pub fn area(table: &str) -> Option<&'static str> {
    AREAS.iter().find(|(_, tables)| tables.contains(&table)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_model_has_an_area() {
        let without: Vec<&str> = muniment_model::tables().iter().map(|table| table.name).filter(|name| area(name).is_none()).collect();
        assert_eq!(without, [""; 0], "name them in AREAS");
    }
}
