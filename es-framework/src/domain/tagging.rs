//! Called by generated code: the tags of an event, and the stream that it names, from its fields.

use std::fmt::{self, Display, Write};

use super::event::EncodeError;
use crate::log::{InvalidName, MAX_TAGS, StreamId, Tag};

/// The tags of one event while they are being collected.
#[derive(Debug)]
pub struct Tags {
    event: &'static str,
    all: Vec<Tag>,
    /// The first tag that could not be made.
    error: Option<EncodeError>,
}

impl Tags {
    /// Creates an empty list for an event with this stored name.
    pub fn new(event: &'static str) -> Self {
        Self { event, all: Vec::new(), error: None }
    }

    /// Adds a tag. A tag that is there already is not added again.
    fn add(&mut self, name: &'static str, value: &dyn Display) {
        if self.error.is_some() {
            return;
        }
        let tag = written(value, name).and_then(|value| Tag::of(name, value));
        match tag {
            Ok(tag) if self.all.contains(&tag) => {}
            Ok(_) if self.all.len() == MAX_TAGS => {
                self.error = Some(EncodeError::TooManyTags { name: self.event, limit: MAX_TAGS });
            }
            Ok(tag) => self.all.push(tag),
            Err(source) => self.error = Some(EncodeError::Tag { name: self.event, tag: name, source }),
        }
    }

    /// The tags, or why there are none.
    pub(super) fn finish(self) -> Result<Vec<Tag>, EncodeError> {
        self.error.map_or(Ok(self.all), Err)
    }
}

/// A field with a tag. It has one tag if its type implements [`Display`], and one for each item if a reference to it
/// iterates over values that do, as [`Option`], [`Vec`], slices and sets do.
///
/// The compiler chooses between the two by the number of references that a method takes: see [`ByDisplay`] and
/// [`ByItems`].
#[derive(Debug)]
pub struct Value<'a, T: ?Sized>(pub &'a T);

/// Looked up first.
pub trait ByDisplay {
    /// Adds the tag.
    fn add(&self, name: &'static str, tags: &mut Tags);
}

impl<T: Display + ?Sized> ByDisplay for &&Value<'_, T> {
    fn add(&self, name: &'static str, tags: &mut Tags) {
        tags.add(name, &self.0);
    }
}

/// Looked up for types that are not [`Display`].
pub trait ByItems {
    /// Adds the tags.
    fn add(&self, name: &'static str, tags: &mut Tags);
}

impl<'a, T: ?Sized> ByItems for &Value<'a, T>
where
    &'a T: IntoIterator,
    <&'a T as IntoIterator>::Item: Display,
{
    fn add(&self, name: &'static str, tags: &mut Tags) {
        for item in self.0 {
            tags.add(name, &item);
        }
    }
}

/// Looked up for all other types, so that the compiler says what is missing.
pub trait ByNothing {
    /// The type of the field.
    type Field: ?Sized;

    /// Never called.
    fn add(&self, _: &'static str, _: &mut Tags)
    where
        Self::Field: TagValue,
    {
    }
}

impl<T: ?Sized> ByNothing for Value<'_, T> {
    type Field = T;
}

/// Implemented for nothing, so that the compiler explains what to do.
#[diagnostic::on_unimplemented(
    message = "no tag can be made of `{Self}`",
    label = "it is neither `Display` nor a collection of values that are",
    note = "implement `Display` for it: the text is the value of the tag; `Option`, `Vec`, slices and sets of such values make several tags, or none",
    note = "for a type parameter, add the bound to the event's `where` clause"
)]
pub trait TagValue {}

/// The id of a stream while it is being written.
#[derive(Debug, Default)]
pub struct StreamText {
    text: String,
    error: Option<InvalidName>,
}

impl StreamText {
    /// Creates an empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part of the template.
    pub fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds the value of a field.
    pub fn field(&mut self, name: &'static str, value: &dyn Display) {
        match written(value, name) {
            Ok(text) if text.is_empty() => self.error = Some(InvalidName::Empty { what: name }),
            Ok(text) => self.text.push_str(&text),
            Err(error) => self.error = Some(error),
        }
    }

    /// The id; a wrapped value because not every variant of an event has to name its stream.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if a field was empty or the text is not a stream's id.
    pub fn finish(self) -> Result<Option<StreamId>, InvalidName> {
        self.error.map_or_else(|| StreamId::new(self.text).map(Some), Err)
    }
}

/// A field whose value is a part of a stream's id.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a stream's id",
    label = "it is not `Display`",
    note = "implement `Display` for it; for a type parameter, add the bound to the event's `where` clause"
)]
pub trait StreamValue {
    /// The value, for formatting.
    fn shown(&self) -> &dyn Display;
}

#[diagnostic::do_not_recommend]
impl<T: Display> StreamValue for T {
    fn shown(&self) -> &dyn Display {
        self
    }
}

/// The text of a value. Formatting fails only if the value's own `Display` does.
fn written(value: &dyn Display, what: &'static str) -> Result<String, InvalidName> {
    let mut text = String::new();
    match write!(text, "{value}") {
        Ok(()) => Ok(text),
        Err(fmt::Error) => Err(InvalidName::Empty { what }),
    }
}
