//! What a process does in one step.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Issue, Issued, Sendable};
use super::rejection::OnRejection;
use crate::domain::{Aggregate, Apply, HandledBy};
use crate::log::Timestamp;

/// What a process does about an event, a timeout or a rejection: commands, timeouts, completion.
///
/// Nothing happens while it is filled in. After the method has returned, the step is written: the new state, the timeouts,
/// and how many commands there are. Then the commands are executed.
pub struct Actions {
    instance: String,
    time: Timestamp,
    /// The version of the step.
    version: u64,
    pub(super) commands: Vec<Box<dyn Issue>>,
    pub(super) timeouts: BTreeMap<String, OpenTimeout>,
    pub(super) completed: bool,
    pub(super) failed: Option<String>,
}

/// A timeout that was set, and neither cancelled nor handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenTimeout {
    /// In microseconds since 1970.
    pub(super) due: i64,
    /// The version of the step that set it.
    pub(super) set: u64,
}

impl Actions {
    /// The maximum number of open timeouts of one instance.
    pub const TIMEOUTS: usize = 64;

    pub(super) fn new(
        instance: &str,
        time: Timestamp,
        version: u64,
        timeouts: BTreeMap<String, OpenTimeout>,
        completed: bool,
    ) -> Self {
        let instance = instance.to_owned();
        Self { instance, time, version, commands: Vec::new(), timeouts, completed, failed: None }
    }

    /// The id of the instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// When it happened: the time of the event, the time for which the timeout was set, or the time of the step whose
    /// command was rejected.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Executes a command on an aggregate, after the step was written. Several are executed in order.
    ///
    /// The command has a key of its own, `<process>-<instance>/<cause>/<n>`, under which it takes effect at most once,
    /// however often it is tried: the cause is the event's position, `<timeout>@<version>` with the version of the step
    /// that set the timeout, or for a rejection the key of the rejected command; *n* counts the commands of the step from
    /// 0. A key that would be longer than 255 bytes ends in a fingerprint of it instead. Its events carry the correlation
    /// of the event that led to it, with the step as their cause.
    ///
    /// A rejection is passed to [`ProcessManager::rejected`](crate::ProcessManager::rejected), unless
    /// [`Issuing::on_rejection`] says otherwise.
    pub fn execute<A, C>(&mut self, id: impl Into<A::Id>, command: C) -> Issuing<'_, A, C>
    where
        A: Aggregate + Apply,
        C: HandledBy<A> + Sendable,
    {
        Issuing { issued: Some(Issued::new(id.into(), command)), actions: self }
    }

    /// Sets a timeout, this long after [`Self::time`]; replaces one of the same name. At most [`Self::TIMEOUTS`] are open
    /// at the same time, otherwise the step [fails](Self::fail).
    ///
    /// When it is due, [`ProcessManager::timed_out`](crate::ProcessManager::timed_out) is called, exactly once in effect,
    /// by the store's clock. Timeouts of a time when the process was not running are handled after it was started, in the
    /// order in which they were due, and those of an instance before its events of a later time.
    pub fn set_timeout(&mut self, name: impl Into<String>, after: Duration) {
        let after = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        self.set_timeout_at(name, Timestamp::from_micros(self.time.as_micros().saturating_add(after)));
    }

    /// Sets a timeout for a time; see [`Self::set_timeout`].
    pub fn set_timeout_at(&mut self, name: impl Into<String>, due: Timestamp) {
        self.timeouts.insert(name.into(), OpenTimeout { due: due.as_micros(), set: self.version });
        if self.timeouts.len() > Self::TIMEOUTS {
            self.fail(format!("it has more than {} open timeouts", Self::TIMEOUTS));
        }
    }

    /// Cancels a timeout, which is not handled then; one that is not set is no error.
    pub fn cancel_timeout(&mut self, name: &str) {
        self.timeouts.remove(name);
    }

    /// Completes the instance: its timeouts are cancelled, and later events are ignored. The commands of this step are
    /// still executed, and their rejections handled.
    pub fn complete(&mut self) {
        self.completed = true;
    }

    /// Fails the step: nothing of it happens, and it is tried again, as the [`Policy`](crate::Policy) says.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.failed.get_or_insert(reason.into());
    }

    /// The step's timeouts, after all of it is known.
    pub(super) fn close(&mut self) {
        if self.completed {
            self.timeouts.clear();
        }
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions")
            .field("instance", &self.instance)
            .field("commands", &self.commands.iter().map(|command| command.name()).collect::<Vec<_>>())
            .field("timeouts", &self.timeouts)
            .field("completed", &self.completed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// A command that a process executes; see [`Actions::execute`].
pub struct Issuing<'a, A, C>
where
    A: Aggregate + Apply,
    C: HandledBy<A> + Sendable,
{
    issued: Option<Issued<A, C>>,
    actions: &'a mut Actions,
}

impl<A, C> Issuing<'_, A, C>
where
    A: Aggregate + Apply,
    C: HandledBy<A> + Sendable,
{
    /// Decides from the aggregate's rejection what to do about it.
    ///
    /// The decision must be [repeatable](crate::ProcessManager#repeatable), too.
    pub fn on_rejection(mut self, decide: impl FnOnce(&C::Error) -> OnRejection + Send + Sync + 'static) {
        if let Some(issued) = &mut self.issued {
            issued.on_rejection = Some(Box::new(decide));
        }
    }
}

impl<A, C> Drop for Issuing<'_, A, C>
where
    A: Aggregate + Apply,
    C: HandledBy<A> + Sendable,
{
    fn drop(&mut self) {
        if let Some(issued) = self.issued.take() {
            self.actions.commands.push(Box::new(issued));
        }
    }
}

impl<A, C> fmt::Debug for Issuing<'_, A, C>
where
    A: Aggregate + Apply,
    C: HandledBy<A> + Sendable,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuing").field("command", &C::NAME).finish_non_exhaustive()
    }
}
