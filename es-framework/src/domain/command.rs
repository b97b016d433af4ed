//! The names of commands.

use serde::{Serialize, Serializer};

/// A command with a name of its own; derive it with [`#[derive(Command)]`](derive@crate::Command).
///
/// A command needs a name only where the log remembers it, under a [key](crate::Execute::key). Without a key, any type
/// for which the aggregate implements [`Handle`](crate::Handle) is a command.
#[diagnostic::on_unimplemented(
    message = "the command `{Self}` has no stored name",
    note = "put `#[derive(Command)]` and `#[es(name = \"…\")]` on the type"
)]
pub trait Command {
    /// The stored name. It stays the same when the type is renamed, and must not be the name of another command.
    const NAME: &'static str;

    /// The stored name of this value: [`Self::NAME`], or for an [enum of
    /// commands](crate::commands#an-enum-of-the-commands) the name of the command inside.
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// Serializes the content of the command, without its name.
    #[doc(hidden)]
    fn serialize_content<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>
    where
        Self: Serialize,
    {
        self.serialize(serializer)
    }
}
