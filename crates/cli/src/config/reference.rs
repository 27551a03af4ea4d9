//! The reference page of all keys, `docs/config.md`.

use super::settings::{KEYS, Settings};
use std::collections::BTreeMap;

const INTRODUCTION: &str = "# Configuration

A key is set in a TOML file, by an environment variable, or by a flag; a later one of these wins over an earlier one. The file is the one that `--config` or
`MUNIMENT_CONFIG` names, else `muniment.toml` in the working folder if there is one. The environment variable of a key is `MUNIMENT_` and its name in capitals, with two
underscores for a dot: `MUNIMENT_LISTEN`, `MUNIMENT_FLUSH__BYTES`. Flags: `--data`, `--listen`, `--log-format`, `--log-level`.

A key that is not in this table is refused, wherever it comes from. `muniment config` prints what is in force and where each value comes from.

Sizes are a number and `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, times a number and `ms`, `s`, `min`, `h` or `d`: `64 MiB`, `30s`.

";

const EXAMPLE: &str = "
```toml
data = \"muniment-data\"
origin = \"audit.example.org/agency\"
publish = [\"evidence/checkpoints\"]

[flush]
age = \"5min\"

[log]
format = \"json\"
```

This page is generated: `muniment config --reference`.
";

/// The page.
pub fn reference() -> String {
    let values = values(&Settings::default());
    let mut text = INTRODUCTION.to_owned();
    text += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
    for key in KEYS {
        let default = values.get(key.name).map_or_else(|| key.absent.to_owned(), |value| format!("`{value}`"));
        text += &format!("| `{}` | {} | {default} | {} |\n", key.name, key.kind, key.doc);
    }
    text + EXAMPLE
}

/// The value of each key that has one, as TOML.
pub(super) fn values(settings: &Settings) -> BTreeMap<String, toml::Value> {
    fn walk(prefix: &str, table: toml::Table, found: &mut BTreeMap<String, toml::Value>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => walk(&path, inner, found),
                value => {
                    found.insert(path, value);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(settings) {
        walk("", table, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::settings::{Oidc, Tls};
    use super::*;

    #[test]
    fn every_setting_is_in_the_table_and_nothing_else() {
        let everything = Settings { origin: Some(String::new()), publish: Some(Vec::new()), ..Settings::default() };
        let some = || Some(String::new());
        let file = || Some(std::path::PathBuf::new());
        let everything = Settings {
            tls: Tls { certificate: file(), key: file() },
            oidc: Oidc {
                issuer: some(),
                client_id: some(),
                client_secret_file: file(),
                public_url: some(),
                audience: some(),
                ca: file(),
                ..everything.oidc.clone()
            },
            ..everything
        };
        let mut listed: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        listed.sort_unstable();
        assert_eq!(values(&everything).into_keys().collect::<Vec<_>>(), listed);
    }

    #[test]
    fn the_page_is_current() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md")).unwrap();
        assert!(page == reference(), "docs/config.md is out of date; run `muniment config --reference > docs/config.md`");
    }
}
