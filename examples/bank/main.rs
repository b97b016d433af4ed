//! A small bank, from end to end, on the embedded store.
//!
//! ```text
//! cargo run --release --example bank            # a new file in the folder for temporary files
//! cargo run --release --example bank -- PATH    # a new file at PATH
//! ```
//!
//! Accounts execute commands and refuse some. Money moves between two of them, and comes back when the second refuses
//! it; or one decision moves it, over both accounts at once. Two repositories, as two processes would have them, conflict with each other. A projection maintains a table of
//! balances, an account is loaded as it was in the past, and a busy one is loaded from its snapshot.
//!
//! At the end a process carries transfers through by itself, and a reactor writes letters.
//!
//! Each chapter is a function in `chapters.rs` or `automation.rs`, in the order in which [`story`] calls them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod account;
mod automation;
mod balances;
mod chapters;
mod letters;
mod process;
mod transfer;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use es_framework::{Projection, Repository, Running, Store};
use es_sqlite::{SqliteModel, SqliteStore};
use examples::{chain, fresh_path};

use crate::account::Account;
use crate::balances::Balances;

type BoxError = Box<dyn Error + Send + Sync>;

/// Shared by the chapters.
struct Bank {
    store: Store,
    accounts: Repository<Account>,
    balances: SqliteModel,
    running: Running,
}

#[tokio::main]
async fn main() -> ExitCode {
    let path = std::env::args_os().nth(1).map_or_else(|| fresh_path("bank"), PathBuf::from);
    if path.exists() {
        eprintln!("bank: {} is there already; the story needs a new file, name another", path.display());
        return ExitCode::from(2);
    }
    match story(path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bank: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn story(path: PathBuf) -> Result<(), BoxError> {
    println!("The bank keeps its events in {}\n", path.display());
    let store = SqliteStore::open(&path).await?;
    let accounts = Repository::<Account>::new(&store);
    let balances = store.read_model();
    let running = Projection::new(&store, Balances, balances.clone()).start().await?;
    let bank = Bank { store: Store::from(&store), accounts, balances, running };

    bank.accounts_are_opened().await?;
    bank.a_command_is_rejected().await?;
    bank.money_is_transferred().await?;
    bank.a_transfer_comes_back().await?;
    bank.a_transfer_is_one_decision().await?;
    bank.two_writers_conflict().await?;
    bank.an_account_shows_its_past().await?;
    bank.a_busy_account_loads_from_its_snapshot().await?;
    bank.a_process_transfers_money().await?;
    bank.letters_are_written(&path.with_extension("letters")).await?;

    let reached = bank.running.stop().await?;
    store.close().await?;
    let bytes = std::fs::metadata(&path)?.len();
    println!("The end: {reached} events, {} KiB in one file. To look at them with SQL:", bytes / 1024);
    println!("  sqlite3 {} 'SELECT * FROM balances'", path.display());
    Ok(())
}
