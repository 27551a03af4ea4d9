//! Decoder of `pgoutput`'s messages, protocol version 1 with values as text. It borrows from the message, checks all lengths, and never panics whatever it
//! is given.

use crate::error::{CaptureError, Result};
use crate::row::Value;
use std::borrow::Cow;

/// Most columns of a table in PostgreSQL.
const MAX_COLUMNS: usize = 1600;

/// What a transaction did, one message each.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins that has been committed.
    Begin(Begin),
    /// It has been sent whole.
    Commit(Commit),
    /// What somebody has said with `pg_logical_emit_message` in the transaction: prefix and content.
    Said(Cow<'a, str>, &'a [u8]),
    /// A table as it is from here on.
    Relation(Relation),
    /// A type that isn't built in: object id, and name of its base type.
    Type(u32, TypeName),
    /// A row came.
    Insert(u32, Tuple<'a>),
    /// A row changed; the row before, if it was sent.
    Update(u32, Option<Old<'a>>, Tuple<'a>),
    /// A row went.
    Delete(u32, Old<'a>),
    /// All rows of these tables went.
    Truncate(Truncate),
    /// Something without changes.
    Other,
}

/// The beginning of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// LSN of its commit record.
    pub commit_lsn: u64,
    /// When it was committed, µs since 2000-01-01 UTC.
    pub commit_time: i64,
    /// Its number.
    pub xid: u32,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// LSN after its commit record.
    pub end_lsn: u64,
    /// When it was committed, µs since 2000-01-01 UTC.
    pub commit_time: i64,
}

/// Name of a type: schema (`""` for `pg_catalog`) and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
}

/// A row before its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old<'a> {
    /// Whether only the columns of the replica identity are there.
    pub key_only: bool,
    /// Its values.
    pub tuple: Tuple<'a>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Object id.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Replica identity: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub identity: u8,
    /// Columns that are sent.
    pub columns: Vec<Column>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: String,
    /// Object id of its type.
    pub type_oid: u32,
}

/// TRUNCATE of several tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Object ids of the tables.
    pub relations: Vec<u32>,
    /// With CASCADE.
    pub cascade: bool,
    /// With RESTART IDENTITY.
    pub restart_identity: bool,
}

/// Values of a row, checked to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The values in column order.
    pub fn values(self) -> Values<'a> {
        Values { reader: Reader(self.bytes), left: self.count }
    }
}

/// Values of a [`Tuple`].
#[derive(Clone)]
pub struct Values<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The tuple has been read once, so this can't fail.
        self.reader.value().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Reads big-endian numbers and what they count.
#[derive(Clone)]
pub(super) struct Reader<'a>(&'a [u8]);

fn truncated() -> CaptureError {
    CaptureError::Malformed("a replication message is shorter than it says".into())
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn name(&mut self) -> Result<Cow<'a, str>> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or_else(truncated)?;
        let text = String::from_utf8_lossy(self.take(end)?);
        self.take(1)?;
        Ok(text)
    }

    fn text(&mut self) -> Result<String> {
        self.name().map(Cow::into_owned)
    }

    fn count(&mut self) -> Result<usize> {
        let count = usize::from(self.u16()?);
        if count > MAX_COLUMNS {
            return Err(CaptureError::Malformed(format!("a replication message has {count} columns")));
        }
        Ok(count)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.u32()?).map_err(|_| truncated())?;
        self.take(length)
    }

    fn value(&mut self) -> Result<Value<'a>> {
        Ok(match self.u8()? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let bytes = self.bytes()?;
                std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
            }
            b'b' => Value::Bytes(self.bytes()?),
            other => return Err(CaptureError::Malformed(format!("a replication message has a value of kind {other}"))),
        })
    }

    fn skip_value(&mut self) -> Result<()> {
        match self.u8()? {
            b'n' | b'u' => Ok(()),
            b't' | b'b' => self.bytes().map(drop),
            other => Err(CaptureError::Malformed(format!("a replication message has a value of kind {other}"))),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>> {
        let count = self.count()?;
        let all = self.0;
        for _ in 0..count {
            self.skip_value()?;
        }
        Ok(Tuple { count, bytes: &all[..all.len() - self.0.len()] })
    }

    fn expect(&mut self, kind: u8) -> Result<()> {
        match self.u8()? {
            found if found == kind => Ok(()),
            found => Err(CaptureError::Malformed(format!("a replication message has part {found} where {kind} was expected"))),
        }
    }

    fn old(&mut self) -> Result<Option<Old<'a>>> {
        let key_only = match self.0.first() {
            Some(b'K') => true,
            Some(b'O') => false,
            _ => return Ok(None),
        };
        self.take(1)?;
        Ok(Some(Old { key_only, tuple: self.tuple()? }))
    }

    fn relation(&mut self) -> Result<Relation> {
        let (oid, schema, name, identity) = (self.u32()?, self.text()?, self.text()?, self.u8()?);
        let mut columns = Vec::new();
        for _ in 0..self.count()? {
            let (flags, name, type_oid) = (self.u8()?, self.text()?, self.u32()?);
            self.u32()?;
            columns.push(Column { key: flags & 1 != 0, name, type_oid });
        }
        Ok(Relation { oid, schema, name, identity, columns })
    }

    fn begin(&mut self) -> Result<Begin> {
        Ok(Begin { commit_lsn: self.u64()?, commit_time: self.i64()?, xid: self.u32()? })
    }

    fn commit(&mut self) -> Result<Commit> {
        self.take(9)?;
        Ok(Commit { end_lsn: self.u64()?, commit_time: self.i64()? })
    }

    /// A message that isn't the transaction's own is not ours.
    fn said(&mut self) -> Result<Message<'a>> {
        let flags = self.u8()?;
        self.take(8)?;
        let (prefix, content) = (self.name()?, self.bytes()?);
        Ok(if flags & 1 == 0 { Message::Other } else { Message::Said(prefix, content) })
    }

    fn truncate(&mut self) -> Result<Truncate> {
        let count = self.u32()?;
        let flags = self.u8()?;
        let relations = (0..count).map(|_| self.u32()).collect::<Result<_>>()?;
        Ok(Truncate { relations, cascade: flags & 1 != 0, restart_identity: flags & 2 != 0 })
    }
}

/// Decodes one message.
///
/// # Errors
/// [`CaptureError::Malformed`] if it is none.
pub fn decode(message: &[u8]) -> Result<Message<'_>> {
    let mut reader = Reader(message);
    Ok(match reader.u8()? {
        b'R' => Message::Relation(reader.relation()?),
        b'Y' => {
            let oid = reader.u32()?;
            Message::Type(oid, TypeName { schema: reader.text()?, name: reader.text()? })
        }
        b'I' => {
            let relation = reader.u32()?;
            reader.expect(b'N')?;
            Message::Insert(relation, reader.tuple()?)
        }
        b'U' => {
            let (relation, old) = (reader.u32()?, reader.old()?);
            reader.expect(b'N')?;
            Message::Update(relation, old, reader.tuple()?)
        }
        b'D' => {
            let relation = reader.u32()?;
            let old = reader.old()?.ok_or_else(|| CaptureError::Malformed("a deleted row has no values".into()))?;
            Message::Delete(relation, old)
        }
        b'T' => Message::Truncate(reader.truncate()?),
        b'B' => Message::Begin(reader.begin()?),
        b'C' => Message::Commit(reader.commit()?),
        b'M' => reader.said()?,
        b'O' => Message::Other,
        other => return Err(CaptureError::Malformed(format!("replication message of unknown kind {other}"))),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn tuple(values: &[Option<&str>]) -> Vec<u8> {
        let mut out = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                Some("\u{1}") => out.push(b'u'),
                Some(text) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
                None => out.push(b'n'),
            }
        }
        out
    }

    fn row(kind: u8, parts: &[(u8, &[Option<&str>])]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend(7u32.to_be_bytes());
        for (part, values) in parts {
            out.push(*part);
            out.extend(tuple(values));
        }
        out
    }

    fn relation() -> Vec<u8> {
        let mut out = vec![b'R'];
        out.extend(7u32.to_be_bytes());
        out.extend(b"case\0h\xe1\xbb\x93 s\xc6\xa1\0f\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0n\0\0\0\x06\xa4\xff\xff\xff\xff");
        out
    }

    #[test]
    fn messages() {
        let Message::Relation(table) = decode(&relation()).unwrap() else { panic!() };
        assert_eq!((table.oid, table.schema.as_str(), table.name.as_str(), table.identity), (7, "case", "hồ sơ", b'f'));
        assert_eq!(table.columns[1], Column { key: false, name: "n".into(), type_oid: 1700 });

        let message = row(b'U', &[(b'O', &[Some("1"), None]), (b'N', &[Some("1"), Some("\u{1}")])]);
        let Message::Update(7, Some(old), new) = decode(&message).unwrap() else { panic!() };
        assert!(!old.key_only && new.len() == 2);
        assert_eq!(old.tuple.values().collect::<Vec<_>>(), [Value::Text("1"), Value::Null]);
        assert_eq!(new.values().collect::<Vec<_>>(), [Value::Text("1"), Value::Unchanged]);

        let message = row(b'D', &[(b'K', &[Some("é")])]);
        let Message::Delete(7, old) = decode(&message).unwrap() else { panic!() };
        assert!(old.key_only);

        let truncate = decode(b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08").unwrap();
        assert_eq!(truncate, Message::Truncate(Truncate { relations: vec![7, 8], cascade: true, restart_identity: true }));
        let kind = decode(b"Y\0\0\0\x07\0numeric\0").unwrap();
        assert_eq!(kind, Message::Type(7, TypeName { schema: String::new(), name: "numeric".into() }));
    }

    #[test]
    fn refused() {
        for message in [
            &b""[..],
            b"?",
            b"T\xff\xff\xff\xff\0",
            b"I\0\0\0\x07N\xff\xff",
            b"D\0\0\0\x07N\0\0",
            b"I\0\0\0\x07N\0\x01t\xff\xff\xff\xff",
            b"I\0\0\0\x07N\0\x01?",
        ] {
            assert!(matches!(decode(message), Err(CaptureError::Malformed(_))), "{message:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text() {
        let Message::Insert(_, new) = decode(b"I\0\0\0\x07N\0\x01t\0\0\0\x01\xff").unwrap() else { panic!() };
        assert_eq!(new.values().next(), Some(Value::Bytes(b"\xff")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(kind in "[RYIUDTOBCM?]", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = kind.into_bytes();
            message.extend(bytes);
            if let Ok(Message::Insert(_, tuple) | Message::Update(_, _, tuple)) = decode(&message) {
                prop_assert_eq!(tuple.values().count(), tuple.len());
            }
        }

        #[test]
        fn a_damaged_message_is_decoded_or_refused(at in 0usize..60, byte in any::<u8>(), cut in 0usize..60) {
            for good in [relation(), row(b'U', &[(b'O', &[Some("abc"), None]), (b'N', &[Some("\u{1}"), Some("")])])] {
                let mut message = good.clone();
                let at = at % message.len();
                message[at] = byte;
                let _ = decode(&message);
                let _ = decode(&good[..cut.min(good.len() - 1)]);
            }
        }

        #[test]
        fn values_come_back(values in proptest::collection::vec(proptest::option::of("\\PC{0,9}"), 0..20)) {
            let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
            let message = row(b'I', &[(b'N', &values)]);
            let Message::Insert(7, new) = decode(&message).unwrap() else { panic!() };
            let expected: Vec<_> = values.iter().map(|value| value.map_or(Value::Null, Value::Text)).collect();
            prop_assert_eq!(new.values().collect::<Vec<_>>(), expected);
        }
    }
}
