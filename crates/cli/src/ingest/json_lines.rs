//! JSON objects over any number of lines, one after the other or in one array, as NDJSON: an object a line, in bounded memory.
//!
//! Only the ends of values are looked for; whether they are valid is for the parser to say.

use std::io::{Error, ErrorKind, Read};

const STEP_BYTES: usize = 64 << 10;

/// Whether text that begins like this holds records that are not one a line: an array, or an object whose first line does not end it.
pub fn spans_lines(prefix: &[u8]) -> bool {
    let start = prefix.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(prefix.len());
    match prefix.get(start) {
        Some(b'[') => true,
        Some(b'{') => {
            let Some(end) = prefix[start..].iter().position(|byte| *byte == b'\n') else { return false };
            let mut scan = Value::default();
            !prefix[start..start + end].iter().any(|byte| scan.step(*byte) == Step::Ends)
        }
        _ => false,
    }
}

/// Where the reader is between values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Outside,
    ArrayStart,
    AfterElement,
    AfterComma,
    Inside(Value),
}

/// How far a value has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Value {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The byte belongs to the value, which goes on.
    GoesOn,
    /// The byte is the value's last.
    Ends,
    /// The value ended before the byte.
    Ended,
}

impl Value {
    fn step(&mut self, byte: u8) -> Step {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Step::Ends;
                    }
                }
                _ => {}
            }
            return Step::GoesOn;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => match self.depth {
                0 => return Step::Ended,
                1 => return Step::Ends,
                _ => self.depth -= 1,
            },
            b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => return Step::Ended,
            _ => {}
        }
        Step::GoesOn
    }
}

/// Reads as NDJSON what another reader has as JSON.
pub struct JsonLines<R> {
    input: R,
    raw: Vec<u8>,
    ready: Vec<u8>,
    taken: usize,
    at: At,
    in_array: bool,
    ended: bool,
}

impl<R: Read> JsonLines<R> {
    /// A reader over this one.
    pub fn new(input: R) -> Self {
        Self { input, raw: vec![0; STEP_BYTES], ready: Vec::new(), taken: 0, at: At::Outside, in_array: false, ended: false }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() && !self.ended {
            let mut raw = std::mem::take(&mut self.raw);
            let read = self.input.read(&mut raw)?;
            let fed = raw[..read].iter().try_for_each(|byte| self.feed(*byte));
            self.raw = raw;
            fed?;
            if read == 0 {
                self.ended = true;
                if self.in_array && !matches!(self.at, At::Inside(_)) {
                    return Err(Error::new(ErrorKind::InvalidData, "the JSON array is not closed"));
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, byte: u8) -> std::io::Result<()> {
        if let At::Inside(mut value) = self.at {
            let step = value.step(byte);
            self.at = At::Inside(value);
            if step != Step::Ended {
                let outside_strings = !value.in_string && matches!(byte, b'\n' | b'\r');
                self.ready.push(if outside_strings { b' ' } else { byte });
            }
            if step != Step::GoesOn {
                self.ready.push(b'\n');
                self.at = if self.in_array { At::AfterElement } else { At::Outside };
            }
            return if step == Step::Ended { self.feed(byte) } else { Ok(()) };
        }
        self.at = match (self.at, byte) {
            (at, b' ' | b'\t' | b'\r' | b'\n') => at,
            (At::Outside, b'[') => {
                self.in_array = true;
                At::ArrayStart
            }
            (At::ArrayStart | At::AfterElement, b']') => {
                self.in_array = false;
                At::Outside
            }
            (At::AfterElement, b',') => At::AfterComma,
            (At::AfterElement, _) => {
                return Err(Error::new(ErrorKind::InvalidData, "there is no comma between two elements of the JSON array"));
            }
            (_, b',' | b']' | b'}') => {
                return Err(Error::new(ErrorKind::InvalidData, format!("`{}` where a JSON value should begin", char::from(byte))));
            }
            _ => {
                self.at = At::Inside(Value::default());
                return self.feed(byte);
            }
        };
        Ok(())
    }
}

impl<R: Read> Read for JsonLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.ready.len() {
            self.fill()?;
        }
        let length = buffer.len().min(self.ready.len() - self.taken);
        buffer[..length].copy_from_slice(&self.ready[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    fn lines(text: &str) -> std::io::Result<String> {
        let mut found = String::new();
        JsonLines::new(text.as_bytes()).read_to_string(&mut found).map(|_| found)
    }

    #[test]
    fn values_one_a_line() {
        for (text, wanted) in [
            ("", ""),
            ("[]", ""),
            (r#"{"a":1}"#, "{\"a\":1}\n"),
            ("{\n  \"a\": [1,\n 2]\n}\n{\"b\":2}", "{   \"a\": [1,  2] }\n{\"b\":2}\n"),
            ("[ {\"a\":1},\n{\"a\":\"]},\\\"{\"} ]\n", "{\"a\":1}\n{\"a\":\"]},\\\"{\"}\n"),
            ("[1, \"x\", null]", "1\n\"x\"\nnull\n"),
            ("{\"a\":1", "{\"a\":1"),
        ] {
            assert_eq!(lines(text).unwrap(), wanted, "{text}");
        }
        for text in ["[", "[{}", "[{},", "[{},]", "[,{}]", "[{}{}]", "}", "[{}]]"] {
            assert!(lines(text).is_err(), "{text}");
        }
    }

    #[test]
    fn line_or_lines() {
        for (text, spans) in [
            ("", false),
            ("{\"a\":1}\n{}", false),
            ("{\"a\":\"{\"}\n", false),
            (" [\n", true),
            ("{\n \"a\":1}", true),
            ("{\"a\":1}", false),
            ("x", false),
        ] {
            assert_eq!(spans_lines(text.as_bytes()), spans, "{text}");
        }
    }
}
