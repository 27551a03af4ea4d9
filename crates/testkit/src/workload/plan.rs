//! What one random transaction does, decided before it runs: so its context at each step is known, whatever rolls back.

use super::random::Random;
use super::values::{EVERYTHING, Kind, present, value};
use super::{Ddl, WorkloadOptions};

/// Keys that are hit again and again lie below this.
const HOT_KEYS: u64 = 60;
/// Keys of rows that COPY brings begin here.
const COPIED_KEYS: u64 = 1_000_000;
const USERS: [&str; 6] = ["an.nguyen", "bình", "c \"quoted\" o'neil", "dũng@example.org", "e", "svc-report"];

const NOTES: &str = "\"Số liệu\".\"Hồ sơ \"\"đặc biệt\"\", v1.0\"";

/// One thing that is sent to the server.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Statements.
    Sql(String),
    /// Rows in COPY's text form.
    Copy { into: String, rows: String },
}

/// A transaction.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub commits: bool,
}

/// Makes a row for COPY.
type FillRow<'a> = fn(&mut Planner<'a>, u64) -> Vec<Option<String>>;

/// Makes plans.
pub(super) struct Planner<'a> {
    pub options: &'a WorkloadOptions,
    pub random: &'a mut Random,
    /// Unique over all transactions of the workload: also the first of a thousand journal ids.
    pub number: u64,
}

impl Planner<'_> {
    /// A random transaction.
    pub(super) fn plan(mut self) -> Plan {
        let commits = !self.random.percent(15);
        let mut user = None;
        let mut begin = "BEGIN".to_owned();
        if self.random.percent(self.options.context_percent) {
            user = Some(self.user());
            begin = format!("BEGIN; {}", self.context(user));
        }
        let mut steps = vec![Step::Sql(begin)];
        for stage in 0..1 + self.random.below(3) {
            if stage > 0 && user.is_some() && self.random.percent(30) {
                user = Some(self.user());
                steps.push(Step::Sql(self.context(user)));
            }
            self.changes(&mut steps);
            if self.random.percent(30) {
                let inside = self.savepoint(&mut steps, user, stage);
                user = inside;
            }
            steps.push(self.journal(stage * 10, user));
        }
        steps.push(Step::Sql(if commits { "COMMIT" } else { "ROLLBACK" }.to_owned()));
        Plan { steps, commits }
    }

    /// A savepoint that is released or rolled back to; returns the user after it.
    fn savepoint(&mut self, steps: &mut Vec<Step>, user: Option<&'static str>, stage: u64) -> Option<&'static str> {
        let keeps = self.random.percent(50);
        let mut inside = user;
        steps.push(Step::Sql("SAVEPOINT s".to_owned()));
        if self.random.percent(self.options.context_percent / 2) {
            inside = Some(self.user());
            steps.push(Step::Sql(self.context(inside)));
        }
        self.changes(steps);
        steps.push(self.journal(stage * 10 + 1, inside));
        steps.push(Step::Sql(if keeps { "RELEASE s" } else { "ROLLBACK TO s" }.to_owned()));
        if keeps { inside } else { user }
    }

    fn user(&mut self) -> &'static str {
        self.random.pick(&USERS)
    }

    fn context(&mut self, user: Option<&str>) -> String {
        let context = serde_json::json!({"user_name": user, "user_id": self.random.below(1000), "correlation_id": self.number.to_string()});
        self.options.context_sql.replace("{}", &literal(&context.to_string()))
    }

    fn journal(&mut self, step: u64, user: Option<&str>) -> Step {
        let user = user.map_or_else(|| "NULL".to_owned(), literal);
        Step::Sql(format!("INSERT INTO shop.journal VALUES ({}, {}, {user})", self.number * 1000 + step, self.number))
    }

    fn changes(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.random.below(4) {
            let step = self.change();
            steps.push(step);
        }
    }

    fn change(&mut self) -> Step {
        let sql = match self.random.below(100) {
            0..=19 => self.everything(),
            20..=31 => self.notes(),
            32..=46 => self.measured(),
            47..=54 => self.computed(),
            55..=62 => self.keyless(),
            63..=74 => self.toasted(),
            75..=86 => self.family(),
            87..=92 => self.changing(),
            93..=97 => return self.copy(),
            _ => self.rare(),
        };
        Step::Sql(sql)
    }

    fn hot(&mut self) -> u64 {
        self.random.below(HOT_KEYS)
    }

    fn literal(&mut self, kind: Kind) -> String {
        let Some(text) = value(self.random, kind) else { return "NULL".to_owned() };
        literal(match text.strip_prefix("[0:2]=") {
            Some(array) if !self.options.beyond_json => array,
            None if !self.options.beyond_json && text == "null" => "{}",
            _ => &text,
        })
    }

    fn everything(&mut self) -> String {
        let id = self.hot();
        match self.random.below(10) {
            0..=4 => {
                let (mut names, mut values) = (String::new(), String::new());
                for (name, kind) in EVERYTHING {
                    if self.random.percent(70) {
                        names.push_str(&format!(", {name}"));
                        values.push_str(&format!(", {}", self.literal(kind)));
                    }
                }
                format!("INSERT INTO shop.everything (id{names}) VALUES ({id}{values}) ON CONFLICT (id) DO UPDATE SET c_text = 'again'")
            }
            5..=7 => {
                let (name, kind) = EVERYTHING[self.random.below(EVERYTHING.len() as u64) as usize];
                let (value, to) = (self.literal(kind), id + self.random.below(5));
                format!("UPDATE shop.everything SET {name} = {value} WHERE id BETWEEN {id} AND {to}")
            }
            8 => self.move_key("shop.everything", "id"),
            _ => format!("DELETE FROM shop.everything WHERE id = {id}"),
        }
    }

    fn notes(&mut self) -> String {
        let (number, code) = (self.random.below(5), present(self.random, Kind::Text));
        let (note, other) = (self.literal(Kind::Text), self.literal(Kind::Text));
        let code = literal(&code);
        match self.random.below(10) {
            0..=4 => format!("INSERT INTO {NOTES} VALUES ({note}, {number}, {code}, {other}, {note}) ON CONFLICT DO NOTHING"),
            5..=6 => format!("UPDATE {NOTES} SET \"Ghi chú\" = {note}, \"a b\\c'd\" = {other} WHERE \"số\" = {number}"),
            7 => format!(
                "UPDATE {NOTES} AS a SET \"mã\" = {code} WHERE \"số\" = {number} AND \"mã\" = (SELECT min(\"mã\") FROM {NOTES} WHERE \"số\" = {number}) \
                 AND NOT EXISTS (SELECT FROM {NOTES} WHERE \"số\" = {number} AND \"mã\" = {code})"
            ),
            // A key longer than the log's column.
            8 => format!("INSERT INTO {NOTES} VALUES ({note}, {number}, repeat('dài ', 40) || {code}) ON CONFLICT DO NOTHING"),
            _ => format!("DELETE FROM {NOTES} WHERE \"mã\" = {code}"),
        }
    }

    fn measured(&mut self) -> String {
        const REGIONS: Kind = Kind::OneOf(&["north", "south", "west", "đông"]);
        let (id, region, level) = (self.hot(), literal(&present(self.random, REGIONS)), self.random.below(100));
        match self.random.below(10) {
            0..=3 => {
                let (amount, note) = (self.literal(Kind::Numeric), self.literal(Kind::Text));
                format!(
                    "INSERT INTO shop.measured (id, region, level, amount, note) VALUES ({id}, {region}, {level}, {amount}, {note}) ON CONFLICT DO NOTHING"
                )
            }
            4..=5 => format!("UPDATE shop.measured SET amount = amount + 1, note = {} WHERE id = {id}", self.literal(Kind::Text)),
            // The row moves to another partition.
            6 => format!(
                "UPDATE shop.measured SET region = {region} WHERE id = {id} AND level = (SELECT max(level) FROM shop.measured WHERE id = {id})"
            ),
            7 => format!("UPDATE shop.measured SET level = 99 - level WHERE id = {id} AND region = 'south'"),
            // By the partition's own name.
            8 => format!("UPDATE shop.measured_north SET note = note || '.' WHERE id = {id}"),
            _ => format!("DELETE FROM shop.measured WHERE id = {id} AND level > 30"),
        }
    }

    fn computed(&mut self) -> String {
        let (id, width, height) = (self.hot(), self.random.below(100), self.random.below(100));
        match self.random.below(4) {
            0..=1 => {
                format!(
                    "INSERT INTO shop.computed VALUES ({id}, {width}, {height}) ON CONFLICT (id) DO UPDATE SET height = excluded.height"
                )
            }
            2 => format!("UPDATE shop.computed SET width = {width} WHERE id = {id}"),
            _ => format!("DELETE FROM shop.computed WHERE id = {id}"),
        }
    }

    fn keyless(&mut self) -> String {
        let a = self.random.below(5);
        match self.random.below(4) {
            // Some rows are there twice.
            0..=1 => format!(
                "INSERT INTO shop.keyless SELECT {a}, {}, 1.5 FROM generate_series(1, {})",
                self.literal(Kind::Text),
                self.random.below(3)
            ),
            2 => format!("UPDATE shop.keyless SET c = c + 1 WHERE a = {a}"),
            _ => format!("DELETE FROM shop.keyless WHERE a = {a}"),
        }
    }

    fn toasted(&mut self) -> String {
        let id = self.random.below(12);
        match self.random.below(10) {
            0..=2 => {
                let (body, data) = (self.literal(Kind::Large), self.literal(Kind::LargeBytes));
                format!(
                    "INSERT INTO shop.toasted VALUES ({id}, 0, {body}, {data}, jsonb_build_object('text', {body})) \
                     ON CONFLICT (id) DO UPDATE SET body = excluded.body"
                )
            }
            // The large values stay, and are not sent again.
            3..=6 => format!("UPDATE shop.toasted SET counter = counter + 1 WHERE id BETWEEN {id} AND {id} + 2"),
            7 => format!("UPDATE shop.toasted SET data = NULL WHERE id = {id}"),
            8 => self.move_key("shop.toasted", "id"),
            _ => format!("DELETE FROM shop.toasted WHERE id = {id}"),
        }
    }

    fn family(&mut self) -> String {
        let (id, parent) = (self.hot(), self.hot());
        match self.random.below(10) {
            0..=1 => format!("INSERT INTO shop.parent SELECT n, 'p' || n FROM generate_series({id}, {id} + 3) n ON CONFLICT DO NOTHING"),
            2..=4 => format!(
                "INSERT INTO shop.child SELECT {id}, id, {} FROM shop.parent WHERE id >= {parent} ORDER BY id LIMIT 1 ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                self.literal(Kind::Text)
            ),
            // The children follow.
            5..=6 => self.move_key("shop.parent", "id"),
            7 => format!("DELETE FROM shop.parent WHERE id = {id}"),
            8 => format!("UPDATE shop.child SET name = name WHERE parent = {parent}"),
            _ => format!("DELETE FROM shop.child WHERE id = {id}"),
        }
    }

    /// Whatever columns the table has now.
    fn changing(&mut self) -> String {
        let id = self.hot();
        let label = present(self.random, Kind::Text);
        match self.random.below(3) {
            0..=1 => {
                let extras = "SELECT jsonb_object_agg(attname, 'x') FROM pg_attribute WHERE attrelid = 'shop.changing'::regclass AND attname LIKE 'extra%'";
                let row = literal(&serde_json::json!({"id": id, "value": self.random.below(1000), "label": label}).to_string());
                let row = format!("{row}::jsonb || coalesce(({extras}), '{{}}')");
                format!("INSERT INTO shop.changing SELECT * FROM jsonb_populate_record(NULL::shop.changing, {row}) ON CONFLICT DO NOTHING")
            }
            _ => format!("UPDATE shop.changing SET label = {} WHERE id = {id}", literal(&label)),
        }
    }

    fn copy(&mut self) -> Step {
        let first = COPIED_KEYS + self.number * 1000;
        let count = 1 + self.random.below(30);
        let (into, fill): (&str, FillRow<'_>) = match self.random.below(4) {
            0 => ("shop.everything (id, c_text, c_numeric, c_bytea)", |planner, id| {
                let values = [Kind::Text, Kind::Numeric, Kind::Bytes].map(|kind| value(planner.random, kind));
                std::iter::once(Some(id.to_string())).chain(values).collect()
            }),
            1 => ("shop.measured (id, region, level, note)", |planner, id| {
                let region = ["north", "south", "other"][(id % 3) as usize].to_owned();
                vec![Some((id % 1_000_000_000).to_string()), Some(region), Some((id % 100).to_string()), value(planner.random, Kind::Text)]
            }),
            2 => ("shop.keyless (a, b)", |planner, _| vec![Some("3".to_owned()), value(planner.random, Kind::Text)]),
            _ => ("shop.computed (id, width, height)", |_, id| {
                vec![Some((id % 1_000_000_000).to_string()), Some("2".to_owned()), Some((id % 1000).to_string())]
            }),
        };
        let mut rows = String::new();
        for id in first..first + count {
            let fields: Vec<_> =
                fill(self, id).into_iter().map(|field| field.map_or_else(|| "\\N".to_owned(), |text| copy_field(&text))).collect();
            rows.push_str(&fields.join("\t"));
            rows.push('\n');
        }
        Step::Copy { into: into.to_owned(), rows }
    }

    fn rare(&mut self) -> String {
        let extra = self.random.below(3);
        match self.random.below(10) {
            0..=1 => format!("DELETE FROM shop.everything WHERE id >= {COPIED_KEYS} AND id % 3 = {extra}"),
            2 => format!("DELETE FROM shop.measured WHERE id >= 100 AND id % 3 = {extra}"),
            3..=4 if self.options.truncate => {
                let tables = ["shop.keyless", "shop.parent CASCADE", "shop.toasted, shop.computed", "shop.measured", "shop.child"];
                format!("TRUNCATE {}", self.random.pick(&tables))
            }
            5..=7 if self.options.ddl != Ddl::None => format!("ALTER TABLE shop.changing ADD COLUMN extra_{} text", self.number),
            8 if self.options.ddl != Ddl::None => with_extra_column("DROP COLUMN %I"),
            9 if self.options.ddl == Ddl::Rewriting => match extra {
                0 => with_extra_column(&format!("RENAME COLUMN %I TO extra_{}", self.number)),
                1 => format!("ALTER TABLE shop.changing ADD COLUMN extra_{} text DEFAULT 'new'", self.number),
                _ => format!("ALTER TABLE shop.changing ALTER COLUMN value TYPE {}", self.random.pick(&["integer", "bigint", "numeric"])),
            },
            _ => format!("UPDATE shop.changing SET value = value + 1 WHERE id % 3 = {extra}"),
        }
    }

    /// Gives a row another key, if that is free.
    fn move_key(&mut self, table: &str, key: &str) -> String {
        let (from, to) = (self.hot(), self.hot());
        format!("UPDATE {table} SET {key} = {to} WHERE {key} = {from} AND NOT EXISTS (SELECT FROM {table} WHERE {key} = {to})")
    }
}

/// Changes the oldest of the columns that were added; its name is known only when the statement runs.
fn with_extra_column(change: &str) -> String {
    format!(
        "DO $$ DECLARE name text := (SELECT attname FROM pg_attribute WHERE attrelid = 'shop.changing'::regclass AND attname LIKE 'extra%' \
         ORDER BY attnum LIMIT 1); BEGIN IF name IS NOT NULL THEN EXECUTE format('ALTER TABLE shop.changing {change}', name); END IF; END $$"
    )
}

/// A text as an SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn copy_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}
