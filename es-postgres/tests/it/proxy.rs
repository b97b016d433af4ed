//! A proxy in front of a server's socket that cuts and stalls connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A connection that had fewer answers is still being made, and is left alone.
const SETTLED: u32 = 8;

/// A proxy. Connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    folder: PathBuf,
    state: Arc<State>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// Answers of the server that are dropped together with their connections.
    to_cut: AtomicU64,
    cut: AtomicU64,
    /// The number of the newest connection whose requests are held back.
    held_upto: watch::Sender<u64>,
    connections: AtomicU64,
    refuses: AtomicBool,
}

impl Proxy {
    /// Starts a proxy in front of the socket of a server; its own socket has the same name.
    pub(crate) fn start(server: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("es-px-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = folder.join(server.file_name().unwrap());
        drop(std::fs::remove_file(&own));
        let listener = UnixListener::bind(&own).unwrap();
        let (held_upto, _) = watch::channel(0);
        let state = Arc::new(State {
            to_cut: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            held_upto,
            connections: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        });
        let serving = tokio::spawn(serve(listener, server.to_owned(), Arc::clone(&state)));
        Self { folder, state, serving }
    }

    /// The folder of the proxy's socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Drops the next answer of the server and its connection, so that a request took effect and nobody says so.
    pub(crate) fn cut_an_answer(&self) {
        self.state.to_cut.store(1, Ordering::SeqCst);
    }

    /// How many answers were dropped.
    pub(crate) fn cuts(&self) -> u64 {
        self.state.cut.load(Ordering::SeqCst)
    }

    /// Holds back everything that clients send on the connections that exist now.
    pub(crate) fn hold(&self) {
        self.state.held_upto.send_replace(self.state.connections.load(Ordering::SeqCst));
    }

    /// Sends what was held back.
    pub(crate) fn release(&self) {
        self.state.held_upto.send_replace(0);
    }

    /// Whether new connections are ended at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

async fn serve(listener: UnixListener, server: PathBuf, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if state.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (server, state) = (server.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let Ok(server) = UnixStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            // If the client leaves while its requests are held back, they still arrive, as in a real network.
            let requests = tokio::spawn(requests(from_client, to_server, Arc::clone(&state), number));
            answers(from_server, to_client, &state).await;
            if *state.held_upto.borrow() < number {
                requests.abort();
            }
        });
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>, number: u64) {
    let mut held = state.held_upto.subscribe();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = from.readable().await.map(|()| 1) {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        held.wait_for(|upto| number > *upto).await.unwrap();
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    let mut answers = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        answers += 1;
        if answers > SETTLED
            && state.to_cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            state.cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        // If the client has left, whatever else the server says is read all the same, so that it goes on with what it
        // was sent.
        drop(to.write_all(&buffer[..count]).await);
    }
}
