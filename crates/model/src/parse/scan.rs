//! The JSON scanner: strings, numbers, and checked skipping of whole documents, on text known to be valid UTF-8.

use super::block::{self, BLOCK};

/// What is wrong with the JSON text itself. After one of these the rest of the record can't be made sense of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a string has no closing quote, or an unescaped control character in it")]
    OpenString,
    #[error("a backslash is followed by something that is not an escape")]
    BadEscape,
    #[error("a \\u escape is half of a surrogate pair")]
    LoneSurrogate,
    #[error("the NUL character is not allowed")]
    Nul,
    #[error("a number is malformed")]
    BadNumber,
    #[error("expected a JSON value")]
    NoValue,
    #[error("expected a field name in quotes")]
    NoKey,
    #[error("expected a colon after the field name")]
    NoColon,
    #[error("expected a comma or the end of the object or array")]
    NoComma,
    #[error("nested deeper than allowed")]
    TooDeep,
}

/// The inside of a string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// Everything between the quotes, as written.
    pub raw: &'a [u8],
    /// Whether there are escapes in it. They have been checked.
    pub escaped: bool,
}

impl<'a> Text<'a> {
    /// The string's value; `scratch` is used if there are escapes to replace.
    #[inline(always)]
    pub fn value<'s>(self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        if self.escaped {
            scratch.clear();
            unescape(self.raw, scratch);
            scratch
        } else {
            self.raw
        }
    }
}

/// Most levels of nesting that the scanner can be asked to allow.
pub(super) const MAX_DEPTH: u32 = 128;

/// Walks through JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// Whether a line feed is white space. In NDJSON it ends the record.
    pub multiline: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8], multiline: bool) -> Self {
        Scanner { bytes, at: 0, multiline }
    }

    /// The byte at the current position; NUL at the end.
    #[inline(always)]
    pub fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space and returns the byte after it.
    #[inline(always)]
    pub fn token(&mut self) -> u8 {
        let byte = self.byte();
        if byte > b' ' { byte } else { self.token_after_space() }
    }

    #[inline(never)]
    fn token_after_space(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' if self.multiline => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Reads the rest of a string whose opening quote has been consumed.
    #[inline(always)]
    pub fn string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        let stops = block::load(self.bytes, start).string_stops();
        if stops != 0 {
            let end = start + stops.trailing_zeros() as usize;
            if self.bytes.get(end) == Some(&b'"') {
                self.at = end + 1;
                return Ok(Text { raw: &self.bytes[start..end], escaped: false });
            }
        }
        self.long_string()
    }

    #[inline(never)]
    fn long_string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let stops = block::load(self.bytes, self.at).string_stops();
            if stops == 0 {
                self.at += BLOCK;
                continue;
            }
            self.at += stops.trailing_zeros() as usize;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.bytes[start..self.at];
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Fault::OpenString),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match hex4(self.bytes, self.at + 2).ok_or(Fault::BadEscape)? {
                0 => Err(Fault::Nul),
                0xdc00..=0xdfff => Err(Fault::LoneSurrogate),
                0xd800..=0xdbff => {
                    let low = match self.bytes.get(self.at + 6..self.at + 8) {
                        Some(b"\\u") => hex4(self.bytes, self.at + 8),
                        _ => None,
                    };
                    if !matches!(low, Some(0xdc00..=0xdfff)) {
                        return Err(Fault::LoneSurrogate);
                    }
                    self.at += 12;
                    Ok(())
                }
                _ => {
                    self.at += 6;
                    Ok(())
                }
            },
            _ => Err(Fault::BadEscape),
        }
    }

    /// Reads a number and returns its text.
    #[inline(always)]
    pub fn number(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        if self.byte() == b'-' {
            self.at += 1;
        }
        match self.byte() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(Fault::BadNumber),
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(&self.bytes[start..self.at])
    }

    #[inline(always)]
    fn digits(&mut self) {
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn some_digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(Fault::BadNumber) } else { Ok(()) }
    }

    /// Consumes `word` if it is next.
    #[inline(always)]
    pub fn literal(&mut self, word: &[u8]) -> Result<(), Fault> {
        match self.bytes.get(self.at..self.at + word.len()) {
            Some(found) if found == word => {
                self.at += word.len();
                Ok(())
            }
            _ => Err(Fault::NoValue),
        }
    }

    /// Reads a field name and the colon after it.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Text<'a>, Fault> {
        if self.token() != b'"' {
            return Err(Fault::NoKey);
        }
        self.at += 1;
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline(always)]
    pub fn colon(&mut self) -> Result<(), Fault> {
        if self.token() != b':' {
            return Err(Fault::NoColon);
        }
        self.at += 1;
        Ok(())
    }

    /// Reads one JSON value of any type, checked to be well-formed, and returns its text without surrounding white space. `levels` is the
    /// nesting allowed: 0 for scalars only.
    pub fn document(&mut self, levels: u32) -> Result<&'a [u8], Fault> {
        let levels = levels.min(MAX_DEPTH);
        self.token();
        let start = self.at;
        // Bit i says whether level i, counted from the innermost, is an object.
        let mut objects: u128 = 0;
        let mut depth = 0;
        loop {
            match self.token() {
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                b'-' | b'0'..=b'9' => self.number().map(drop)?,
                open @ (b'{' | b'[') => {
                    if depth == levels {
                        return Err(Fault::TooDeep);
                    }
                    self.at += 1;
                    let close = open + 2;
                    if self.token() == close {
                        self.at += 1;
                    } else {
                        depth += 1;
                        objects = objects << 1 | u128::from(open == b'{');
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(Fault::NoValue),
            }
            loop {
                if depth == 0 {
                    return Ok(&self.bytes[start..self.at]);
                }
                let object = objects & 1 == 1;
                match self.token() {
                    b',' => {
                        self.at += 1;
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return Err(Fault::NoComma),
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
        }
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, &digit| Some(value << 4 | (digit as char).to_digit(16)?))
}

/// Replaces escapes that [`Scanner::string`] has checked.
#[inline(never)]
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < raw.len() {
        let stop = block::find(raw, at, b'\\');
        out.extend_from_slice(&raw[at..stop]);
        let Some(&escape) = raw.get(stop + 1) else { return };
        at = stop + 2;
        let character = match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = hex4(raw, at).unwrap_or_default();
                at += 4;
                if (0xd800..0xdc00).contains(&code) {
                    let low = hex4(raw, at + 2).unwrap_or_default();
                    code = 0x1_0000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
                    at += 6;
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            plain => plain as char,
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
