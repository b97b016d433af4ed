//! The trait that users implement.

use std::borrow::Cow;
use std::future::Future;

use super::effect::Effect;
use crate::domain::{Event, Recorded};
use crate::log::BoxError;

/// Code that has an effect outside the store for each event: a mail, a call of another service, a message on a bus.
///
/// Run it with a [`Reaction`](crate::Reaction), which calls it at least once for every event. After a crash, the effects
/// of the last moments are tried again, each with the [key](Effect::key) it had before, by which the receiver can
/// recognize it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reactor",
    note = "write `impl Reactor for {Self}` with `type Event`, `type Error`, `const NAME` and `async fn react(&self, event: &Recorded<Self::Event>, effect: &Effect) -> Result<(), Self::Error>`"
)]
pub trait Reactor: Send + Sync + 'static {
    /// The events it reacts to; those of other types are never decoded.
    type Event: Event;

    /// Why an effect could not be had.
    type Error: Into<BoxError> + Send;

    /// Its name, under which the checkpoint is kept, and which begins its effect keys. Never change it: a reactor with
    /// another name starts at the beginning, with other keys.
    const NAME: &'static str;

    /// Has the effect of one event. Events of the same [key](Self::key) are passed one after the other in the order of
    /// the log, those of other keys at the same time.
    ///
    /// Implement it as an `async fn`. The future is dropped if it exceeds the
    /// [timeout](crate::Reaction::timeout), or if the runtime is shut down.
    ///
    /// # Errors
    ///
    /// Whatever keeps the effect from happening. It is tried again, as the [`Policy`](crate::Policy) says.
    fn react(
        &self,
        event: &Recorded<Self::Event>,
        effect: &Effect,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What the event belongs to. The effects of one key keep the order of the log. By default the stream of the event;
    /// for example a receiver, if what it receives must arrive in order.
    fn key<'e>(&self, event: &'e Recorded<Self::Event>) -> Cow<'e, str> {
        event.stream().as_str().into()
    }
}
