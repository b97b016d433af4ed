//! Servers that tests start themselves: a throw-away cluster in a temporary folder, reached by a socket there.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// What to do where there is no PostgreSQL.
const INSTALL: &str = "no PostgreSQL: `apt-get install postgresql`, or set ES_POSTGRES_URL to a server; nothing of \
     es-postgres was tested";

/// The connection string of the server that most tests share; [`None`] if there is no PostgreSQL.
pub(crate) fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<(String, Option<Server>)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var("ES_POSTGRES_URL") {
            return Some((url, None));
        }
        // Facts that are not about durability need no flushes.
        let server = Server::start(&["fsync=off", "full_page_writes=off", "max_connections=300"])?;
        Some((server.url(), Some(server)))
    });
    shared.as_ref().map(|(url, _)| url.as_str())
}

/// Whether the shared server is one that tests must leave as they found it.
pub(crate) fn is_foreign() -> bool {
    std::env::var_os("ES_POSTGRES_URL").is_some()
}

/// A throw-away cluster. It is stopped and removed when it is dropped, and also when this process ends in any other
/// way.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    port: u32,
    /// Waits for the end of its input, which is that of this process, and removes the cluster.
    keeper: Mutex<Option<Child>>,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Sessions are ended, and everything is written.
    Fast,
    /// Processes end at once; the next start recovers.
    Immediate,
}

impl Server {
    /// Creates and starts a cluster with these settings; [`None`] if there is no PostgreSQL.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SAID: OnceLock<()> = OnceLock::new();
        let Some(_) = binaries() else {
            assert!(std::env::var_os("ES_POSTGRES_REQUIRED").is_none_or(|it| it != "1"), "{INSTALL}");
            SAID.get_or_init(|| writeln!(std::io::stderr().lock(), "\n{INSTALL}").unwrap());
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The path of a socket may have 107 bytes, so it is not below the build's folders.
        let folder = std::env::temp_dir().join(format!("es-pg-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let server = Self { folder, port: 5_432, keeper: Mutex::new(None) };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&server.folder));
        }
        *server.keeper.lock().unwrap() = Some(server.keep());
        let options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync"];
        run(server.tool("initdb").arg("-D").arg(server.data()).args(options));
        let mut config = fs::read_to_string(server.data().join("postgresql.conf")).unwrap();
        config.extend([
            "\nlisten_addresses = ''\nunix_socket_directories = '",
            &server.folder.to_string_lossy(),
            "'\n",
        ]);
        config += "shared_buffers = 64MB\nmax_wal_size = 2GB\nlog_min_messages = warning\n";
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap();
            config.extend([name, " = '", value, "'\n"]);
        }
        fs::write(server.data().join("postgresql.conf"), config).unwrap();
        server.up();
        Some(server)
    }

    /// The connection string.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres", &self.folder)
    }

    /// The connection string of another user, through the socket in a folder.
    pub(crate) fn url_of(&self, user: &str, socket: &Path) -> String {
        format!("host={} port={} user={user} dbname=postgres", socket.display(), self.port)
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// What the server has reported.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap()).into_owned()
    }

    /// Starts the server again. After it was killed, its other processes may take a moment to end.
    pub(crate) fn up(&self) {
        let begun = std::time::Instant::now();
        let log = self.folder.join("log");
        loop {
            let mut start = self.tool("pg_ctl");
            start.arg("-D").arg(self.data()).arg("-l").arg(&log).args(["-w", "-t", "60", "start"]);
            if start.stdin(Stdio::null()).output().unwrap().status.success() {
                return;
            }
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(begun.elapsed().as_secs() < 30, "the server does not start: {said}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Stops the server.
    pub(crate) fn down(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.tool("pg_ctl").arg("-D").arg(self.data()).args(["-m", mode, "-w", "-t", "60", "stop"]));
    }

    /// Kills the server's first process, as a crash of its machine would.
    pub(crate) fn kill(&self) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap();
        run(Command::new("kill").args(["-9", pid]));
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of PostgreSQL's programs, as a user that it runs as.
    fn tool(&self, name: &str) -> Command {
        let program = binaries().unwrap().join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.folder).env("TZ", "UTC").env_remove("PGDATA").env_remove("PGPORT");
        command
    }

    fn keep(&self) -> Child {
        // Its input ends with this process, however that ends.
        let script = r#"trap "" INT TERM; cat >/dev/null; "$@" >/dev/null 2>&1; rm -rf "$ES_FOLDER""#;
        let stop = self.tool("pg_ctl");
        let mut keeper = Command::new("sh");
        keeper.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("keeper"), stop.get_program()]);
        keeper.args(stop.get_args()).arg("-D").arg(self.data()).args(["-m", "immediate", "-w", "stop"]);
        keeper.env("ES_FOLDER", &self.folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            drop(keeper.stdin.take());
            drop(keeper.wait());
        }
    }
}

/// PgBouncer in front of the shared server, handing out connections per transaction; [`None`] if one of them is missing.
pub(crate) fn pooler() -> Option<&'static str> {
    static POOLER: OnceLock<Option<(String, Child)>> = OnceLock::new();
    let pooler = POOLER.get_or_init(|| {
        let server: tokio_postgres::Config = shared()?.parse().unwrap();
        let [tokio_postgres::config::Host::Unix(socket)] = server.get_hosts() else { return None };
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.iter().find(|program| Path::new(program).exists())?;
        let folder = std::env::temp_dir().join(format!("es-pb-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "[databases]\n* = host={} port=5432 user=postgres\n[pgbouncer]\nunix_socket_dir = {}\nlisten_port = 6432\n\
             auth_type = any\npool_mode = transaction\nmax_client_conn = 500\ndefault_pool_size = 12\n\
             logfile = {}/log\n",
            socket.display(),
            folder.display(),
            folder.display()
        );
        fs::write(folder.join("pgbouncer.ini"), config).unwrap();
        let as_user = if is_root() { "setpriv --reuid=postgres --regid=postgres --clear-groups" } else { "" };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let script = format!(
            r#"trap "" INT TERM; {as_user} {program} -q "$ES_FOLDER/pgbouncer.ini" & pid=$!; cat >/dev/null; kill $pid;
               wait $pid; rm -rf "$ES_FOLDER""#
        );
        let mut keeper = Command::new("sh");
        keeper.args(["-c", &script]).env("ES_FOLDER", &folder);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = std::time::Instant::now();
        while !folder.join(".s.PGSQL.6432").exists() {
            assert!(begun.elapsed().as_secs() < 20, "PgBouncer does not start");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some((format!("host={} port=6432 user=postgres dbname=postgres", folder.display()), keeper))
    });
    pooler.as_ref().map(|(url, _)| url.as_str())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{command:?}: {said:?}");
}

fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| {
        let id = Command::new("id").arg("-u").output();
        id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
    })
}

/// The folder of PostgreSQL's programs: on the path, or where packages install the newest.
fn binaries() -> Option<&'static Path> {
    static BINARIES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = BINARIES.get_or_init(|| {
        let has_all = |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).exists());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut versions: Vec<(u32, PathBuf)> = installed
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().rev().map(|(_, folder)| folder));
        folders.into_iter().find(has_all)
    });
    found.as_deref()
}
