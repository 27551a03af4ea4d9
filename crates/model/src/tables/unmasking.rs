//! The register of unmasking: who asked to see masked contents in clear, why, and who allowed it.

use crate::DefaultValue::{Identity, Now, Text};
use crate::{Check, Column, ForeignKey, Index, Kind, Table};

/// Grants to read masked contents in clear.
pub(super) static UNMASKING_GRANTS: Table = Table {
    name: "unmasking_grants",
    kind: Kind::Register,
    title: "Unmasking",
    seed: "",
    columns: &[
        Column::int("id", 1, i64::MAX, "", "Number of the row.").or(Identity).unique(),
        Column::text("table_name", 128, "", "The log or register that is to be read in clear.").required(),
        Column::json("record_ids", "", "The records that it is limited to, a JSON array of ids; null for no such limit.").array(),
        Column::text("entity_table", 128, "", "The audited table whose row it is limited to; null for no such limit."),
        Column::text("entity_key", 100, "", "Key of that row, as text."),
        Column::text("reason", 500, "", "Why it is needed.").required(),
        Column::text("status", 10, "", "Where it stands. Only an approved grant that has not expired shows anything.")
            .or(Text("PENDING"))
            .values(&["PENDING", "APPROVED", "REFUSED", "ENDED"]),
        Column::int("requested_by", 1, i64::MAX, "", "Who asked: `users.id`; null for a key that is nobody's."),
        Column::text("requested_by_name", 100, "", "Name of that user or key.").required(),
        Column::int("requested_key", 1, i64::MAX, "", "The key that was used: `api_keys.id`."),
        Column::time("requested_at", "", "Time it was asked for.").or(Now),
        Column::time("expires_at", "", "Time from which it shows nothing.").required(),
        Column::int("decided_by", 1, i64::MAX, "", "Who decided: `users.id`; null if none had to."),
        Column::text("decided_by_name", 100, "", "Name of whoever decided; `muniment` where no approval is asked for."),
        Column::time("decided_at", "", "Time it was decided; null while it is pending."),
        Column::text("decision_note", 500, "", "What whoever decided had to say."),
        Column::time("ended_at", "", "Time it was ended before it expired."),
    ],
    ledger_columns: &[],
    indexes: &[Index {
        name: "ix_unmasking_grants_status",
        columns: &["status", "requested_at DESC"],
        seed: "",
        stands_for: "an index of the commit database",
    }],
    foreign_keys: &[
        ForeignKey { column: "requested_by", table: "users", target: "id", seed: "" },
        ForeignKey { column: "decided_by", table: "users", target: "id", seed: "" },
    ],
    checks: &[
        Check {
            name: "ck_unmasking_grants_decided",
            sql: "status NOT IN ('APPROVED', 'REFUSED') OR decided_at IS NOT NULL",
            doc: "What is approved or refused was decided at some time.",
        },
        Check {
            name: "ck_unmasking_grants_other",
            sql: "decided_by IS NULL OR requested_by IS NULL OR decided_by <> requested_by",
            doc: "Nobody decides about their own request.",
        },
        Check {
            name: "ck_unmasking_grants_entity",
            sql: "(entity_table IS NULL) = (entity_key IS NULL)",
            doc: "A row is known by its table and its key.",
        },
    ],
    doc: "Requests to read masked contents in clear: for what reason, how much, until when, and who allowed it. Never deleted.",
};
