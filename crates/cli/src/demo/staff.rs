//! Who works at the agency, and the rows of the `users` register that say so.

use super::random::Random;
use muniment_store::StoreError;
use muniment_store::db::CommitDb;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange};
use serde_json::{Value, json};

/// Number of people and service accounts.
pub const STAFF: usize = 42;
const FAMILY: [&str; 10] = ["Nguyen", "Tran", "Le", "Pham", "Hoang", "Phan", "Vu", "Dang", "Bui", "Do"];
const GIVEN: [&str; 14] = ["An", "Binh", "Chi", "Dung", "Giang", "Hanh", "Khanh", "Lan", "Minh", "Nga", "Phuc", "Quynh", "Thao", "Tuan"];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
];
const OFFICES: [(&str, u64); 3] = [("Ha Noi", 16), ("Da Nang", 32), ("Can Tho", 48)];

/// What somebody does at the agency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes cases in.
    Clerk,
    /// Works on cases.
    Officer,
    /// Decides on cases.
    Supervisor,
    /// Looks after the system, and may read everything.
    Administrator,
    /// A program.
    Service,
}

/// A session that is open.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// When it began, µs UTC.
    pub since: i64,
}

/// Somebody who works at the agency.
#[derive(Clone, Debug)]
pub struct Person {
    /// `users.id`.
    pub id: i64,
    /// Log-in name.
    pub username: String,
    /// Name to show.
    pub name: String,
    /// What they do.
    pub role: Role,
    /// Usual address.
    pub address: String,
    /// Program they work with.
    pub agent: String,
    /// Fingerprint of their device.
    pub device: String,
    /// City of their office.
    pub city: &'static str,
    /// The session they are in.
    pub session: Option<Session>,
}

impl Person {
    /// Where they usually are.
    pub fn location(&self) -> Value {
        json!({ "city": self.city, "country": "VN" })
    }
}

/// The staff, the same for the same seed.
pub fn hire(random: &mut Random) -> Vec<Person> {
    (0..STAFF).map(|number| if number + 2 >= STAFF { program(number) } else { person(number, random) }).collect()
}

fn person(number: usize, random: &mut Random) -> Person {
    let (family, given) = (FAMILY[number % FAMILY.len()], GIVEN[(number * 5 + number / FAMILY.len()) % GIVEN.len()]);
    let (city, subnet) = OFFICES[number % OFFICES.len()];
    let role = match number {
        0 | 1 => Role::Administrator,
        2..=5 => Role::Supervisor,
        6..=22 => Role::Officer,
        _ => Role::Clerk,
    };
    Person {
        id: number as i64 + 1,
        username: format!("{}.{}{:02}", given.to_lowercase(), family.to_lowercase(), number + 1),
        name: format!("{family} {given}"),
        role,
        address: format!("10.20.{}.{}", subnet + random.below(8), 10 + number),
        agent: random.pick(&AGENTS).to_owned(),
        device: random.digits(16),
        city,
        session: None,
    }
}

fn program(number: usize) -> Person {
    let (username, name) = if number + 1 == STAFF { ("svc.payments", "Payment gateway") } else { ("svc.portal", "Citizen portal") };
    Person {
        id: number as i64 + 1,
        username: username.to_owned(),
        name: name.to_owned(),
        role: Role::Service,
        address: format!("10.20.0.{number}"),
        agent: format!("{username}/3.2"),
        device: String::new(),
        city: "Ha Noi",
        session: None,
    }
}

/// Enters the staff in the register `users`, unless somebody is there already.
pub async fn register(db: &dyn CommitDb, staff: &[Person]) -> Result<(), StoreError> {
    let Some(table) = muniment_model::table("users") else { return Ok(()) };
    if !db.find_in_register(&Lookup { limit: 1, ..Lookup::new(table, Vec::new()) }).await?.is_empty() {
        return Ok(());
    }
    let insert = |person: &Person| RegisterChange::Insert {
        table,
        values: vec![
            ("id", person.id.into()),
            ("external_id", format!("hr-{:04}", person.id).into()),
            ("username", person.username.clone().into()),
            ("display_name", person.name.clone().into()),
            ("email", format!("{}@agency.example", person.username).into()),
            ("source", if person.role == Role::Service { "service" } else { "directory" }.into()),
        ],
    };
    let changes: Vec<_> = staff.iter().map(insert).collect();
    let by = ChangedBy { username: "muniment:demo".to_owned(), reason: Some("the agency's staff".to_owned()), ..ChangedBy::default() };
    db.change_registers(&changes, &by).await.map(drop)
}
