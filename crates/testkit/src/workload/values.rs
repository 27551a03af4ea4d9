//! Random values of every type, as PostgreSQL's text input, edges more often than chance would have them.

use super::random::Random;

const TEXTS: [&str; 14] = [
    "",
    " ",
    "plain",
    "it's",
    "\"quoted\"",
    "back\\slash",
    "NULL",
    "\\N",
    "tab\tline\nreturn\r",
    "{braces, and commas}",
    "Nguyễn Văn Ánh",
    "日本語 🚀 e\u{301}",
    "\u{1}\u{7f}\u{2028}",
    "null",
];

/// The kinds of columns that the workload fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text of some kilobytes that doesn't compress.
    Large,
    /// Bytes of some kilobytes.
    LargeBytes,
    /// One of a list of texts.
    OneOf(&'static [&'static str]),
    /// Any text of at most so many characters.
    Short(usize),
    /// Bytes.
    Bytes,
    /// An exact number.
    Numeric,
    /// A JSON document.
    Json,
    /// A UUID.
    Uuid,
    /// Several texts.
    Texts,
}

/// A value as text, or `None` for NULL.
pub(super) fn value(random: &mut Random, kind: Kind) -> Option<String> {
    if random.percent(12) {
        return None;
    }
    Some(present(random, kind))
}

/// A value as text.
pub(super) fn present(random: &mut Random, kind: Kind) -> String {
    match kind {
        Kind::Text => text(random),
        Kind::Short(most) => text(random).chars().take(most).collect(),
        Kind::Large => large(random, 2_200),
        Kind::LargeBytes => format!("\\x{}", large(random, 2_000).replace(|c: char| !c.is_ascii_hexdigit(), "0")),
        Kind::OneOf(choices) => random.pick(choices).to_owned(),
        Kind::Bytes => (0..random.below(20)).fold("\\x".to_owned(), |bytes, _| format!("{bytes}{:02x}", random.below(256))),
        Kind::Numeric => numeric(random),
        Kind::Json if random.percent(10) => {
            random.pick(&["{\"$unchanged\":true}", "{\"$hex\": \"00\"}", "{\"$json\":\"null\"}"]).to_owned()
        }
        Kind::Json => json(random, 3),
        Kind::Uuid => {
            let (a, b) = (random.number(), random.number());
            format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", a >> 32, (a >> 16) & 0xffff, a & 0xffff, b >> 48, b & 0xffff_ffff_ffff)
        }
        Kind::Texts => {
            let texts = (0..random.below(4)).map(|_| if random.percent(20) { "NULL".to_owned() } else { array_item(&text(random)) });
            format!("{{{}}}", texts.collect::<Vec<_>>().join(","))
        }
    }
}

fn text(random: &mut Random) -> String {
    let mut text = random.pick(&TEXTS).to_owned();
    if random.percent(50) {
        text.push_str(&random.below(1_000_000).to_string());
    }
    text
}

fn large(random: &mut Random, least: u64) -> String {
    let words = (least + random.below(2 * least)) / 16;
    (0..words).map(|_| format!("{:016x}", random.number())).collect()
}

fn numeric(random: &mut Random) -> String {
    let edges = [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0.0",
        "1.10",
        "100000000000000000000000000000.000000000000000000000000000001",
        "-99999999999999999999999999999999999999999999999999",
        "0.00000000000000000000000000000000000000000000000000000000000000000001",
        "1e30",
    ];
    if random.percent(40) {
        return random.pick(&edges).to_owned();
    }
    format!("{}{}.{}", if random.percent(30) { "-" } else { "" }, random.below(1_000_000_000_000), random.below(1_000_000))
}

fn json(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => "null".to_owned(),
        1 => random.pick(&["0", "-1.50", "1e400", "12345678901234567890.123456789", "true"]).to_owned(),
        2 | 3 => json_text(&text(random)),
        4 => {
            let items: Vec<_> = (0..random.below(4)).map(|_| json(random, depth - 1)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => {
            let members: Vec<_> =
                (0..random.below(4)).map(|at| format!("{}: {}", json_text(&format!("k{at}é")), json(random, depth - 1))).collect();
            format!("{{ {} }}", members.join(" , "))
        }
    }
}

fn json_text(text: &str) -> String {
    // U+0000 is in none of the texts, and that is the one that PostgreSQL refuses.
    serde_json::Value::from(text).to_string()
}

fn array_item(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The columns of `shop.everything` besides its key, each with values for it, edges included.
pub(super) const EVERYTHING: [(&str, Kind); 58] = {
    use Kind::{Bytes, Json, Numeric, OneOf, Short, Text, Texts, Uuid};
    [
        ("c_smallint", OneOf(&["0", "1", "-32768", "32767"])),
        ("c_integer", OneOf(&["0", "7", "-2147483648", "2147483647"])),
        ("c_bigint", OneOf(&["0", "7", "-9223372036854775808", "9223372036854775807", "9007199254740993"])),
        ("c_numeric", Numeric),
        ("c_decimal", OneOf(&["0", "1.5", "NaN", "9999999999999999.9999", "-0.0001"])),
        ("c_real", OneOf(&["0", "-0", "1.1", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "16777217"])),
        ("c_double", OneOf(&["0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324", "123456789.123456789"])),
        ("c_money", OneOf(&["0", "12.34", "-92233720368547758.08"])),
        ("c_boolean", OneOf(&["true", "false"])),
        ("c_char", Short(8)),
        ("c_varchar", Short(40)),
        ("c_text", Text),
        ("c_name", Short(10)),
        ("c_bytea", Bytes),
        ("c_date", OneOf(&["2026-02-28", "0001-01-01", "4713-11-24 BC", "5874897-12-31", "infinity", "-infinity", "1970-01-01"])),
        ("c_time", OneOf(&["00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.7"])),
        ("c_timetz", OneOf(&["00:00:00+15:59", "24:00:00-15:59", "12:00:00.000001+07"])),
        ("c_timestamp", OneOf(&["2026-03-29 02:30:00", "294276-12-31 23:59:59.999999", "4713-11-24 00:00:00 BC", "infinity", "-infinity"])),
        (
            "c_timestamptz",
            OneOf(&[
                "2026-03-29 02:30:00+01",
                "294276-12-31 23:59:59.999999+00",
                "4713-11-24 00:00:00+00 BC",
                "infinity",
                "-infinity",
                "1969-12-31 23:59:59.5+07",
            ]),
        ),
        ("c_interval", OneOf(&["0", "1 year -2 days 03:04:05.000006", "-178000000 years", "178000000 years", "1 microsecond"])),
        ("c_uuid", Uuid),
        ("c_inet", OneOf(&["10.0.0.1", "10.0.0.1/8", "::1", "fe80::1/64"])),
        ("c_cidr", OneOf(&["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"])),
        ("c_macaddr", OneOf(&["08:00:2b:01:02:03"])),
        ("c_macaddr8", OneOf(&["08:00:2b:01:02:03:04:05"])),
        ("c_json", Json),
        ("c_jsonb", Json),
        ("c_bit", OneOf(&["00000", "10101"])),
        ("c_varbit", OneOf(&["", "1", "11110000"])),
        ("c_point", OneOf(&["(0,0)", "(1.5,-2.25)", "(NaN,Infinity)"])),
        ("c_line", OneOf(&["{1,2,3}"])),
        ("c_lseg", OneOf(&["[(0,0),(1,1)]"])),
        ("c_box", OneOf(&["(1,1),(0,0)"])),
        ("c_path", OneOf(&["((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"])),
        ("c_polygon", OneOf(&["((0,0),(1,1),(2,0))"])),
        ("c_circle", OneOf(&["<(0,0),5>"])),
        ("c_tsvector", OneOf(&["'a':1 'fat':2 'it''s':3", ""])),
        ("c_tsquery", OneOf(&["'fat' & !'rat'"])),
        ("c_int4range", OneOf(&["empty", "[1,5)", "(,)", "[,3]"])),
        ("c_int8range", OneOf(&["[-9223372036854775808,9223372036854775807)"])),
        ("c_numrange", OneOf(&["[1.5,2.50]", "(NaN,)"])),
        ("c_tsrange", OneOf(&["[2026-01-01,2026-01-02)", "[-infinity,infinity]"])),
        ("c_tstzrange", OneOf(&["[2026-01-01 00:00+07,)"])),
        ("c_daterange", OneOf(&["[2026-01-01,2026-01-31]"])),
        ("c_int4multirange", OneOf(&["{}", "{[1,3),[7,9)}"])),
        ("c_oid", OneOf(&["0", "4294967295"])),
        ("c_lsn", OneOf(&["0/0", "16/B374D848"])),
        ("c_regclass", OneOf(&["pg_class", "shop.journal"])),
        ("c_integers", OneOf(&["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:2]={1,2,3}"])),
        ("c_texts", Texts),
        ("c_numerics", OneOf(&["{NaN,1.10,-Infinity}", "{}"])),
        ("c_jsonbs", OneOf(&["{\"{\\\"a\\\": [1, null]}\",null}"])),
        ("c_moods", OneOf(&["{sad,\"it's \\\"fine\\\", really\"}"])),
        ("c_grid", OneOf(&["{{a,b},{c,NULL}}"])),
        ("c_mood", OneOf(&["sad", "ok", "it's \"fine\", really", "vui vẻ"])),
        ("c_positive", OneOf(&["1", "2147483647"])),
        ("c_code", OneOf(&["a", "mã số"])),
        ("c_address", OneOf(&["(\"Phố \"\"Huế\"\"\",12,\"Hà Nội\")", "(,,)"])),
    ]
};
