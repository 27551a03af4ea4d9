//! Registers of access: keys, and who has which role.

use crate::DefaultValue::{Identity, Now};
use crate::{Check, Column, ForeignKey, Index, Kind, Table};

/// The roles.
const ROLES: &[&str] = &["ingest", "viewer", "auditor", "investigator", "compliance_officer", "administrator"];

const fn id() -> Column {
    Column::int("id", 1, i64::MAX, "", "Number of the row.").or(Identity).unique()
}

const fn user(name: &'static str, doc: &'static str) -> Column {
    Column::int(name, 1, i64::MAX, "", doc)
}

/// Keys for programs and people.
pub(super) static API_KEYS: Table = Table {
    name: "api_keys",
    kind: Kind::Register,
    title: "API keys",
    seed: "",
    columns: &[
        id(),
        Column::text("key_id", 32, "", "The part of the key that is no secret: `mnt_<key_id>_…`.").required().unique(),
        Column::text("key_hash", 64, "", "SHA-256 of the whole key, in hexadecimal. The key itself is nowhere.").required().secret(),
        Column::text("name", 100, "", "What it is for.").required(),
        user("user_id", "Whose key it is; null for a program's own. It never does more than the user may."),
        Column::json("roles", "", "The roles it acts in, a JSON array.").required().array(),
        Column::json("tables", "", "The logs and registers that it is limited to, a JSON array; null for all.").array(),
        Column::json("actions", "", "The actions that it is limited to, a JSON array; null for all.").array(),
        Column::int("rotated_from", 1, i64::MAX, "", "The key that it takes the place of: `api_keys.id`."),
        Column::text("created_by", 100, "", "Who made it, by name.").required(),
        Column::time("created_at", "", "Time it was made.").or(Now),
        Column::time("expires_at", "", "Time from which it is refused; null for never."),
        Column::time("revoked_at", "", "Time it was revoked; null while it is valid."),
        Column::text("revoked_reason", 1000, "", "Why it was revoked."),
    ],
    ledger_columns: &[],
    indexes: &[Index { name: "ix_api_keys_user", columns: &["user_id"], seed: "", stands_for: "an index of the commit database" }],
    foreign_keys: &[
        ForeignKey { column: "user_id", table: "users", target: "id", seed: "" },
        ForeignKey { column: "rotated_from", table: "api_keys", target: "id", seed: "" },
    ],
    checks: &[Check {
        name: "ck_api_keys_revoked",
        sql: "revoked_reason IS NULL OR revoked_at IS NOT NULL",
        doc: "A key that is revoked for a reason is revoked at some time.",
    }],
    doc: "Keys by which programs and people are recognised. Never deleted, so that what a key did can always be attributed.",
};

/// Which user has which role.
pub(super) static USER_ROLES: Table = Table {
    name: "user_roles",
    kind: Kind::Register,
    title: "Roles of users",
    seed: "",
    columns: &[
        id(),
        user("user_id", "Who has the role.").required(),
        Column::text("role", 32, "", "The role.").required().values(ROLES),
        Column::text("granted_by", 100, "", "Who gave it, by name.").required(),
        Column::time("granted_at", "", "Time it was given.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[Index { name: "ix_user_roles_user", columns: &["user_id", "role"], seed: "", stands_for: "an index of the commit database" }],
    foreign_keys: &[ForeignKey { column: "user_id", table: "users", target: "id", seed: "" }],
    checks: &[],
    doc: "Roles given by hand. Those that an identity provider gives come with each log-in and are not kept here.",
};
