//! JSON with a checksum, for small values that are kept for long and looked at by people.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes a value: the CRC-32C of the JSON in 8 hexadecimal digits, a space, the JSON.
pub(crate) fn seal(value: &impl Serialize) -> Bytes {
    // Only structs of plain fields are sealed, which serde_json always writes.
    let json = serde_json::to_string(value).unwrap_or_default();
    Bytes::from(format!("{:08x} {json}", crc32c::crc32c(json.as_bytes())))
}

/// Decodes a value; [`None`] if it is damaged, or of a newer format.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (sum, json) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}
