//! Prints the table of `docs/access.md`: what each role may do, as the policy decides it.

#![allow(clippy::expect_used)]

use muniment_access::{Action, Policy, Principal, Role, areas};

/// Actions on tables; the others are about the service.
const ON_TABLES: [Action; 10] = [
    Action::Read,
    Action::ReadUnmasked,
    Action::Export,
    Action::Verify,
    Action::Ingest,
    Action::ManageSessions,
    Action::Investigate,
    Action::RequestUnmasking,
    Action::ApproveUnmasking,
    Action::ManageCompliance,
];
const OF_SERVICE: [Action; 5] = [Action::CheckLimit, Action::ManageUsers, Action::ManageKeys, Action::Configure, Action::ReadMetrics];

fn main() {
    let policy = Policy::load().expect("the policies are valid");
    let head: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    println!(
        "What is read, area by area. *masked*: named columns and confidential records are masked. *confidential masked*: only those.\n"
    );
    println!("| area | tables | {} |\n| --- | --- |{}", head.join(" | "), " --- |".repeat(head.len()));
    for (area, tables) in areas() {
        let Some(table) = tables.first() else { continue };
        let names: Vec<String> = tables.iter().map(|table| format!("`{table}`")).collect();
        let cells: Vec<&str> = Role::ALL.iter().map(|role| reading(&policy, *role, table)).collect();
        println!("| {area} | {} | {} |", names.join(", "), cells.join(" | "));
    }
    println!("\nWhat else is done to tables, by area; a dash is never.\n");
    println!("| action | {} |\n| --- |{}", head.join(" | "), " --- |".repeat(head.len()));
    for action in ON_TABLES.into_iter().filter(|action| !matches!(action, Action::Read | Action::ReadUnmasked)) {
        let cells: Vec<String> = Role::ALL.iter().map(|role| where_allowed(&policy, *role, action)).collect();
        println!("| `{}` | {} |", action.name(), cells.join(" | "));
    }
    println!("\nWhat is done to the service.\n");
    println!("| action | {} |\n| --- |{}", head.join(" | "), " --- |".repeat(head.len()));
    for action in OF_SERVICE {
        let cell = |role: &Role| if allowed(&policy, *role, action, None, None) { "yes" } else { "–" };
        println!("| `{}` | {} |", action.name(), Role::ALL.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}

fn allowed(policy: &Policy, role: Role, action: Action, table: Option<&str>, level: Option<u8>) -> bool {
    policy.decide(&Principal::with_roles("matrix", [role]), action, table, level).allowed
}

fn reading(policy: &Policy, role: Role, table: &str) -> &'static str {
    let may = |action, level| allowed(policy, role, action, Some(table), level);
    match (may(Action::Read, None), may(Action::ReadUnmasked, None), may(Action::ReadUnmasked, Some(3))) {
        (false, _, _) => "–",
        (true, true, true) => "in clear",
        (true, true, false) => "confidential masked",
        (true, false, _) => "masked",
    }
}

fn where_allowed(policy: &Policy, role: Role, action: Action) -> String {
    let areas: Vec<&str> = areas().filter(|(_, tables)| !tables.is_empty()).map(|(area, _)| area).collect();
    let first = |area: &str| areas_first(area);
    let found: Vec<&str> = areas.iter().copied().filter(|area| allowed(policy, role, action, first(area), None)).collect();
    match found.len() {
        0 => "–".to_owned(),
        all if all == areas.len() => "all".to_owned(),
        _ => found.join(", "),
    }
}

fn areas_first(wanted: &str) -> Option<&'static str> {
    areas().find(|(area, _)| *area == wanted).and_then(|(_, tables)| tables.first().copied())
}
