//! Turns payloads into JSON by their shape, without their Rust type.

use std::fmt::Write;

use super::parse::InvalidShape;
use super::stored::{Node, NodeId, Plain, StoredShape};
use crate::log::EventType;

/// How deeply values may be nested: the 128 levels that the codec itself reads, each up to three places of a shape.
const MAX_DEPTH: usize = 3 * 128;
/// The maximum number of list elements that take no bytes, as in the codec itself.
const MAX_EMPTY: usize = 65_536;
/// The maximum length of the JSON; names of fields make it many times as long as the payload.
const MAX_JSON: usize = 256 << 20;

/// A payload as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PayloadJson {
    /// One JSON value.
    pub json: String,
    /// Whether it contains the whole payload. If the shape does not tell how to continue, the rest of the payload is
    /// inserted at that place as `{"$unread":"…"}`, in hexadecimal digits, and everything after it is missing.
    pub is_whole: bool,
}

/// A payload that does not fit its shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The stored text is not a shape.
    #[error("the shape of the payload cannot be read")]
    Shape(#[from] InvalidShape),
    /// The payload ends early, or contains something other than the shape describes.
    #[error("the payload does not fit its shape at byte {at}: {expected} was expected")]
    Unfit {
        /// The byte offset in the payload.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// The shape ends before the payload does.
    #[error("the payload does not fit its shape: {left} bytes are left over")]
    LeftOver {
        /// The number of bytes left over.
        left: usize,
    },
    /// Values are nested deeper than the codec reads.
    #[error("the payload is nested too deep at byte {at}")]
    TooDeep {
        /// The byte offset in the payload.
        at: usize,
    },
    /// The JSON would become longer than 256 MiB, or lists hold over 65,536 values that take no bytes.
    #[error("the payload is too long as JSON")]
    TooLong,
    /// The payload's codec is JSON, but the payload is not.
    #[error("the payload is not JSON")]
    NotJson,
}

/// Turns a stored payload into JSON without its Rust type, by its codec, and by its shape if the codec needs one.
///
/// The JSON follows serde's view of the payload: unit is `null`, an option its value or `null`, a newtype its value, a
/// variant `"Name"` or `{"Name": …}`, bytes a list of numbers. A map with keys other than strings, numbers, `bool`s or
/// unit variants is a list of pairs. Integers are written exactly, even beyond 64 bits. Floats that JSON cannot
/// represent are `"NaN"`, `"Infinity"` and `"-Infinity"`.
///
/// A payload of the codec `json` is returned as it is. If the codec is unknown, or needs a shape and there is none, the
/// result is `{"$codec":"…","$bytes":"…"}`, with the payload in hexadecimal digits.
///
/// ```
/// use es_framework::EventType;
/// use es_framework::inspect::payload_to_json;
///
/// let opened = EventType::new("account.opened", 1, "bincode")?.with_shape("{owner:?str,cents:u64}");
/// let payload = [1, 3, b'A', b'n', b'n', 251, 0xf4, 0x01];
/// assert_eq!(payload_to_json(&opened, &payload)?.json, r#"{"owner":"Ann","cents":500}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`PayloadError`] if the payload does not fit its shape, or the shape's text is not one. Never panics; whatever the
/// input, memory is bounded by 256 MiB plus the length of payload and shape.
pub fn payload_to_json(event_type: &EventType, payload: &[u8]) -> Result<PayloadJson, PayloadError> {
    match event_type.shape().filter(|_| event_type.codec() == BINCODE) {
        Some(shape) => StoredShape::parse(shape)?.to_json(event_type.codec(), payload),
        None => without_shape(event_type.codec(), payload),
    }
}

impl StoredShape {
    /// Turns a payload of this shape into JSON, as [`payload_to_json`] does; for reading many payloads of one shape.
    ///
    /// # Errors
    ///
    /// As for [`payload_to_json`].
    pub fn to_json(&self, codec: &str, payload: &[u8]) -> Result<PayloadJson, PayloadError> {
        if codec != BINCODE {
            return without_shape(codec, payload);
        }
        let mut reader =
            Reader { shape: self, payload, at: 0, depth: 0, empty: 0, json: String::new(), is_whole: true };
        reader.value(self.root)?;
        let left = payload.len() - reader.at;
        if left > 0 {
            return Err(PayloadError::LeftOver { left });
        }
        Ok(PayloadJson { json: reader.json, is_whole: reader.is_whole })
    }
}

/// The ids of the built-in codecs; their features do not have to be enabled for this.
const BINCODE: &str = "bincode";
const JSON: &str = "json";

fn without_shape(codec: &str, payload: &[u8]) -> Result<PayloadJson, PayloadError> {
    if codec == JSON {
        let text = std::str::from_utf8(payload).map_err(|_| PayloadError::NotJson)?;
        let _: serde::de::IgnoredAny = serde_json::from_str(text).map_err(|_| PayloadError::NotJson)?;
        return Ok(PayloadJson { json: text.to_owned(), is_whole: true });
    }
    let mut json = String::from("{\"$codec\":");
    push_text(codec, &mut json);
    json.push_str(",\"$bytes\":\"");
    push_hex(payload, &mut json);
    json.push_str("\"}");
    Ok(PayloadJson { json, is_whole: false })
}

fn push_text(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

fn push_hex(bytes: &[u8], json: &mut String) {
    for byte in bytes {
        // Writing into a string does not fail.
        let _: std::fmt::Result = write!(json, "{byte:02x}");
    }
}

/// Reads bincode in its standard configuration: little-endian, variable-length integers.
struct Reader<'a> {
    shape: &'a StoredShape,
    payload: &'a [u8],
    at: usize,
    depth: usize,
    /// The number of list elements so far that took no bytes.
    empty: usize,
    json: String,
    /// False once the rest of the payload was written undecoded.
    is_whole: bool,
}

impl<'a> Reader<'a> {
    fn unfit<T>(&self, expected: &'static str) -> Result<T, PayloadError> {
        Err(PayloadError::Unfit { at: self.at, expected })
    }

    fn value(&mut self, id: NodeId) -> Result<(), PayloadError> {
        if self.json.len() > MAX_JSON {
            return Err(PayloadError::TooLong);
        }
        if self.depth > MAX_DEPTH {
            return Err(PayloadError::TooDeep { at: self.at });
        }
        self.depth += 1;
        let shape = self.shape;
        match shape.nodes.get(id) {
            Some(Node::Plain(plain)) => self.plain(*plain)?,
            Some(Node::Unit) => self.json.push_str("null"),
            Some(Node::Option(inner)) => match self.byte("0 or 1 of an option")? {
                0 => self.json.push_str("null"),
                1 => self.value(*inner)?,
                _ => return self.unfit("0 or 1 of an option"),
            },
            Some(Node::Newtype(inner) | Node::Back(inner)) => self.value(*inner)?,
            Some(Node::Seq(inner)) => {
                let length = self.length("the length of a list")?;
                self.list((0..length).map(|_| *inner))?;
            }
            Some(Node::Tuple(parts)) => {
                self.list(parts.iter().flat_map(|(part, times)| (0..*times).map(move |_| *part)))?;
            }
            Some(Node::Map(key, value)) => self.map(*key, *value)?,
            Some(Node::Struct(fields)) => self.fields(fields)?,
            Some(Node::Enum { variants, is_aliased }) => self.variant(variants, *is_aliased)?,
            Some(Node::Any | Node::Opaque) | None => self.unread(),
        }
        self.depth -= 1;
        Ok(())
    }

    /// Writes the rest of the payload undecoded.
    fn unread(&mut self) {
        self.json.push_str("{\"$unread\":\"");
        push_hex(self.payload.get(self.at..).unwrap_or_default(), &mut self.json);
        self.json.push_str("\"}");
        self.at = self.payload.len();
        self.is_whole = false;
    }

    fn list(&mut self, parts: impl Iterator<Item = NodeId>) -> Result<(), PayloadError> {
        self.json.push('[');
        let mut separator = "";
        for part in parts {
            self.json.push_str(separator);
            separator = ",";
            let start = self.at;
            self.value(part)?;
            self.empty += usize::from(self.at == start);
            if self.empty > MAX_EMPTY {
                return Err(PayloadError::TooLong);
            }
            if !self.is_whole {
                break;
            }
        }
        self.json.push(']');
        Ok(())
    }

    fn fields(&mut self, fields: &[(String, NodeId)]) -> Result<(), PayloadError> {
        self.json.push('{');
        let mut separator = "";
        for (name, field) in fields {
            self.json.push_str(separator);
            separator = ",";
            push_text(name, &mut self.json);
            self.json.push(':');
            self.value(*field)?;
            if !self.is_whole {
                break;
            }
        }
        self.json.push('}');
        Ok(())
    }

    fn map(&mut self, key: NodeId, value: NodeId) -> Result<(), PayloadError> {
        let length = self.length("the length of a map")?;
        let has_text_keys = self.is_text(key);
        self.json.push(if has_text_keys { '{' } else { '[' });
        for i in 0..length {
            self.json.push_str(if i == 0 { "" } else { "," });
            if has_text_keys {
                // A key takes a byte.
                let start = self.json.len();
                self.value(key)?;
                self.quote_from(start);
                self.json.push(':');
                self.value(value)?;
            } else {
                self.list([key, value].into_iter())?;
            }
            if !self.is_whole {
                break;
            }
        }
        self.json.push(if has_text_keys { '}' } else { ']' });
        Ok(())
    }

    /// Whether a value can be a JSON key.
    fn is_text(&self, id: NodeId) -> bool {
        match self.shape.nodes.get(id) {
            Some(Node::Plain(plain)) => *plain != Plain::Bytes,
            Some(Node::Newtype(inner)) => self.is_text(*inner),
            Some(Node::Enum { variants, .. }) => variants.iter().all(|(_, content)| content.is_none()),
            _ => false,
        }
    }

    /// Puts quotes around the scalar that was just written, unless it has them.
    fn quote_from(&mut self, start: usize) {
        if self.json.get(start..).is_some_and(|scalar| !scalar.starts_with('"')) {
            self.json.insert(start, '"');
            self.json.push('"');
        }
    }

    fn variant(&mut self, variants: &[(String, Option<NodeId>)], is_aliased: bool) -> Result<(), PayloadError> {
        let start = self.at;
        let number = self.integer(4, "the number of a variant")?;
        if is_aliased {
            // The name is unknown, and so is the content, unless no variant has any.
            if variants.iter().all(|(_, content)| content.is_none()) {
                self.push(format_args!("\"#{number}\""));
            } else {
                self.at = start;
                self.unread();
            }
            return Ok(());
        }
        let variant = usize::try_from(number).ok().and_then(|number| variants.get(number));
        let Some((name, content)) = variant else {
            self.at = start;
            return self.unfit("the number of a variant");
        };
        let Some(content) = content else {
            push_text(name, &mut self.json);
            return Ok(());
        };
        self.json.push('{');
        push_text(name, &mut self.json);
        self.json.push(':');
        match self.shape.nodes.get(*content) {
            // A tuple variant without fields; one that holds a unit would be `(())`.
            Some(Node::Unit) => self.json.push_str("[]"),
            _ => self.value(*content)?,
        }
        self.json.push('}');
        Ok(())
    }

    fn plain(&mut self, plain: Plain) -> Result<(), PayloadError> {
        match plain {
            Plain::Bool => match self.byte("a bool")? {
                0 => self.json.push_str("false"),
                1 => self.json.push_str("true"),
                _ => return self.unfit("a bool"),
            },
            Plain::U8 => {
                let byte = self.byte("a u8")?;
                self.push(format_args!("{byte}"));
            }
            Plain::I8 => {
                let byte = self.byte("an i8")?;
                self.push(format_args!("{}", i8::from_le_bytes([byte])));
            }
            Plain::U16 => self.unsigned(2, "a u16")?,
            Plain::U32 => self.unsigned(4, "a u32")?,
            Plain::U64 => self.unsigned(8, "a u64")?,
            Plain::U128 => self.unsigned(16, "a u128")?,
            Plain::I16 => self.signed(2, "an i16")?,
            Plain::I32 => self.signed(4, "an i32")?,
            Plain::I64 => self.signed(8, "an i64")?,
            Plain::I128 => self.signed(16, "an i128")?,
            Plain::F32 => {
                let float = f32::from_le_bytes(self.bytes("an f32")?);
                self.float(float.is_finite(), float.into(), format_args!("{float:?}"));
            }
            Plain::F64 => {
                let float = f64::from_le_bytes(self.bytes("an f64")?);
                self.float(float.is_finite(), float, format_args!("{float:?}"));
            }
            Plain::Char => self.char()?,
            Plain::Str => {
                let start = self.at;
                let Ok(text) = std::str::from_utf8(self.run("a text")?) else {
                    self.at = start;
                    return self.unfit("a text in UTF-8");
                };
                push_text(text, &mut self.json);
            }
            Plain::Bytes => {
                let bytes = self.run("bytes")?;
                self.json.push('[');
                for (i, byte) in bytes.iter().enumerate() {
                    self.push(format_args!("{}{byte}", if i == 0 { "" } else { "," }));
                }
                self.json.push(']');
            }
        }
        Ok(())
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _: std::fmt::Result = self.json.write_fmt(text);
    }

    fn float(&mut self, is_finite: bool, float: f64, text: std::fmt::Arguments<'_>) {
        match float {
            _ if is_finite => self.push(text),
            f64::INFINITY => self.json.push_str("\"Infinity\""),
            f64::NEG_INFINITY => self.json.push_str("\"-Infinity\""),
            _ => self.json.push_str("\"NaN\""),
        }
    }

    fn unsigned(&mut self, width: usize, expected: &'static str) -> Result<(), PayloadError> {
        let integer = self.integer(width, expected)?;
        self.push(format_args!("{integer}"));
        Ok(())
    }

    /// A signed integer is stored zigzag-encoded: 0, -1, 1, -2, 2 as 0, 1, 2, 3, 4.
    fn signed(&mut self, width: usize, expected: &'static str) -> Result<(), PayloadError> {
        let number = self.integer(width, expected)?;
        let half = (number >> 1).cast_signed();
        self.push(format_args!("{}", if number & 1 == 0 { half } else { !half }));
        Ok(())
    }

    /// An integer of at most `width` bytes: one byte, or 251 to 254 followed by 2, 4, 8 or 16 bytes.
    fn integer(&mut self, width: usize, expected: &'static str) -> Result<u128, PayloadError> {
        let start = self.at;
        let stored = match self.byte(expected)? {
            small @ 0..=250 => return Ok(small.into()),
            251 => 2,
            252 => 4,
            253 => 8,
            254 => 16,
            255 => usize::MAX,
        };
        if stored > width {
            self.at = start;
            return self.unfit(expected);
        }
        match stored {
            2 => self.bytes(expected).map(|bytes| u16::from_le_bytes(bytes).into()),
            4 => self.bytes(expected).map(|bytes| u32::from_le_bytes(bytes).into()),
            8 => self.bytes(expected).map(|bytes| u64::from_le_bytes(bytes).into()),
            _ => self.bytes(expected).map(u128::from_le_bytes),
        }
    }

    fn length(&mut self, expected: &'static str) -> Result<u64, PayloadError> {
        let start = self.at;
        u64::try_from(self.integer(8, expected)?).or_else(|_| {
            self.at = start;
            self.unfit(expected)
        })
    }

    /// A length, followed by that many bytes.
    fn run(&mut self, expected: &'static str) -> Result<&'a [u8], PayloadError> {
        let length = self.length(expected)?;
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let run = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let Some(run) = run else { return self.unfit(expected) };
        self.at += run.len();
        Ok(run)
    }

    fn char(&mut self) -> Result<(), PayloadError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let length = match rest.first() {
            Some(0..0x80) => 1,
            Some(0xc0..0xe0) => 2,
            Some(0xe0..0xf0) => 3,
            _ => 4,
        };
        let text = rest.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(text) = text else { return self.unfit("a char") };
        self.at += length;
        push_text(text, &mut self.json);
        Ok(())
    }

    fn byte(&mut self, expected: &'static str) -> Result<u8, PayloadError> {
        let [byte] = self.bytes(expected)?;
        Ok(byte)
    }

    fn bytes<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], PayloadError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.first_chunk() else { return self.unfit(expected) };
        self.at += N;
        Ok(*bytes)
    }
}
