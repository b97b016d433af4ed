//! A bank as an HTTP API: the repository, a read model and a watch behind axum.
//!
//! ```text
//! cargo run --release --example axum-bank                       # serves itself for a moment, over a real socket
//! cargo run --release --example axum-bank -- 127.0.0.1:8080     # serves until Ctrl-C
//! cargo run --release --example axum-bank -- 127.0.0.1:8080 PATH   # the same, with its events in the file at PATH
//! ```
//!
//! | request | does |
//! |---|---|
//! | `POST /accounts/{id}` | executes a command such as `{"deposit": {"cents": 500}}`; takes `If-Match`, `If-None-Match`, `Idempotency-Key`, `traceparent` and `tracestate` |
//! | `GET /accounts/{id}` | shows the account, with `?version=` or `?at=` as it was |
//! | `GET /accounts/{id}/events` | sends its events as they happen; takes `Last-Event-ID` |
//! | `GET /balances?after=7` | shows the read model, once it has reached position 7 |
//!
//! `api.rs` says which request is which call of the framework, `problem.rs` which error is which status code.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod account;
mod api;
mod balances;
mod demo;
mod problem;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use es_framework::{BoxError, Projection, Repository};
use es_sqlite::SqliteStore;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::api::Bank;
use crate::balances::Balances;

/// How long a server that stops waits for its clients.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address = args.next();
    let path = args.next().map_or_else(|| examples::fresh_path("axum-bank"), PathBuf::from);
    match run(address, &path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum-bank: {}", examples::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(address: Option<String>, path: &Path) -> Result<(), BoxError> {
    // Clients should not wait for other processes as long as a program may.
    let store = SqliteStore::builder().write_timeout(Duration::from_secs(2)).open(path).await?;
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("The bank listens on {url} and keeps its events in {}\n", path.display());
    let until = async move {
        if address.is_none() {
            return spawn_blocking(move || demo::story(&url)).await?;
        }
        println!("  curl {url}/accounts/alice --json '{{\"open\": {{\"owner\": \"Alice\"}}}}'");
        println!("  curl {url}/accounts/alice --json '{{\"deposit\": {{\"cents\": 500}}}}' -H 'If-Match: \"1\"'");
        println!("  curl {url}/accounts/alice/events --no-buffer\n");
        Ok(tokio::signal::ctrl_c().await?)
    };
    let served = serve(listener, &store, until).await;
    store.close().await?;
    println!("The bank is closed.");
    served
}

/// Serves until the future is ready. Then it accepts no more requests, finishes those that it has (within [`PATIENCE`]), and
/// stops the projection.
async fn serve<F>(listener: TcpListener, store: &SqliteStore, until: F) -> Result<(), BoxError>
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let (accounts, balances) = (Repository::new(store), store.read_model());
    let running = Projection::new(store, Balances, balances.clone()).start().await?;
    let (stop, stopping) = watch::channel(false);
    let bank = Bank { accounts, balances, running: running.clone(), stopping: stopping.clone() };

    let projection = running.clone();
    let until = tokio::spawn(async move {
        let ended = tokio::select! {
            ended = until => ended,
            // A projection ends by itself only if it failed. Better to be started again than to show old balances.
            failed = projection.finished() => failed.map(drop).map_err(Into::into),
        };
        stop.send_replace(true);
        ended
    });
    let served = axum::serve(listener, api::router(bank)).with_graceful_shutdown(api::stopped(stopping.clone()));
    tokio::select! {
        served = served.into_future() => served?,
        () = async { api::stopped(stopping).await; sleep(PATIENCE).await } => eprintln!("axum-bank: a client hangs"),
    }
    running.stop().await?;
    until.await?
}
