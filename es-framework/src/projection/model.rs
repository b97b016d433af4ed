//! Where projections keep what they build.

use std::any::Any;
use std::fmt::{self, Debug};
use std::future::Future;

use crate::log::{BoxError, ErrorKind, Mark, Position, ProjectionName, SnapshotError, StoreError, StoreId};

/// How far a projection has come, and in which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The store it reads.
    pub store: StoreId,
    /// The position of the last event it has dealt with.
    pub position: Position,
    /// The checksum of that event, by which a log that was rewound is noticed.
    pub checksum: u32,
}

impl Checkpoint {
    /// Puts a checkpoint together.
    pub fn new(store: StoreId, mark: Mark) -> Self {
        Self { store, position: mark.position, checksum: mark.checksum }
    }
}

/// One step of a projection: the checkpoint it left, the one it reaches, and what lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Where the runner believes the checkpoint is; [`None`] before the first step.
    pub from: Option<Checkpoint>,
    /// Where it goes.
    pub to: Checkpoint,
    /// How many events the projector was given.
    pub events: u64,
}

impl Step {
    /// Puts a step together.
    pub fn new(from: Option<Checkpoint>, to: Checkpoint, events: u64) -> Self {
        Self { from, to, events }
    }

    /// Checks that the checkpoint is where the runner left it.
    ///
    /// # Errors
    ///
    /// [`ModelError::TakenOver`] if it is not.
    pub fn check(&self, name: &ProjectionName, found: Option<&Checkpoint>) -> Result<(), ModelError> {
        if self.from.as_ref() == found {
            return Ok(());
        }
        let position = |checkpoint: Option<&Checkpoint>| checkpoint.map_or(Position::ZERO, |at| at.position);
        let (expected, found) = (position(self.from.as_ref()), position(found));
        Err(ModelError::TakenOver { name: name.clone(), expected, found })
    }
}

/// Where a projector keeps what it builds, with transactions that hold the checkpoint too; written once per engine.
pub trait ReadModel: Debug + Clone + Send + Sync + 'static {
    /// A transaction, as the projector sees it.
    type Tx<'t>;

    /// Makes ready what belongs to the model itself, before anything else is asked of it.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if the model cannot be used.
    fn start(&self, name: &ProjectionName) -> impl Future<Output = Result<(), ModelError>> + Send;

    /// Runs `body` in a transaction: commits if it answers `Ok`, rolls back if it answers `Err` or panics.
    ///
    /// # Errors
    ///
    /// What `body` answers, [`ModelError::Panicked`], [`ModelError::CommitRefused`] if the commit fails because of what
    /// `body` did, or that the model itself failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has committed all of the transaction or nothing.
    fn transact<T, F>(&self, body: F) -> impl Future<Output = Result<T, ModelError>> + Send
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<T, ModelError> + Send + 'static;

    /// The checkpoint of this name, as the transaction sees it.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be read.
    fn checkpoint(tx: &mut Self::Tx<'_>, name: &ProjectionName) -> Result<Option<Checkpoint>, ModelError>;

    /// Moves the checkpoint of this name to `step.to` inside the transaction, which has found it at `step.from`.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be written.
    fn advance(tx: &mut Self::Tx<'_>, name: &ProjectionName, step: &Step) -> Result<(), ModelError>;

    /// Writes down what is not yet durable; called when a projection stops.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be written.
    fn settle(&self, name: &ProjectionName) -> impl Future<Output = Result<(), ModelError>> + Send;
}

/// A transaction of a read model that was rolled back.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelError {
    /// The checkpoint was moved by somebody else, who runs the same projection.
    TakenOver {
        /// The projection.
        name: ProjectionName,
        /// The position this runner left it at.
        expected: Position,
        /// The position it was found at.
        found: Position,
    },
    /// The projector refused an event.
    Refused {
        /// The position of the event.
        position: Position,
        /// What the projector said.
        source: BoxError,
    },
    /// The projector could not make the model ready.
    Prepare {
        /// What the projector said.
        source: BoxError,
    },
    /// The projector panicked.
    Panicked {
        /// The position of the event it was given, if it was given one.
        position: Option<Position>,
        /// The message of the panic.
        message: String,
    },
    /// The model's engine did not allow what it was asked for.
    NotAllowed {
        /// What is not allowed, and what to do instead.
        source: BoxError,
    },
    /// What was done in the transaction cannot be committed, for example because of a deferred foreign key of the
    /// projector's own tables. A model returns it; a projection finds the event and fails with [`Self::Refused`].
    CommitRefused {
        /// What the model's engine said.
        source: BoxError,
    },
    /// The model could not be read or written.
    Failed {
        /// What its engine said.
        source: BoxError,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenOver { name, expected, found } => {
                write!(f, "projection {name} was taken over: its checkpoint is at {found}, expected {expected}")
            }
            Self::Refused { position, .. } => write!(f, "the projector refused the event at position {position}"),
            Self::Prepare { .. } => f.write_str("the projector could not make its model ready"),
            Self::Panicked { position: Some(position), message } => {
                write!(f, "the projector panicked at the event at position {position}: {message}")
            }
            Self::Panicked { position: None, message } => write!(f, "the projector panicked: {message}"),
            Self::NotAllowed { source } => write!(f, "{source}"),
            Self::CommitRefused { source } => write!(f, "what the projector wrote cannot be committed: {source}"),
            Self::Failed { source } => write!(f, "the read model failed: {source}"),
        }
    }
}

/// A cause that the message says already is left out of the chain: there its own cause follows.
impl std::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TakenOver { .. } | Self::Panicked { .. } => None,
            Self::Refused { source, .. } | Self::Prepare { source } => Some(&**source),
            Self::NotAllowed { source } | Self::CommitRefused { source } | Self::Failed { source } => source.source(),
        }
    }
}

impl ModelError {
    /// Wraps what a model's own engine said.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::Failed { source: source.into() }
    }

    /// Wraps why a model's own engine did not allow something.
    pub fn not_allowed(source: impl Into<BoxError>) -> Self {
        Self::NotAllowed { source: source.into() }
    }

    /// Wraps why a transaction could not be committed because of what was done in it.
    pub fn commit_refused(source: impl Into<BoxError>) -> Self {
        Self::CommitRefused { source: source.into() }
    }

    /// The error for a panic, from what `catch_unwind` caught.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panicked { position: None, message: message.unwrap_or_else(|| "not a text".to_owned()) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TakenOver { .. } => ErrorKind::Conflict,
            Self::Refused { .. } | Self::Prepare { .. } | Self::NotAllowed { .. } | Self::CommitRefused { .. } => {
                ErrorKind::Caller
            }
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::Failed { source } => {
                let store = source.downcast_ref::<StoreError>().map(StoreError::kind);
                let snapshot = || source.downcast_ref::<SnapshotError>().map(SnapshotError::kind);
                store.or_else(snapshot).unwrap_or(ErrorKind::Internal)
            }
        }
    }
}
