//! Writes a traced type as text.

use std::fmt;

use super::slots::{Kind, Numbers, Slot, SlotId};

pub(super) fn render(slots: &[Slot]) -> String {
    let mut text = String::new();
    write(slots, 0, &mut text);
    text
}

fn write(slots: &[Slot], id: SlotId, text: &mut String) {
    let Some(slot) = slots.get(id) else { return };
    match &slot.kind {
        Kind::Unknown => text.push_str("opaque"),
        Kind::Plain(name) => text.push_str(name),
        Kind::Unit => text.push_str("()"),
        Kind::Option(inner) => {
            text.push('?');
            write(slots, *inner, text);
        }
        Kind::Seq(inner) => {
            text.push('[');
            write(slots, *inner, text);
            text.push(']');
        }
        Kind::Map(key, value) => {
            text.push('[');
            write(slots, *key, text);
            text.push(':');
            write(slots, *value, text);
            text.push(']');
        }
        Kind::Newtype(inner) => {
            text.push('(');
            write(slots, *inner, text);
            text.push(')');
        }
        Kind::Tuple { len, parts } => write_tuple(slots, *len, parts, text),
        Kind::Struct(fields) => {
            text.push('{');
            let mut separator = "";
            for field in fields.iter().filter(|field| !field.is_alias) {
                text.push_str(separator);
                separator = ",";
                push_name(field.name, text);
                text.push(':');
                write(slots, field.slot, text);
            }
            text.push('}');
        }
        Kind::Enum { variants, numbers } => {
            text.push_str(if *numbers == Numbers::Aliased { "enum*{" } else { "enum{" });
            let mut separator = "";
            for variant in variants {
                text.push_str(separator);
                separator = ",";
                push_name(variant.name, text);
                match slots.get(variant.slot).map(|slot| &slot.kind) {
                    Some(Kind::Unit) => {}
                    Some(Kind::Newtype(_) | Kind::Tuple { .. } | Kind::Struct(_)) => write(slots, variant.slot, text),
                    _ => text.push_str("(opaque)"),
                }
            }
            text.push('}');
        }
        Kind::Back { levels, .. } => {
            text.push('^');
            text.push_str(&levels.to_string());
        }
    }
}

fn write_tuple(slots: &[Slot], len: usize, parts: &[SlotId], text: &mut String) {
    let mut parts: Vec<String> = parts
        .iter()
        .map(|part| {
            let mut text = String::new();
            write(slots, *part, &mut text);
            text
        })
        .collect();
    // Parts that were never requested are shown as a single one.
    if parts.len() < len {
        parts.push("opaque".to_owned());
    }
    text.push('(');
    for (i, run) in parts.chunk_by(|a, b| a == b).enumerate() {
        if i > 0 {
            text.push(',');
        }
        match run {
            [first, _, _, _, ..] => {
                text.push_str(first);
                text.push(';');
                text.push_str(&run.len().to_string());
            }
            few => text.push_str(&few.join(",")),
        }
    }
    text.push_str(if len == 1 { ",)" } else { ")" });
}

fn push_name(name: &str, text: &mut String) {
    write_name(name, text).expect("writing into a string does not fail");
}

/// Writes the name of a field or variant; one that is not a plain identifier is quoted.
pub(super) fn write_name(name: &str, to: &mut impl fmt::Write) -> fmt::Result {
    if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        to.write_str(name)
    } else {
        write!(to, "\"{}\"", name.escape_debug())
    }
}
