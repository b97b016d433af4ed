//! The names of commands.

/// A command with a name of its own; derive it with [`#[derive(Command)]`](derive@crate::Command).
///
/// A command needs a name where the log remembers it: under a [key](crate::Execute::key). Any type can be a command without
/// one: what an aggregate decides about is whatever it implements [`Handle`](crate::Handle) for.
#[diagnostic::on_unimplemented(
    message = "the command `{Self}` has no stored name",
    note = "put `#[derive(Command)]` and `#[es(name = \"…\")]` on the type"
)]
pub trait Command {
    /// The stored name. It stays the same when the type is renamed, and no other command has it.
    const NAME: &'static str;
}
