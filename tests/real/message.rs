//! Protobuf by hand, as little as the tests need: their bytes must not come from the code under test.
//!
//! Source: protobuf.dev, "Encoding".

use crate::peers::echo::Failure;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; zero is left out as every encoder does.
    pub fn uint(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            varint(u64::from(field) << 3, &mut self.0);
            varint(value, &mut self.0);
        }
        self
    }

    /// Adds bytes, a string or a message that is already encoded.
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        varint(u64::from(field) << 3 | 2, &mut self.0);
        varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds the end that a call of the Echo service is to have.
    pub fn failure(self, field: u32, failure: &Failure) -> Self {
        let inner = Self::new()
            .uint(1, u64::from(failure.code))
            .bytes(2, &failure.message)
            .bytes(3, &failure.details);
        self.bytes(field, inner.done())
    }

    /// What it has become.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of an encoded message in their order. Panics when it is none.
pub fn fields(mut input: &[u8]) -> Vec<(u32, Value)> {
    let mut out = Vec::new();
    while !input.is_empty() {
        let key = take_varint(&mut input);
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut input)),
            2 => {
                let length = take_varint(&mut input) as usize;
                let (value, rest) = input.split_at(length);
                input = rest;
                Value::Bytes(value.to_vec())
            }
            kind => panic!("wire type {kind} is in no message of the tests"),
        };
        out.push(((key >> 3) as u32, value));
    }
    out
}

/// The number in that field, 0 if it is absent.
pub fn number(message: &[u8], field: u32) -> u64 {
    fields(message)
        .into_iter()
        .find_map(|(at, value)| match value {
            Value::Number(number) if at == field => Some(number),
            _ => None,
        })
        .unwrap_or(0)
}

/// Every occurrence of that field.
pub fn all_bytes(message: &[u8], field: u32) -> Vec<Vec<u8>> {
    fields(message)
        .into_iter()
        .filter_map(|(at, value)| match value {
            Value::Bytes(bytes) if at == field => Some(bytes),
            _ => None,
        })
        .collect()
}

/// The bytes in that field, empty if it is absent.
pub fn bytes(message: &[u8], field: u32) -> Vec<u8> {
    all_bytes(message, field).pop().unwrap_or_default()
}

/// That field as text.
pub fn text(message: &[u8], field: u32) -> String {
    String::from_utf8(bytes(message, field)).expect("a string field is UTF-8")
}

fn take_varint(input: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().expect("a varint has an end");
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}
