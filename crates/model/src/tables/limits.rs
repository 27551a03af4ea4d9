//! Registers of limits: how often somebody may call, and from which value on a measurement is a matter of concern.

use super::registers::{id, index};
use crate::DefaultValue::{self, Now};
use crate::{Check, Column, Kind, Table};

const INT32: i64 = i32::MAX as i64;
/// Longest window of a rate limit, a day, in seconds.
const DAY: i64 = 86_400;

/// How often somebody may call.
pub(super) static RATE_LIMITS: Table = Table {
    name: "rate_limits",
    kind: Kind::Register,
    title: "Rate limits",
    seed: "",
    columns: &[
        id(""),
        Column::text("name", 100, "", "Name of the limit.").required().unique(),
        Column::text("endpoint", 255, "", "The endpoint it is for; one that ends in `*` is for all that begin so. Null for every endpoint."),
        Column::text("method", 255, "", "The method it is for; null for every method."),
        Column::text("counted_by", 10, "", "Whose calls are counted together: those of a user, an address, an API key, or everybody's of an endpoint.")
            .required()
            .values(&["USER", "ADDRESS", "KEY", "ENDPOINT"]),
        Column::text("subject", 255, "", "The one user (`users.id`), address or network, or key that it is for, in place of a limit with the same `counted_by`, `endpoint` and `method` for everybody. Null for everybody."),
        Column::int("limit_threshold", 1, INT32, "", "Calls allowed within the window.").required().unit("requests"),
        Column::int("time_window_seconds", 1, DAY, "", "Length of the window.").or(DefaultValue::Int(60)).unit("seconds"),
        Column::int("burst", 1, INT32, "", "Calls allowed at once by the check; null for as many as within the window.").unit("requests"),
        Column::int("block_minutes", 0, INT32, "", "How long who exceeds it is blocked.").or(DefaultValue::Int(0)).unit("minutes"),
        Column::bool("on_check", "", "Whether it answers applications that ask before they act.").or(DefaultValue::Bool(true)),
        Column::bool("on_log", "", "Whether records of `api_access_log` are held against it.").or(DefaultValue::Bool(true)),
        Column::bool("on_own_api", "", "Whether it protects the API of Muniment itself.").or(DefaultValue::Bool(false)),
        Column::bool("is_active", "", "Whether it is in force.").or(DefaultValue::Bool(true)),
        Column::time("created_at", "", "Time the row was made.").or(Now),
        Column::time("updated_at", "", "Time of the last change.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[],
    foreign_keys: &[],
    checks: &[Check {
        name: "ck_rate_limits_burst",
        sql: "burst IS NULL OR burst <= limit_threshold",
        doc: "At once nobody may do more than within the window.",
    }],
    doc: "How often an endpoint may be called by a user, from an address, with a key, or by everybody together. Whoever exceeds it has a row in `rate_limit_violations`.",
};

/// From which value on a measurement is a matter of concern.
pub(super) static METRIC_THRESHOLDS: Table = Table {
    name: "metric_thresholds",
    kind: Kind::Register,
    title: "Thresholds of measurements",
    seed: "",
    columns: &[
        id(""),
        Column::text("metric_name", 100, "", "The metric; one that ends in `*` is for all that begin so. Null for every metric of the category."),
        Column::text("metric_category", 50, "", "The category; null for every category.").values(&["DATABASE", "API", "WORKFLOW", "EXTERNAL"]),
        Column::text("component_name", 100, "", "The component; null for every component."),
        Column::text("metric_unit", 20, "", "Unit of the thresholds. Measurements in another unit of the same kind are converted; those of another kind are not held against it."),
        Column::decimal("threshold_warning", 18, 6, "", "Value from which on to warn."),
        Column::decimal("threshold_critical", 18, 6, "", "Value from which on it is critical. If it is smaller than `threshold_warning`, small values are the bad ones."),
        Column::bool("is_active", "", "Whether it is in force.").or(DefaultValue::Bool(true)),
        Column::time("created_at", "", "Time the row was made.").or(Now),
        Column::time("updated_at", "", "Time of the last change.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_metric_thresholds_metric", &["metric_name", "metric_category"], "")],
    foreign_keys: &[],
    checks: &[
        Check {
            name: "ck_metric_thresholds_subject",
            sql: "metric_name IS NOT NULL OR metric_category IS NOT NULL",
            doc: "It is for a metric or for a category.",
        },
        Check {
            name: "ck_metric_thresholds_value",
            sql: "threshold_warning IS NOT NULL OR threshold_critical IS NOT NULL",
            doc: "It has a value.",
        },
    ],
    doc: "Thresholds for measurements that bring none of their own. They are written into the record when it arrives, so that a later change does not touch what was decided.",
};
