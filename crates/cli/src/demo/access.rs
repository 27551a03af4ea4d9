//! Log-ins and log-outs, permission checks, API calls and measurements.

use super::events::{Events, Log, stamp};
use super::random::Random;
use super::staff::{Person, Role, Session};
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000_000;
/// Longest session.
const SESSION: i64 = 9 * HOUR;

/// Where a log-in comes from, if not from where the person usually is.
pub struct Elsewhere<'a> {
    /// Address.
    pub address: &'a str,
    /// Program.
    pub agent: &'a str,
    /// City and country.
    pub location: Value,
}

/// Makes sure that somebody is logged in, and sometimes logs them out first. Passwords are mistyped now and then.
pub fn ensure_session(person: &mut Person, time: i64, random: &mut Random, events: &mut Events) {
    if person.session.as_ref().is_some_and(|session| time - session.since > SESSION || random.percent(2)) {
        log_out(person, time - 2_000_000, events);
    }
    if person.session.is_none() {
        if random.percent(7) {
            log_in(person, time - 9_000_000, None, Some("wrong password"), random, events);
        }
        log_in(person, time - 1_000_000, None, None, random, events);
    }
}

/// A log-in, or an attempt that failed for this reason.
pub fn log_in(
    person: &mut Person,
    time: i64,
    from: Option<&Elsewhere<'_>>,
    failure: Option<&str>,
    random: &mut Random,
    events: &mut Events,
) {
    let (address, agent) = from.map_or((person.address.as_str(), person.agent.as_str()), |from| (from.address, from.agent));
    let location = from.map_or_else(|| person.location(), |from| from.location.clone());
    let session = format!("s-{}", random.digits(14));
    let correlation = random.uuid();
    let risk = match (failure, from) {
        (None, None) => random.below(8),
        (Some(_), None) => 15 + random.below(10),
        (_, Some(_)) => 60 + random.below(30),
    };
    let succeeded = failure.is_none();
    let session_id = succeeded.then_some(&session);
    let method = if person.role == Role::Service { "client certificate" } else { "password" };
    events.push(
        Log::Authentication,
        json!({
            "user_id": person.id,
            "event_type": "LOGIN",
            "event_status": if succeeded { "SUCCESS" } else { "FAILURE" },
            "ip_address": address,
            "user_agent": agent,
            "device_fingerprint": from.is_none().then_some(&person.device).filter(|device| !device.is_empty()),
            "location": location,
            "details": { "username": person.username, "method": method, "reason": failure },
            "risk_score": risk,
            "session_id": session_id,
            "correlation_id": correlation,
            "created_at": stamp(time),
        }),
    );
    events.push(
        Log::Security,
        json!({
            "event_type": if succeeded { "LOGIN" } else { "LOGIN_FAILED" },
            "event_category": "AUTHENTICATION",
            "severity": if succeeded { 1 } else { 2 },
            "user_id": person.id,
            "username": person.username,
            "session_id": session_id,
            "ip_address": address,
            "user_agent": agent,
            "request_path": "/login",
            "http_method": "POST",
            "access_granted": succeeded,
            "failure_reason": failure,
            "risk_score": risk,
            "geolocation_data": location,
            "event_time": stamp(time),
        }),
    );
    if succeeded {
        person.session = Some(Session { id: session, since: time });
    }
}

/// Ends a session.
pub fn log_out(person: &mut Person, time: i64, events: &mut Events) {
    let Some(session) = person.session.take() else { return };
    let expired = time - session.since >= SESSION;
    events.push(
        Log::Authentication,
        json!({
            "user_id": person.id,
            "event_type": "LOGOUT",
            "ip_address": person.address,
            "user_agent": person.agent,
            "details": { "username": person.username, "reason": if expired { "session expired" } else { "log-out" } },
            "session_id": session.id,
            "created_at": stamp(time.max(session.since)),
        }),
    );
}

/// A call to the API of the case system.
pub fn call(person: &Person, time: i64, case: &str, random: &mut Random, events: &mut Events) {
    let (method, endpoint) = match random.below(10) {
        0..5 => ("GET", format!("/api/cases/{case}")),
        5..7 => ("GET", "/api/cases?status=open".to_owned()),
        7 => ("POST", "/api/cases".to_owned()),
        8 => ("PUT", format!("/api/cases/{case}/status")),
        _ => ("GET", format!("/api/cases/{case}/documents")),
    };
    let status = match random.below(100) {
        0..2 => 404,
        2 => 500,
        3..5 => 403,
        _ if method == "POST" => 201,
        _ => 200,
    };
    request(person, time, (method, &endpoint, status), random, events);
}

/// One API request.
pub fn request(person: &Person, time: i64, (method, endpoint, status): (&str, &str, u16), random: &mut Random, events: &mut Events) {
    let writes = method != "GET";
    events.push(
        Log::Api,
        json!({
            "user_id": person.id,
            "request_id": random.uuid(),
            "method": method,
            "endpoint": endpoint,
            "request_headers": { "accept": "application/json", "host": "cases.agency.example" },
            "request_body_hash": writes.then(|| random.digits(16)),
            "response_status": status,
            "response_time_ms": random.skewed(35.0) as u64,
            "bytes_sent": 300 + random.below(9_000),
            "bytes_received": if writes { 200 + random.below(3_000) } else { 0 },
            "ip_address": person.address,
            "user_agent": person.agent,
            "api_key_id": (person.role == Role::Service).then(|| format!("key-{}", person.username)),
            "rate_limit_remaining": random.below(600),
            "created_at": stamp(time),
        }),
    );
}

/// The application asks whether somebody may do something.
pub fn permission(person: &Person, time: i64, case: &str, random: &mut Random, events: &mut Events) {
    let (permission, needs) = match random.below(5) {
        0..3 => ("case.read", Role::Clerk),
        3 => ("case.decide", Role::Supervisor),
        _ => ("report.export", Role::Administrator),
    };
    let granted = permission == "case.read" || person.role == needs || person.role == Role::Administrator || random.percent(55);
    check(person, time, permission, &format!("case.hoso/{case}"), granted, random, events);
}

/// One permission check with its outcome.
pub fn check(person: &Person, time: i64, permission: &str, resource: &str, granted: bool, random: &mut Random, events: &mut Events) {
    let reads = permission.ends_with(".read");
    events.push(
        Log::Security,
        json!({
            "event_type": if granted { "PERMISSION_CHECK" } else { "ACCESS_DENIED" },
            "event_category": if granted && reads { "DATA_ACCESS" } else { "AUTHORIZATION" },
            "severity": if granted { 1 } else { 2 },
            "user_id": person.id,
            "username": person.username,
            "session_id": person.session.as_ref().map(|session| &session.id),
            "ip_address": person.address,
            "user_agent": person.agent,
            "request_path": format!("/api/{}", resource.replace("case.hoso", "cases")),
            "http_method": "GET",
            "resource_accessed": resource,
            "permission_checked": permission,
            "access_granted": granted,
            "failure_reason": (!granted).then_some("the role does not have this permission"),
            "risk_score": if granted { random.below(5) } else { 20 + random.below(20) },
            "event_time": stamp(time),
        }),
    );
}

/// A measurement; `load` is how busy the agency is, from 0 to 1.
pub fn measure(time: i64, load: f64, random: &mut Random, events: &mut Events) {
    const METRICS: [(&str, &str, &str, &str, &str, f64, f64); 6] = [
        ("query_time", "DATABASE", "ms", "case database", "SELECT case.hoso", 9.0, 60.0),
        ("response_time", "API", "ms", "case API", "GET /api/cases/{id}", 38.0, 250.0),
        ("step_time", "WORKFLOW", "ms", "workflow engine", "advance", 120.0, 900.0),
        ("connections", "DATABASE", "count", "case database", "pool", 14.0, 80.0),
        ("memory", "API", "MB", "case API", "process", 410.0, 1_500.0),
        ("payment_gateway_time", "EXTERNAL", "ms", "payment gateway", "charge", 310.0, 2_000.0),
    ];
    let (name, category, unit, component, operation, typical, warning) = METRICS[random.place(METRICS.len())];
    events.push(
        Log::Performance,
        json!({
            "metric_name": name,
            "metric_category": category,
            "metric_value": random.skewed(typical * (0.6 + load)),
            "metric_unit": unit,
            "component_name": component,
            "operation_name": operation,
            "threshold_warning": warning,
            "threshold_critical": warning * 2.0,
            "sampling_rate": 0.1,
            "additional_data": { "host": format!("app-{}", 1 + random.below(3)) },
            "measured_at": stamp(time),
        }),
    );
}
