//! Command-line flags: `--name value`, `--name=value` and `--switch`; anything else is refused.

use std::collections::BTreeMap;

use crate::error::{Context, Error, Result};

/// The flags given to one command.
#[derive(Debug, Default)]
pub struct Flags {
    given: BTreeMap<String, String>,
}

impl Flags {
    /// Parses `arguments`; `valued` flags take a value, `switches` don't.
    pub fn parse(arguments: &[String], valued: &[&str], switches: &[&str]) -> Result<Self> {
        let mut flags = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let name = argument.strip_prefix("--").ok_or_else(|| Error::new(format!("unexpected argument `{argument}`")))?;
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let value = if valued.contains(&name) {
                let next = || rest.next().cloned().ok_or_else(|| Error::new(format!("--{name} needs a value")));
                inline.map_or_else(next, Ok)?
            } else if switches.contains(&name) && inline.is_none() {
                String::new()
            } else {
                return Err(Error::new(format!("no such flag here: {argument}")));
            };
            flags.given.insert(name.to_owned(), value);
        }
        Ok(flags)
    }

    /// Whether the switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value of a flag.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// The value of a flag as a number; underscores between digits are fine.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.text(name)
            .map(|text| text.replace('_', "").parse().context(|| format!("--{name} needs a whole number, got `{text}`")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&arguments, &["count"], &["check"])
    }

    #[test]
    fn values_and_switches() {
        let flags = parse("--check --count 1_000").unwrap();
        assert!(flags.has("check"));
        assert_eq!(flags.number("count").unwrap(), Some(1_000));
        assert_eq!(parse("--count=7").unwrap().number("count").unwrap(), Some(7));
    }

    #[test]
    fn the_rest_is_refused() {
        for line in ["stray", "--unknown", "--count", "--check=1", "-c"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--count many").unwrap().number("count").is_err());
    }
}
