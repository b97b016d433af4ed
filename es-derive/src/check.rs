//! Checks names the way the store does, so that names it would refuse do not compile.

use crate::ctxt::Ctxt;
use crate::name::Name;

/// The maximum length of a name in bytes, as in `es_framework::MAX_NAME_BYTES`.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// Checks the stored name of an event.
pub(crate) fn event_name(ctxt: &mut Ctxt, name: &Name) {
    stored_name(ctxt, name, "the stored name of an event", MAX_NAME_BYTES);
}

/// Checks the stored name of a command.
pub(crate) fn command_name(ctxt: &mut Ctxt, name: &Name) {
    stored_name(ctxt, name, "the stored name of a command", MAX_NAME_BYTES);
}

/// Checks the category of an aggregate; a stream's id is the category, a `-` and the aggregate's id.
pub(crate) fn category(ctxt: &mut Ctxt, category: &Name) {
    // Room for the `-` and an id of one byte.
    stored_name(ctxt, category, "a category", MAX_NAME_BYTES - 2);
    let Some(text) = category.literal() else { return };
    if text.contains('-') {
        ctxt.error(category, "a category cannot contain `-`: in a stream's id it ends the category");
    }
    if text.starts_with('@') {
        ctxt.error(category, "a category cannot start with `@`, which is reserved for the store");
    }
}

/// Checks the name of a tag; a tag is the name, a `:` and a value.
pub(crate) fn tag_name(ctxt: &mut Ctxt, name: &Name) {
    // Room for the `:` and a value of one byte.
    stored_name(ctxt, name, "the name of a tag", MAX_NAME_BYTES - 2);
    if name.literal().is_some_and(|text| text.contains(':')) {
        ctxt.error(name.written(), "the name of a tag cannot contain `:`, which ends it: a tag is `name:value`");
    }
}

/// Checks a name that is a literal; the compiler checks a constant by the same rules.
fn stored_name(ctxt: &mut Ctxt, name: &Name, what: &str, max_bytes: usize) {
    let Some(text) = name.literal() else { return };
    if text.is_empty() {
        ctxt.error(name, format_args!("{what} cannot be empty"));
    } else if text.len() > max_bytes {
        ctxt.error(name, format_args!("{what} has at most {max_bytes} bytes, this one has {}", text.len()));
    } else if let Some(character) = text.chars().find(|c| *c < ' ') {
        ctxt.error(name, format_args!("{what} cannot contain control characters, found {character:?}"));
    }
}
