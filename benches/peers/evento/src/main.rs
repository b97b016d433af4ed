//! evento 2.0 (alpha) on SQLite as a peer.
//!
//! How it is run: `evento::Sqlite` over an sqlx pool with its default of ten connections and 5 s busy timeout, all
//! migrations applied. evento's README connects with sqlx's defaults, a rollback journal; here the pool is given a WAL and
//! the asked-for `synchronous`, which is faster than that default.
//!
//! Events are bitcode, by its `aggregate` macro. Every append states the version it follows, and looks it up, which the
//! library does. A command (W5) is its README's: load a projection kept with `snapshot(memory)`, a row of state per
//! aggregate in the process, and commit through `write()`; so it reads only what is new. An attempt that fails because the database is locked, or that meets a conflict, is made again, and its wait counts.
//! Loading a stream (W6) is `evento::read(..).decode`, which drains it in pages of 100 without a snapshot; the log is read
//! with `Executor::read` in pages of 1,000.
//!
//! A version is a `u16`: no stream holds more than 65,535 events. W6 and W3-one cannot be run beyond that; W1, W2 and W7 go
//! on in another stream before that.

use std::str::FromStr;
use std::time::Duration;

use evento::cursor::Args as Page;
use evento::metadata::Event;
use evento::{Executor, Projection, ProjectionAggregate, TenantFilter, WriteError};
use peer_common::{Args, Fold, Mode, Payload, Peer, cannot, report, run};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

const NOTE: &str = "evento 2.0.0-alpha.38, sqlite; sqlx pool of 10 (its default), WAL and synchronous set on the pool (its \
    README leaves the rollback journal); bitcode events; expected version on every append; W5 with a projection under \
    snapshot(memory) as in its README, locked and conflicting attempts made again; a stream ends at 65,535 events, so W1, W2 \
    and W7 go on in another before that";

/// The longest stream a `u16` can number.
const LONGEST_STREAM: u64 = u16::MAX as u64;
const READ_PAGE: u16 = 1_000;

#[evento::aggregate(name = "peer/Note")]
pub enum Note {
    Ticked {},
    Noted { data: String },
}

#[evento::projection(id = id)]
#[evento::snapshot(memory)]
pub struct Notes {
    pub id: String,
    pub events: u64,
    pub bytes: u64,
}

#[evento::handler]
async fn on_ticked(event: Event<Ticked>, notes: &mut Notes) -> anyhow::Result<()> {
    notes.id = event.aggregate_id.clone();
    notes.events += 1;
    Ok(())
}

#[evento::handler]
async fn on_noted(event: Event<Noted>, notes: &mut Notes) -> anyhow::Result<()> {
    notes.id = event.aggregate_id.clone();
    notes.events += 1;
    notes.bytes += event.data.data.len() as u64;
    Ok(())
}

fn fold_into(event: &NoteEvent, fold: &mut Fold) {
    fold.add(match event {
        NoteEvent::Ticked(_) => 0,
        NoteEvent::Noted(noted) => noted.data.len(),
    });
}

#[derive(Clone)]
struct Evento {
    executor: evento::Sqlite,
    /// Events after which the append workloads go on in another stream: whole appends, as many as one stream holds.
    part: u64,
}

impl Evento {
    fn new(pool: &SqlitePool, args: &Args) -> Self {
        let part = LONGEST_STREAM / args.per_append * args.per_append;
        Self { executor: pool.clone().into(), part }
    }
}

async fn open(args: &Args) -> SqlitePool {
    let url = format!("sqlite://{}", args.file("events.db").display());
    let synchronous = match args.mode {
        Mode::Full => SqliteSynchronous::Full,
        Mode::Normal => SqliteSynchronous::Normal,
    };
    let options = SqliteConnectOptions::from_str(&url)
        .expect("a valid address")
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous);
    let pool = SqlitePoolOptions::new().connect_with(options).await.expect("the database opens");
    migrate(&pool).await.expect("the tables are made");
    pool
}

async fn migrate(pool: &SqlitePool) -> anyhow::Result<()> {
    use evento::migrator::{Migrate, Plan};

    let mut connection = pool.acquire().await?;
    evento::sql_migrator::new::<sqlx::Sqlite>()?.run(&mut *connection, &Plan::apply_all()).await?;
    Ok(())
}

impl Evento {
    /// One attempt at a command: load, decide, append.
    async fn attempt(&self, stream: &str, event: &Payload) -> anyhow::Result<()> {
        let notes = Projection::<_, Notes>::new::<Note>()
            .handler(on_ticked())
            .handler(on_noted())
            .strict()
            .load(stream)
            .execute(&self.executor)
            .await?;
        let mut write = match &notes {
            Some(notes) => notes.write()?,
            None => evento::append(stream),
        };
        add(&mut write, event).commit(&self.executor).await?;
        Ok(())
    }
}

fn add<'a>(write: &'a mut evento::WriteBuilder, payload: &Payload) -> &'a mut evento::WriteBuilder {
    match payload {
        None => write.event(&Ticked {}),
        Some(data) => write.event(&Noted { data: data.clone() }),
    }
}

impl Peer for Evento {
    async fn append(&self, stream: &str, version: u64, events: Vec<Payload>) {
        let (part, version) = (version / self.part, version % self.part);
        let stream = if part == 0 { stream.to_owned() } else { format!("{stream}-{part}") };
        let mut write = evento::append(stream);
        write.original_version(u16::try_from(version).expect("a part is shorter"));
        for payload in &events {
            add(&mut write, payload);
        }
        while let Err(error) = write.commit(&self.executor).await {
            assert!(is_busy(&error.to_string()), "{error}");
        }
    }

    async fn execute(&self, stream: &str, event: Payload) {
        while let Err(error) = self.attempt(stream, &event).await {
            let conflict = matches!(error.downcast_ref(), Some(WriteError::InvalidOriginalVersion));
            assert!(conflict || is_busy(&error.to_string()), "{error}");
        }
    }

    async fn load(&self, stream: &str) -> Fold {
        let mut fold = Fold::default();
        let events = evento::read::<Note>(stream).decode(&self.executor).await.expect("the stream is read");
        events.iter().for_each(|event| fold_into(event, &mut fold));
        fold
    }

    async fn read_all(&self) -> Fold {
        let mut fold = Fold::default();
        let mut after = None;
        loop {
            let page = Page::forward(READ_PAGE, after);
            let page = self.executor.read(None, None, TenantFilter::All, page, None).await.expect("the page");
            for edge in &page.edges {
                fold_into(&NoteEvent::try_from(&edge.node).expect("the event decodes"), &mut fold);
            }
            if !page.page_info.has_next_page {
                return fold;
            }
            after = page.page_info.end_cursor;
        }
    }

    async fn at_once<F>(callers: Vec<F>) -> Vec<Vec<Duration>>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static,
    {
        let tasks: Vec<_> = callers.into_iter().map(tokio::spawn).collect();
        let mut done = Vec::new();
        for task in tasks {
            done.push(task.await.expect("the caller does not panic"));
        }
        done
    }
}

/// Whether the busy timeout of 5 s ran out, which is no reason to give up.
fn is_busy(error: &str) -> bool {
    error.contains("database is locked")
}

fn main() {
    let args = Args::parse();
    let one_stream = matches!(args.workload.as_str(), "W3-one" | "W6");
    if args.per_append > LONGEST_STREAM || (one_stream && args.events > LONGEST_STREAM) {
        cannot("an evento stream holds at most 65,535 events: its versions are u16");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let measured = runtime.block_on(async {
        let pool = open(&args).await;
        let measured = run(&args, &Evento::new(&pool, &args)).await;
        // Connections that close at the same time may leave the WAL behind, which would be weighed.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.expect("the checkpoint runs");
        pool.close().await;
        measured
    });
    report(&args, measured, NOTE);
}
