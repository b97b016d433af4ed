//! Runs user code and turns its panics into messages.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// Runs `code`; if it panics, returns the panic message.
///
/// What `code` was changing may be left half-changed: the caller must discard it or fail.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = message(payload.as_ref());
        // The payload may be a user's value that panics again when it is dropped.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(another);
        }
        message
    })
}

/// Runs a future to completion; if a poll panics, returns the panic message.
///
/// The future is boxed; otherwise the caller's future would have to be as large as everything it catches.
pub(crate) fn catch_async<F: Future>(future: F) -> impl Future<Output = Result<F::Output, String>> {
    let mut future = Box::pin(future);
    poll_fn(move |context| match catch(|| future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(message) => Poll::Ready(Err(message)),
    })
}

/// Extracts the message from a panic's payload.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the panic has no message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    #[test]
    fn the_message_of_a_panic_is_returned_whatever_it_is_made_of() {
        struct PanicsToo;
        impl Drop for PanicsToo {
            fn drop(&mut self) {
                panic!("as it is dropped");
            }
        }
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(catch(|| -> u8 { panic!("a literal") }), Err("a literal".to_owned()));
        assert_eq!(catch(|| -> u8 { panic!("a number: {}", 7) }), Err("a number: 7".to_owned()));
        assert_eq!(catch(|| -> u8 { panic_any(7) }), Err("the panic has no message".to_owned()));
        assert_eq!(catch(|| -> u8 { panic_any(PanicsToo) }), Err("the panic has no message".to_owned()));
    }
}
