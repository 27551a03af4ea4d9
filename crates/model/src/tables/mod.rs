//! The tables themselves: the one place that says which columns exist.

#[rustfmt::skip] // one column, one line
mod access;
#[rustfmt::skip] // one column, one line
mod casework;
#[rustfmt::skip] // one column, one line
mod limits;
#[rustfmt::skip] // one column, one line
mod logs;
#[rustfmt::skip] // one column, one line
mod registers;
#[rustfmt::skip] // one column, one line
mod unmasking;

use crate::Table;

/// Years that a change of sensitive or confidential data (`compliance_level` 2 or more) is kept at least, unless the record says otherwise.
pub const SENSITIVE_RETENTION_YEARS: u16 = 10;

static LOGS: [&Table; 5] =
    [&logs::SYS_AUDIT_LOG, &logs::AUTH_AUDIT_LOG, &logs::SECURITY_AUDIT_LOG, &logs::API_ACCESS_LOG, &logs::SYSTEM_PERFORMANCE_LOG];

/// The registers come in an order in which each refers only to those before it.
static TABLES: &[&Table] = &[
    &logs::SYS_AUDIT_LOG,
    &logs::AUTH_AUDIT_LOG,
    &logs::SECURITY_AUDIT_LOG,
    &logs::API_ACCESS_LOG,
    &logs::SYSTEM_PERFORMANCE_LOG,
    &registers::USERS,
    &registers::SYS_AUDIT_QUEUE,
    &registers::SECURITY_EVENTS,
    &registers::RATE_LIMIT_VIOLATIONS,
    &registers::USER_SESSIONS,
    &registers::DATA_RETENTION_POLICIES,
    &registers::COMPLIANCE_REPORTS,
    &registers::LEGAL_HOLDS,
    &registers::INVESTIGATIONS,
    &access::API_KEYS,
    &access::USER_ROLES,
    &limits::RATE_LIMITS,
    &limits::METRIC_THRESHOLDS,
    &casework::USER_EXTERNAL_IDS,
    &casework::INVESTIGATION_NOTES,
    &casework::INVESTIGATION_EVIDENCE,
    &unmasking::UNMASKING_GRANTS,
];

/// Every table: the logs, then the registers, each after the tables it refers to.
pub fn tables() -> &'static [&'static Table] {
    TABLES
}

/// The five logs.
pub fn logs() -> &'static [&'static Table] {
    &LOGS
}

/// The registers, each after the tables it refers to.
pub fn registers() -> &'static [&'static Table] {
    &TABLES[LOGS.len()..]
}

/// The table of this name.
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().copied().find(|table| table.name == name)
}
