//! Cases of citizens on their way through the agency: inserts, updates and deletes with who, why, and in which workflow.

use super::events::{Events, Log, stamp};
use super::random::{Random, named_uuid};
use super::staff::{Person, Role};
use serde_json::{Value, json};
use std::collections::VecDeque;

const SERVICES: [(&str, u64); 5] = [
    ("Construction permit", 2_500_000),
    ("Business registration", 500_000),
    ("Land use certificate", 1_200_000),
    ("Residence registration", 50_000),
    ("Passport renewal", 200_000),
];
const STEPS: [&str; 6] = ["RECEIVED", "VERIFICATION", "ASSESSMENT", "PAYMENT", "DECISION", "CLOSED"];
const DISTRICTS: [&str; 6] = ["Ba Dinh", "Hoan Kiem", "Cau Giay", "Hai Chau", "Ninh Kieu", "Thanh Xuan"];
const CITIZENS: [&str; 12] = [
    "Ngo Van Hai",
    "Ly Thi Hoa",
    "Truong Quoc Bao",
    "Dinh Thi Mai",
    "Ha Duc Long",
    "Mac Thi Thu",
    "Cao Van Son",
    "Luong Thi Yen",
    "Ta Quang Huy",
    "Kieu Thi Ngoc",
    "Duong Van Nam",
    "Trinh Thi Linh",
];
const PAPERS: [&str; 5] = ["Application form", "Identity card", "Land survey", "Company charter", "Proof of address"];

/// A case that is not closed yet.
#[derive(Clone, Debug)]
struct Case {
    number: u64,
    step: usize,
    fee: u64,
    row: Value,
    documents: Vec<(String, Value)>,
    is_paid: bool,
}

impl Case {
    fn key(&self) -> String {
        format!("HS-{:06}", self.number)
    }

    fn workflow(&self) -> String {
        format!("wf-{}", &named_uuid(&self.key())[..13])
    }
}

/// The open cases.
#[derive(Debug)]
pub struct Cases {
    open: Vec<Case>,
    next: u64,
    /// The newest payments.
    paid: VecDeque<(String, Value)>,
}

/// A change as it is recorded.
struct Change<'a> {
    table: &'a str,
    operation: &'a str,
    key: &'a str,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    reason: &'a str,
    process: &'a str,
}

impl Cases {
    /// No case yet; the first gets the number after this one.
    pub fn new(after: u64) -> Self {
        Self { open: Vec::new(), next: after + 1, paid: VecDeque::new() }
    }

    /// Somebody does the next thing to some case.
    pub fn work(&mut self, person: &Person, time: i64, random: &mut Random, events: &mut Events) {
        match random.below(100) {
            _ if self.open.len() < 40 => self.receive(person, time, random, events),
            0..11 if self.open.len() < 300 => self.receive(person, time, random, events),
            0..80 => self.advance(person, time, random, events),
            80..92 => self.correct(person, time, random, events),
            _ => self.sort_documents(person, time, random, events),
        }
    }

    fn receive(&mut self, person: &Person, time: i64, random: &mut Random, events: &mut Events) {
        let (service, fee) = SERVICES[random.place(SERVICES.len())];
        let number = self.next;
        self.next += 1;
        let row = json!({
            "case_no": format!("HS-{number:06}"),
            "service": service,
            "citizen": random.pick(&CITIZENS),
            "citizen_id": format!("0{:011}", random.below(100_000_000_000)),
            "phone": format!("09{:08}", random.below(100_000_000)),
            "district": random.pick(&DISTRICTS),
            "status": STEPS[0],
            "officer": Value::Null,
            "received_at": stamp(time),
        });
        let mut case = Case { number, step: 0, fee, row, documents: Vec::new(), is_paid: false };
        let reason = "application handed in";
        let mut insert = |table: &str, key: &str, new: &Value, time: i64, random: &mut Random| {
            let change = Change { table, operation: "INSERT", key, old: None, new: Some(new), reason, process: "HoSo Processing" };
            emit(&case, person, time, random, events, change);
        };
        insert("case.hoso", &case.key(), &case.row, time, random);
        let instance = json!({ "case_no": case.key(), "step": STEPS[0], "assignee": person.username });
        insert("workflow.instance", &case.workflow(), &instance, time + 1, random);
        let mut documents = Vec::new();
        for page in 0..1 + random.below(2) {
            let key = format!("TL-{number:06}-{}", page + 1);
            let document = json!({ "case_no": case.key(), "kind": random.pick(&PAPERS), "pages": 1 + random.below(12), "sha256": random.digits(16), "verified": false });
            insert("case.document", &key, &document, time + 2 + page as i64, random);
            documents.push((key, document));
        }
        case.documents = documents;
        self.open.push(case);
    }

    fn advance(&mut self, person: &Person, time: i64, random: &mut Random, events: &mut Events) {
        let place = random.place(self.open.len());
        let case = &mut self.open[place];
        if STEPS[case.step] == "PAYMENT" && !case.is_paid {
            let key = format!("PT-{:06}", case.number);
            let method = random.pick(&["card", "bank transfer", "cash"]);
            let payment = json!({ "case_no": case.key(), "amount": case.fee, "currency": "VND", "method": method, "status": "PAID" });
            let change = Change {
                table: "case.payment",
                operation: "INSERT",
                key: &key,
                old: None,
                new: Some(&payment),
                reason: "fee paid",
                process: "Payment",
            };
            emit(case, person, time, random, events, change);
            case.is_paid = true;
            self.paid.push_front((key, payment));
            self.paid.truncate(2);
            return;
        }
        let (before, instance) =
            (case.row.clone(), json!({ "case_no": case.key(), "step": STEPS[case.step], "assignee": person.username }));
        case.step += 1;
        case.row["status"] = json!(STEPS[case.step]);
        if case.step == 1 {
            case.row["officer"] = json!(person.username);
        }
        if STEPS[case.step] == "CLOSED" {
            case.row["decision"] = json!(if random.percent(88) { "GRANTED" } else { "REFUSED" });
        }
        let reason = format!("{} done", STEPS[case.step - 1].to_lowercase());
        let change = Change {
            table: "case.hoso",
            operation: "UPDATE",
            key: &case.key(),
            old: Some(&before),
            new: Some(&case.row),
            reason: &reason,
            process: "HoSo Processing",
        };
        emit(case, person, time, random, events, change);
        let moved = json!({ "case_no": case.key(), "step": STEPS[case.step], "assignee": person.username });
        let change = Change {
            table: "workflow.instance",
            operation: "UPDATE",
            key: &case.workflow(),
            old: Some(&instance),
            new: Some(&moved),
            reason: &reason,
            process: "HoSo Processing",
        };
        emit(case, person, time + 1, random, events, change);
        if STEPS[case.step] == "CLOSED" {
            self.open.swap_remove(place);
        }
    }

    fn correct(&mut self, person: &Person, time: i64, random: &mut Random, events: &mut Events) {
        let place = random.place(self.open.len());
        let case = &mut self.open[place];
        let before = case.row.clone();
        if random.percent(60) {
            case.row["phone"] = json!(format!("09{:08}", random.below(100_000_000)));
        } else {
            case.row["district"] = json!(random.pick(&DISTRICTS));
        }
        let change = Change {
            table: "case.hoso",
            operation: "UPDATE",
            key: &case.key(),
            old: Some(&before),
            new: Some(&case.row),
            reason: "corrected at the citizen's request",
            process: "Admin Update",
        };
        emit(case, person, time, random, events, change);
    }

    fn sort_documents(&mut self, person: &Person, time: i64, random: &mut Random, events: &mut Events) {
        let place = random.place(self.open.len());
        let case = &mut self.open[place];
        let Some(last) = case.documents.len().checked_sub(1) else { return };
        let (key, before) = case.documents[last].clone();
        let mut after = before.clone();
        after["verified"] = json!(true);
        let remove = case.documents.len() > 1 && random.percent(40);
        let (operation, new, reason) =
            if remove { ("DELETE", None, "uploaded twice") } else { ("UPDATE", Some(&after), "compared with the original") };
        let change = Change { table: "case.document", operation, key: &key, old: Some(&before), new, reason, process: "HoSo Processing" };
        emit(case, person, time, random, events, change);
        if remove {
            case.documents.pop();
        } else {
            case.documents[last].1 = after;
        }
    }

    /// Somebody at the database lowers the newest payments, past the application: nobody's name is on it. Returns the key of one of them.
    pub fn tamper(&mut self, time: i64, events: &mut Events) -> Option<String> {
        for (key, payment) in &mut self.paid {
            let before = payment.clone();
            payment["amount"] = json!(before["amount"].as_u64().unwrap_or_default() / 10);
            let event = json!({
                "table_name": "case.payment", "operation": "UPDATE", "primary_key": key, "old_values": before, "new_values": payment,
                "changed_at": stamp(time), "user_agent": "psql", "compliance_level": 3,
            });
            events.push(Log::Changes, event);
        }
        self.paid.front().map(|(key, _)| key.clone())
    }

    /// A number of a case, one of the newest.
    pub fn some_key(&self, random: &mut Random) -> String {
        let back = random.below(200).min(self.next.saturating_sub(1));
        format!("HS-{:06}", (self.next - back).max(1))
    }
}

fn emit(case: &Case, person: &Person, time: i64, random: &mut Random, events: &mut Events, change: Change<'_>) {
    let sensitive = change.table == "case.payment" || person.role == Role::Administrator;
    let event = json!({
        "table_name": change.table,
        "operation": change.operation,
        "primary_key": change.key,
        "old_values": change.old,
        "new_values": change.new,
        "changed_by": person.id,
        "changed_by_username": person.username,
        "changed_at": stamp(time),
        "ip_address": person.address,
        "user_agent": person.agent,
        "session_id": person.session.as_ref().map(|session| &session.id),
        "change_reason": change.reason,
        "business_context": change.process,
        "workflow_instance_id": case.workflow(),
        "compliance_level": if sensitive { 2 } else { 1 },
        "processing_time": random.skewed(6.0) as u64,
    });
    events.push(Log::Changes, event);
}
