//! Makes connections.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::error::OpenError;
use crate::options::{Durability, Settings};

/// How long a connection may take to be made, unless the connection string says otherwise.
const CONNECT: Duration = Duration::from_secs(10);
/// A process that froze in the middle of a transaction holds the lock of all writers no longer than this.
const FROZEN: Duration = Duration::from_secs(10);
/// The oldest server that is supported, as `server_version_num` counts.
const OLDEST: u32 = 14;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Transactions of the writer.
    Write,
    /// Single statements that write: cells and snapshots.
    Aside,
    /// Reading.
    Read,
}

/// Makes the connections of one store.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    config: Config,
    pooled: bool,
    durability: Durability,
    read_timeout: Duration,
    write_timeout: Duration,
}

impl Connector {
    /// Parses a connection string: a URL, or words like `host=… dbname=…`.
    pub(crate) fn new(url: &str, settings: &Settings) -> Result<Self, OpenError> {
        let invalid = |source: tokio_postgres::Error| OpenError::InvalidUrl {
            source: errors::words(&errors::with_cause(&source)),
        };
        let mut config = Config::from_str(url).map_err(invalid)?;
        if config.get_ssl_mode() == SslMode::Require {
            let source = errors::words(&"this build has no TLS, and the connection string has `sslmode=require`");
            return Err(OpenError::InvalidUrl { source });
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(OpenError::InvalidUrl { source: errors::words(&"it names no host") });
        }
        if config.get_application_name().is_none() {
            config.application_name(settings.application_name.clone());
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        Ok(Self {
            config,
            pooled: settings.pooled,
            durability: settings.durability,
            read_timeout: settings.read_timeout,
            write_timeout: settings.write_timeout,
        })
    }

    /// Whether there is a pooler in front of the server.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// What every write transaction begins with: a role may have another isolation level by default, and behind a
    /// pooler nothing can be set for longer.
    pub(crate) fn begin(&self, patience: Duration) -> String {
        let mut begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}",
            patience.as_millis().clamp(1, i32::MAX.unsigned_abs().into())
        );
        if self.pooled {
            begin += "; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = ";
            begin += &FROZEN.as_millis().to_string();
            for (name, value) in PLANNER {
                begin.extend(["; SET LOCAL ", name, " = ", value]);
            }
            begin += match self.durability {
                Durability::Normal => "; SET LOCAL synchronous_commit = off",
                Durability::Full => {
                    "; SELECT set_config('synchronous_commit', 'on', true)
                     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
                }
            };
        }
        begin
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Session, Failure> {
        self.connect_and_hear(purpose, None).await
    }

    /// Makes a connection whose notifications are passed on.
    pub(crate) async fn connect_and_hear(
        &self,
        purpose: Purpose,
        heard: Option<Arc<Notify>>,
    ) -> Result<Session, Failure> {
        let mut config = self.config.clone();
        if !self.pooled {
            let own = config.get_options().unwrap_or_default().to_owned();
            config.options(format!("{own} {}", self.options(purpose)).trim());
        }
        // The driver's own timeout is for the socket only, and a server that hangs may accept it.
        let patience = *config.get_connect_timeout().unwrap_or(&CONNECT) * 2;
        let (client, connection) = timeout(patience, config.connect(NoTls)).await.map_err(|_| errors::silent())??;
        let session = Session::start(client, connection, !self.pooled, heard);
        if purpose != Purpose::Read && self.durability == Durability::Full && !self.pooled {
            session.batch(AT_LEAST_ON).await?;
        }
        Ok(session)
    }

    /// The settings of a connection.
    fn options(&self, purpose: Purpose) -> String {
        // Statements of the writer wait for locks, which have a timeout of their own.
        let statement = match purpose {
            Purpose::Write => Duration::ZERO,
            Purpose::Aside => self.write_timeout,
            Purpose::Read => self.read_timeout,
        };
        let mut options: Vec<(&str, String)> = PLANNER.map(|(name, value)| (name, value.to_owned())).into();
        options.extend([
            ("default_transaction_isolation", r"read\ committed".to_owned()),
            ("statement_timeout", statement.as_millis().min(i32::MAX.unsigned_abs().into()).to_string()),
            ("lock_timeout", self.write_timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into()).to_string()),
            ("idle_in_transaction_session_timeout", FROZEN.as_millis().to_string()),
        ]);
        if self.durability == Durability::Normal && purpose != Purpose::Read {
            options.push(("synchronous_commit", "off".to_owned()));
        }
        options.iter().map(|(name, value)| format!("-c {name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// Makes the first connection, and checks the server and the database.
    pub(crate) async fn first(&self, purpose: Purpose) -> Result<Session, OpenError> {
        let session = match self.connect(purpose).await {
            Ok(session) => session,
            Err(Failure::Lost(source)) => {
                let advice = if source.to_string().contains("startup parameter") {
                    "there is a pooler in front of it; open the store with `pooled(true)`"
                } else {
                    "check the address, that the server runs, and `max_connections`"
                };
                return Err(OpenError::Unreachable { advice, source });
            }
            Err(failure) => return Err(failure.into_store().into()),
        };
        let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000,
             current_setting('server_encoding')";
        let rows = session.once(sql, &[], &[]).await.map_err(Failure::into_store)?;
        let row = rows.first().ok_or_else(|| errors::internal("the server has no version"))?;
        let facts = || -> Result<(String, i32, String), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (found, major, encoding) = facts().map_err(|error| Failure::from(error).into_store())?;
        if u32::try_from(major).unwrap_or_default() < OLDEST {
            return Err(OpenError::ServerTooOld { found });
        }
        if encoding != "UTF8" {
            return Err(OpenError::NotUtf8 { encoding });
        }
        Ok(session)
    }
}

/// Statements that were planned while the tables were empty would scan them forever, and one unavoidable scan would
/// cost 50 ms of compilation.
const PLANNER: [(&str, &str); 3] = [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")];

/// Raises a setting that acknowledges a commit before it is flushed, and leaves alone one that also waits for standbys.
const AT_LEAST_ON: &str = "SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";
