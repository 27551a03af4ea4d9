//! The tables of the imagined agency: what their rows hold and how they change.

use super::json::{Object, number, padded};
use super::{DAY, MICROS, Random, USERS, YEAR_START};

/// One row of the case system, its changing fields small numbers that each table reads in its own way.
#[derive(Clone, Copy)]
pub(super) struct Entity {
    pub(super) number: u64,
    /// Constant attributes are read from these bits.
    pub(super) nature: u64,
    pub(super) status: u8,
    pub(super) level: u8,
    pub(super) revision: u8,
    pub(super) officer: u16,
    /// Day of the year.
    pub(super) due: u16,
}

/// What happened to one entity: the row before, unless it is new, and the row after, unless it is gone.
pub(super) struct Change {
    pub(super) operation: &'static str,
    pub(super) entity: Entity,
    pub(super) old: Option<Entity>,
    pub(super) new: Option<Entity>,
}

pub(super) struct Table {
    pub(super) kind: Kind,
    /// Of 1,000 events on this table, so many insert.
    pub(super) inserts: u64,
    pub(super) entities: Vec<Entity>,
    pub(super) inserted: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Case,
    CaseDocument,
    UserProfile,
    Payment,
    Workflow,
    File,
}

/// A changing field of an entity; a level is a number below the one given.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Status,
    Level(usize),
    Officer,
    Due,
    Revision,
}

/// Kind, share of the events in percent, inserts among 1,000 events.
pub(super) const TABLES: [(Kind, u64, u64); 6] = [
    (Kind::Case, 30, 40),
    (Kind::CaseDocument, 20, 60),
    (Kind::UserProfile, 8, 20),
    (Kind::Payment, 14, 75),
    (Kind::Workflow, 18, 40),
    (Kind::File, 10, 75),
];

pub(super) const FAMILY: [&str; 14] =
    ["Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Phan", "Vũ", "Đặng", "Bùi", "Đỗ", "Hồ", "Ngô", "Dương", "Lý"];
pub(super) const MIDDLE: [&str; 10] = ["Văn", "Thị", "Minh", "Hữu", "Đức", "Ngọc", "Thanh", "Quang", "Thu", "Anh"];
pub(super) const GIVEN: [&str; 32] = [
    "An", "Bình", "Châu", "Dũng", "Giang", "Hà", "Hải", "Hạnh", "Hiếu", "Hoa", "Hùng", "Hương", "Khánh", "Lan", "Linh", "Long", "Mai",
    "Nam", "Nga", "Nhung", "Phong", "Phúc", "Quân", "Sơn", "Tâm", "Thảo", "Thắng", "Trang", "Trung", "Tuấn", "Vân", "Yến",
];
pub(super) const LOGIN_FAMILY: [&str; 14] =
    ["nguyen", "tran", "le", "pham", "hoang", "phan", "vu", "dang", "bui", "do", "ho", "ngo", "duong", "ly"];
pub(super) const LOGIN_GIVEN: [&str; 16] =
    ["an", "binh", "chau", "dung", "giang", "ha", "hai", "hanh", "hieu", "hoa", "hung", "huong", "khanh", "lan", "linh", "long"];
pub(super) const CASE_STATUS: [&str; 8] =
    ["RECEIVED", "ACCEPTED", "UNDER_REVIEW", "NEEDS_DOCUMENTS", "APPROVED", "REJECTED", "RETURNED", "CLOSED"];
pub(super) const DOCUMENT_TYPE: [&str; 8] = [
    "ID_CARD",
    "BIRTH_CERTIFICATE",
    "LAND_CERTIFICATE",
    "HOUSEHOLD_BOOK",
    "APPLICATION_FORM",
    "TAX_STATEMENT",
    "POWER_OF_ATTORNEY",
    "PHOTO",
];
pub(super) const DOCUMENT_STATUS: [&str; 4] = ["UPLOADED", "VERIFIED", "REJECTED", "REPLACED"];
pub(super) const ROLE: [&str; 5] = ["CITIZEN", "CLERK", "OFFICER", "MANAGER", "INSPECTOR"];
pub(super) const PROFILE_STATUS: [&str; 4] = ["ACTIVE", "LOCKED", "PENDING", "DISABLED"];
pub(super) const METHOD: [&str; 4] = ["BANK_TRANSFER", "QR", "CARD", "CASH"];
pub(super) const PAYMENT_STATUS: [&str; 5] = ["CREATED", "PENDING", "PAID", "FAILED", "REFUNDED"];
pub(super) const STEP: [&str; 6] = ["INTAKE", "CHECK", "FIELD_VISIT", "MANAGER_APPROVAL", "SIGNING", "DELIVERY"];
pub(super) const WORKFLOW_STATE: [&str; 4] = ["RUNNING", "WAITING", "SUSPENDED", "COMPLETED"];
pub(super) const FILE_STATUS: [&str; 4] = ["NEW", "SCANNED", "SIGNED", "ARCHIVED"];
pub(super) const REASON: [&str; 8] = [
    "Applicant sent missing documents",
    "Corrected after telephone call",
    "Reassigned: officer on leave",
    "Deadline moved by manager",
    "Duplicate entry",
    "Fee recalculated",
    "Request of the applicant",
    "Inspection finding",
];
pub(super) const FEES: [u64; 8] = [20_000, 50_000, 75_000, 150_000, 200_000, 320_000, 500_000, 1_250_000];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Case => "case.hoso",
            Self::CaseDocument => "case.ho_so_document",
            Self::UserProfile => "identity.user_profile",
            Self::Payment => "payment.transaction",
            Self::Workflow => "workflow.instance",
            Self::File => "document.file",
        }
    }

    pub(super) fn context(self, random: &mut Random) -> &'static str {
        match self {
            Self::Case | Self::CaseDocument if random.percent(90) => "HoSo Processing",
            Self::Case | Self::CaseDocument => "Counter Service",
            Self::UserProfile => "Admin Update",
            Self::Payment => "Fee Collection",
            Self::Workflow => "Workflow Engine",
            Self::File => "Document Store",
        }
    }

    /// The field that moves most often, and its names for the values.
    pub(super) fn status(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Case => ("status", &CASE_STATUS),
            Self::CaseDocument => ("status", &DOCUMENT_STATUS),
            Self::UserProfile => ("status", &PROFILE_STATUS),
            Self::Payment => ("status", &PAYMENT_STATUS),
            Self::Workflow => ("state", &WORKFLOW_STATE),
            Self::File => ("status", &FILE_STATUS),
        }
    }

    /// What an update may change; the status comes first.
    fn fields(self) -> &'static [Field] {
        match self {
            Self::Case => &[Field::Status, Field::Level(4), Field::Officer, Field::Due],
            Self::CaseDocument => &[Field::Status, Field::Officer, Field::Revision],
            Self::UserProfile => &[Field::Status, Field::Level(5)],
            Self::Payment => &[Field::Status, Field::Level(8), Field::Revision],
            Self::Workflow => &[Field::Status, Field::Level(6), Field::Officer, Field::Due],
            Self::File => &[Field::Status, Field::Revision],
        }
    }

    pub(super) fn has_workflow(self) -> bool {
        !matches!(self, Self::UserProfile | Self::Payment | Self::File)
    }

    /// The row as a JSON object.
    pub(super) fn row(self, entity: &Entity, out: &mut Vec<u8>) {
        let status = self.status().1[usize::from(entity.status)];
        let bits = |shift: u32, count: u64| (entity.nature >> shift) % count;
        match self {
            Self::Case => Object::new(out)
                .text("code", &["H", &number(10 + bits(0, 60)), "-25-", &padded(entity.number, 7)])
                .text("status", &[status])
                .number("assigned_to", 1_000 + u64::from(entity.officer))
                .number("priority", u64::from(entity.level))
                .date("due_date", entity.due)
                .end(),
            Self::CaseDocument => Object::new(out)
                .number("ho_so_id", entity.case())
                .text("type", &[DOCUMENT_TYPE[bits(8, 8) as usize]])
                .text("status", &[status])
                .number("checked_by", 1_000 + u64::from(entity.officer))
                .number("revision", u64::from(entity.revision))
                .end(),
            Self::UserProfile => Object::new(out)
                .text("full_name", &[FAMILY[bits(0, 14) as usize], " ", MIDDLE[bits(8, 10) as usize], " ", GIVEN[bits(16, 32) as usize]])
                .text("phone", &["09", &padded(bits(24, 100_000_000), 8)])
                .text("role", &[ROLE[usize::from(entity.level)]])
                .text("status", &[status])
                .end(),
            Self::Payment => Object::new(out)
                .number("ho_so_id", entity.case())
                .number("amount", FEES[bits(8, 8) as usize] + u64::from(entity.level) * 1_000)
                .text("method", &[METHOD[bits(16, 4) as usize]])
                .text("status", &[status])
                .number("attempt", u64::from(entity.revision))
                .end(),
            Self::Workflow => Object::new(out)
                .number("ho_so_id", entity.case())
                .text("step", &[STEP[usize::from(entity.level)]])
                .text("state", &[status])
                .number("assignee", 1_000 + u64::from(entity.officer))
                .date("step_due", entity.due)
                .end(),
            Self::File => Object::new(out)
                .text("name", &["scan-", &padded(entity.number, 7), ".", if bits(0, 4) == 0 { "pdf" } else { "jpg" }])
                .number("bytes", 20_000 + bits(16, 4_000_000))
                .text("status", &[status])
                .number("version", u64::from(entity.revision))
                .end(),
        }
    }
}

impl Entity {
    /// The case it belongs to: cases and what hangs on them are numbered alike.
    pub(super) fn case(&self) -> u64 {
        100_000 + (self.number - 100_000) * 3 / 4
    }
}

pub(super) fn choose_table(random: &mut Random) -> usize {
    let mut ticket = random.below(100);
    TABLES
        .iter()
        .position(|&(_, weight, _)| {
            let hit = ticket < weight;
            ticket = ticket.wrapping_sub(weight);
            hit
        })
        .unwrap_or(0)
}

impl Table {
    /// Inserts, updates or deletes one entity.
    pub(super) fn change(&mut self, random: &mut Random, time: u64) -> Change {
        let today = ((time / MICROS - YEAR_START) / DAY) as u16;
        if self.entities.is_empty() || random.below(1_000) < self.inserts {
            let entity = Entity {
                number: 100_000 + self.inserted,
                nature: random.next(),
                status: 0,
                level: random.below(4) as u8,
                revision: 1,
                officer: random.skewed(USERS) as u16,
                due: today + 5 + random.below(25) as u16,
            };
            self.inserted += 1;
            self.entities.push(entity);
            return Change { operation: "INSERT", entity, old: None, new: Some(entity) };
        }
        let age = random.skewed(self.entities.len() as u64) as usize;
        let position = self.entities.len() - 1 - age;
        let old = self.entities[position];
        if random.below(1_000) < self.inserts / 3 {
            self.entities.swap_remove(position);
            return Change { operation: "DELETE", entity: old, old: Some(old), new: None };
        }
        let new = old.updated(self.kind, random, today);
        self.entities[position] = new;
        Change { operation: "UPDATE", entity: new, old: Some(old), new: Some(new) }
    }
}

impl Entity {
    /// One to three fields changed, or nearly so: a field drawn twice changes once.
    fn updated(self, kind: Kind, random: &mut Random, today: u16) -> Self {
        let mut new = self;
        for draw in 0..1 + random.skewed(3) {
            let fields = kind.fields();
            // Every second change moves the status, which leads the list.
            let field = if draw == 0 && random.percent(50) { fields[0] } else { fields[random.below(fields.len() as u64) as usize] };
            match field {
                Field::Status => new.status = other(self.status, kind.status().1.len(), random),
                Field::Level(count) => new.level = other(self.level, count, random),
                Field::Officer => new.officer = random.skewed(USERS) as u16,
                Field::Due => new.due = today + 5 + random.below(25) as u16,
                Field::Revision => new.revision = self.revision.wrapping_add(1),
            }
        }
        new
    }
}

/// A number below `count` other than `now`.
fn other(now: u8, count: usize, random: &mut Random) -> u8 {
    ((usize::from(now) + 1 + random.below(count as u64 - 1) as usize) % count) as u8
}
