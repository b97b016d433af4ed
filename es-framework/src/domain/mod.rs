//! The upper floor: the domain.

mod aggregate;
mod codec;
mod event;
pub(crate) mod private;
mod shape;

pub use aggregate::{Aggregate, Apply, Context, Handle, Progress, SnapshotPolicy, Snapshots};
#[cfg(feature = "bincode")]
pub use codec::Bincode;
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError};
pub use event::{DecodeError, EncodeError, Envelope, Event, Recorded};
pub use shape::Shape;
