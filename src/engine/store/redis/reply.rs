//! Reads replies. A reply of an unexpected form is an error, never a panic.

use bytes::Bytes;
use redis::Value;

use super::super::{Body, Entry, EntryId, Partition};
use crate::engine::error::{Code, Error, Result};

/// A reply that does not have the form the command promises.
pub fn unexpected(what: &str) -> Error {
    Error::new(Code::Redis, format!("the server's reply to {what} has an unexpected form"))
}

/// Array, set, or pairs of a map in a row.
pub fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(server_error(&error)),
        _ => Err(unexpected("a list")),
    }
}

/// Bytes of a string.
pub fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::Int(n) => Ok(n.to_string().into_bytes()),
        Value::ServerError(error) => Err(server_error(&error)),
        _ => Err(unexpected("a string")),
    }
}

/// Text; bytes that are not UTF-8 are replaced.
pub fn text(value: Value) -> Result<String> {
    Ok(String::from_utf8(bytes(value)?).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// A whole number, also where the server writes it as text.
pub fn int(value: &Value) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Double(n) => {
            #[allow(clippy::cast_possible_truncation)] // times and counts
            Ok(*n as i64)
        }
        Value::BulkString(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|t| t.parse::<f64>().ok())
            .map(|n| {
                #[allow(clippy::cast_possible_truncation)]
                let n = n as i64;
                n
            })
            .ok_or_else(|| unexpected("a number")),
        Value::ServerError(error) => Err(server_error(error)),
        _ => Err(unexpected("a number")),
    }
}

/// A number that is not negative.
pub fn count(value: &Value) -> Result<u64> {
    Ok(u64::try_from(int(value)?).unwrap_or(0))
}

/// ms since 1970 of a reply to TIME.
pub fn time_ms(value: Value) -> Result<u64> {
    let parts = list(value)?;
    let [seconds, micros] = parts.as_slice() else { return Err(unexpected("TIME")) };
    Ok(count(seconds)? * 1000 + count(micros)? / 1000)
}

/// The value of `key` in a list of pairs.
pub fn field<'a>(pairs: &'a [Value], key: &str) -> Option<&'a Value> {
    pairs
        .chunks_exact(2)
        .find(|pair| {
            matches!(&pair[0], Value::BulkString(k) if k == key.as_bytes()) || matches!(&pair[0], Value::SimpleString(k) if k == key)
        })
        .map(|pair| &pair[1])
}

/// A stream id.
pub fn entry_id(value: &Value) -> Result<EntryId> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()).ok_or_else(|| unexpected("a stream id")),
        _ => Err(unexpected("a stream id")),
    }
}

/// Entry fields as a list of pairs.
pub fn body(fields: Value) -> Result<Body> {
    let mut raw = Vec::with_capacity(2);
    let mut items = list(fields)?.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        raw.push((bytes(key)?, bytes(value)?));
    }
    let raw: Vec<(&[u8], &[u8])> = raw.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    Ok(body_of(&raw, Bytes::copy_from_slice))
}

/// What an entry with these fields is; `keep` makes its texts last.
pub fn body_of(fields: &[(&[u8], &[u8])], keep: impl Fn(&[u8]) -> Bytes) -> Body {
    let (mut meta, mut data, mut only_group, mut first_entry) = (None, None, None, None);
    for (key, value) in fields {
        match *key {
            b"meta" => meta = Some(*value),
            b"data" => data = Some(*value),
            b"to" => only_group = Some(*value),
            b"first" => first_entry = Some(*value),
            _ => {}
        }
    }
    let lossy = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    match (meta, data) {
        (Some(meta), Some(data)) => Body::Event {
            meta: keep(meta),
            data: keep(data),
            only_group: only_group.map(lossy),
            first_entry: first_entry.and_then(|value| lossy(value).parse().ok()),
        },
        _ => Body::Foreign(fields.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()),
    }
}

/// `[id, [field, value, …]]`; `None` for an entry that is gone.
pub fn entry(partition: &Partition, value: Value, deliveries: u32, crashes: u32) -> Result<Option<Entry>> {
    let mut parts = list(value)?.into_iter();
    let (Some(id), Some(fields)) = (parts.next(), parts.next()) else { return Ok(None) };
    if fields == Value::Nil {
        return Ok(None);
    }
    Ok(Some(Entry { partition: partition.clone(), id: entry_id(&id)?, body: body(fields)?, deliveries, crashes, refusal: None }))
}

/// An error inside a reply.
pub fn server_error(error: &redis::ServerError) -> Error {
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    super::failure::server_error(error.code(), &text)
}
