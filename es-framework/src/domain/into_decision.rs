//! What a handler may return.

use super::event::Event;

/// What a handler in a block with [`#[commands]`](crate::commands) may return: one event, an array, a [`Vec`] or an
/// [`Option`] of events, `()` for none, or a [`Result`] of one of these whose error becomes a rejection `R` by
/// [`Into`].
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not events of type `{E}`",
    note = "a handler returns one `{E}`, an array, a `Vec` or an `Option` of them, `()` for none, or a `Result` of one of these",
    note = "the error of the `Result` is the one that `commands(error = …)` names, or one with `Into` for it"
)]
pub trait IntoDecision<E, R> {
    /// The events, or the rejection.
    ///
    /// # Errors
    ///
    /// The rejection, if there is one.
    fn into_decision(self) -> Result<Vec<E>, R>;
}

impl<E: Event, R> IntoDecision<E, R> for E {
    fn into_decision(self) -> Result<Vec<E>, R> {
        Ok(vec![self])
    }
}

impl<E: Event, R> IntoDecision<E, R> for () {
    fn into_decision(self) -> Result<Vec<E>, R> {
        Ok(Vec::new())
    }
}

impl<E: Event, R> IntoDecision<E, R> for Vec<E> {
    fn into_decision(self) -> Result<Self, R> {
        Ok(self)
    }
}

impl<E: Event, R, const N: usize> IntoDecision<E, R> for [E; N] {
    fn into_decision(self) -> Result<Vec<E>, R> {
        Ok(Vec::from(self))
    }
}

impl<E: Event, R, D: IntoDecision<E, R>> IntoDecision<E, R> for Option<D> {
    fn into_decision(self) -> Result<Vec<E>, R> {
        self.map_or_else(|| Ok(Vec::new()), D::into_decision)
    }
}

impl<E: Event, R, D: IntoDecision<E, R>, X: Into<R>> IntoDecision<E, R> for Result<D, X> {
    fn into_decision(self) -> Result<Vec<E>, R> {
        self.map_err(Into::into)?.into_decision()
    }
}
