//! Registers of people and cases beside the seeds': under which names other systems know a user, and what an investigation rests on.

use super::registers::{id, index, to_user, user};
use crate::DefaultValue::Now;
use crate::{Column, ForeignKey, Kind, Table};

const fn to_investigation() -> ForeignKey {
    ForeignKey { column: "investigation_id", table: "investigations", target: "id", seed: "" }
}

/// Further names of users.
pub(super) static USER_EXTERNAL_IDS: Table = Table {
    name: "user_external_ids",
    kind: Kind::Register,
    title: "Users' ids in other systems",
    seed: "",
    columns: &[
        id(""),
        user("user_id", "", "The user.").required(),
        Column::text("external_id", 255, "", "The user's key in another system: text, or a UUID in lower case. No two users have the same.").required().unique(),
        Column::text("system", 100, "", "The other system, such as `hr` or the issuer of an identity provider."),
        Column::time("created_at", "", "Time the row was made.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_user_external_ids_user", &["user_id"], "")],
    foreign_keys: &[to_user("user_id", "")],
    checks: &[],
    doc: "Other systems know users by text or UUID; records refer to users by number. `users.external_id` is the first such key, these are the others.",
};

/// What was written down in the course of an investigation.
pub(super) static INVESTIGATION_NOTES: Table = Table {
    name: "investigation_notes",
    kind: Kind::Register,
    title: "Notes of investigations",
    seed: "",
    columns: &[
        id(""),
        Column::int("investigation_id", 1, i64::MAX, "", "The investigation.").required(),
        Column::text("note", 4000, "", "What was found or done.").required(),
        user("author_id", "", "Who wrote it, if it was a user of the directory."),
        Column::text("author", 100, "", "Name of who wrote it.").required(),
        Column::time("created_at", "", "Time it was written.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_investigation_notes_investigation", &["investigation_id"], "")],
    foreign_keys: &[to_investigation(), to_user("author_id", "")],
    checks: &[],
    doc: "Notes are added, never changed: what was known when stays readable.",
};

/// What an investigation rests on.
pub(super) static INVESTIGATION_EVIDENCE: Table = Table {
    name: "investigation_evidence",
    kind: Kind::Register,
    title: "Evidence of investigations",
    seed: "",
    columns: &[
        id(""),
        Column::int("investigation_id", 1, i64::MAX, "", "The investigation.").required(),
        Column::text("log_name", 128, "", "The log of the record.").required(),
        Column::int("record_id", 1, i64::MAX, "", "`id` of the record in that log.").required(),
        Column::text("blockchain_hash", 64, "", "Its leaf hash when it was linked, in hexadecimal: what the record was then, it still is.").required(),
        Column::text("checkpoint", 4000, "", "The signed checkpoint that covered it then.").required(),
        Column::text("note", 1000, "", "What it shows."),
        user("added_by", "", "Who linked it, if it was a user of the directory."),
        Column::time("added_at", "", "Time it was linked.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[
        index("ix_investigation_evidence_investigation", &["investigation_id"], ""),
        index("ix_investigation_evidence_record", &["log_name", "record_id"], ""),
    ],
    foreign_keys: &[to_investigation(), to_user("added_by", "")],
    checks: &[],
    doc: "Records that an investigation rests on, each with the hash and the signed checkpoint that pin it down. `muniment prove` makes the proof file.",
};
