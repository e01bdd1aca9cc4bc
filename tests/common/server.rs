//! The real binary as a child process in a directory of its own.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::eventually;

/// How long a start or a stop may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to start a server. Ports are always free ones, addresses always the loopback.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    config: Option<String>,
    arguments: Vec<String>,
    jetstream: bool,
    monitoring: bool,
    host: Option<(String, Ipv4Addr)>,
    binary: Option<PathBuf>,
    small_store: Option<u32>,
}

impl ServerOptions {
    /// Runs that binary, whatever is under test.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Runs in a network namespace, and listens there at that address.
    pub fn host(mut self, namespace: String, address: Ipv4Addr) -> Self {
        self.host = Some((namespace, address));
        self
    }

    /// Has its store directory on a file system of its own, of so many mebibytes, that nobody else sees and that is gone when the server ends.
    pub fn small_store(mut self, mebibytes: u32) -> Self {
        self.small_store = Some(mebibytes);
        self
    }

    /// Whether this machine lets a process have file systems of its own.
    pub fn can_have_small_stores() -> bool {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command.args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
        command.output().is_ok_and(|ended| ended.status.success())
    }

    fn address(&self) -> Ipv4Addr {
        let host = self.host.as_ref();
        host.map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address)
    }

    /// Starts with a configuration file; `@DIR@` in it stands for the server's directory.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Adds command line arguments.
    pub fn arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Switches JetStream on by flag, with its store in the server's directory.
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// Opens a monitoring port.
    pub fn monitoring(mut self) -> Self {
        self.monitoring = true;
        self
    }

    /// Starts the server and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Server {
        self.try_start()
            .unwrap_or_else(|reason| panic!("the server did not start: {reason}"))
    }

    /// As [`start`](Self::start), for tests of starts that fail.
    ///
    /// # Errors
    /// When the process exits or stays silent; the text holds its log.
    pub fn try_start(self) -> Result<Server, String> {
        let directory = Arc::new(TempDir::new().expect("a temporary directory"));
        let mut server = Server {
            options: self,
            directory,
            process: None,
            client: None,
            monitor: None,
        };
        server.launch()?;
        Ok(server)
    }
}

/// A running server; dropping it kills the process and removes its directory.
pub struct Server {
    options: ServerOptions,
    directory: Arc<TempDir>,
    process: Option<Process>,
    client: Option<SocketAddr>,
    monitor: Option<SocketAddr>,
}

impl Server {
    /// A server without JetStream.
    #[track_caller]
    pub fn core() -> Self {
        ServerOptions::default().start()
    }

    /// A server with JetStream.
    #[track_caller]
    pub fn jetstream() -> Self {
        ServerOptions::default().jetstream().start()
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.client.expect("the server has been started")
    }

    /// The URL for client libraries.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where the monitoring port listens.
    pub fn monitor_address(&self) -> SocketAddr {
        self.monitor.expect("started with a monitoring port")
    }

    /// The server's own directory: configuration, store, whatever a test puts there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The store directory of servers started with [`ServerOptions::jetstream`].
    pub fn store_directory(&self) -> PathBuf {
        self.directory().join("store")
    }

    /// The process id while the server runs.
    pub fn process_id(&self) -> u32 {
        self.running().child.id()
    }

    /// All that has been logged since the last start.
    pub fn log(&self) -> String {
        self.running().log.text()
    }

    /// Waits until a log line contains `needle`.
    #[track_caller]
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.running()
            .log
            .wait(Instant::now() + PATIENCE, |lines| {
                lines.iter().find(|line| line.contains(needle)).cloned()
            })
            .unwrap_or_else(|| panic!("never logged {needle:?}; logged:\n{}", self.log()))
    }

    /// SIGKILL: the process gets no chance to save anything.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.running().child);
        kill_process(id, signal).expect("the server is running");
    }

    /// SIGTERM, and the exit status that came of it.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit()
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server is running");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.child.try_wait().expect("a child of ours") {
                return status;
            }
            if Instant::now() > deadline {
                let log = process.log.text();
                process.kill();
                panic!("the server did not exit; logged:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts again on the same port and the same directory, after [`kill`](Self::kill) or [`stop`](Self::stop).
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server is still running");
        self.launch()
            .unwrap_or_else(|reason| panic!("the server did not start again: {reason}"));
    }

    /// Changes the configuration file; the server sees it when it is told to.
    pub fn write_config(&mut self, text: &str) {
        self.options.config = Some(text.to_owned());
        self.write_config_file();
    }

    /// Has the server read this configuration, and waits until it is in force.
    #[track_caller]
    pub fn reload(&mut self, text: &str) {
        let count = |log: &str, told: &str| log.matches(told).count();
        let [taken_up, failed] = ["Reloaded server configuration", "Failed to reload"];
        let before = self.log();
        self.write_config(text);
        self.signal(Signal::HUP);
        eventually("the configuration is taken up", || {
            let log = self.log();
            assert_eq!(count(&log, failed), count(&before, failed), "{log}");
            (count(&log, taken_up) > count(&before, taken_up)).then_some(())
        });
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server is running")
    }

    fn config_path(&self) -> PathBuf {
        self.directory().join("server.conf")
    }

    fn write_config_file(&self) {
        if let Some(text) = &self.options.config {
            let text = text.replace("@DIR@", &self.directory().to_string_lossy());
            std::fs::write(self.config_path(), text).expect("our own directory is writable");
        }
    }

    fn command(&self) -> Command {
        let under_test = || std::env::var_os("NATS_SERVER_UNDER_TEST").map(PathBuf::from);
        let binary = self.options.binary.clone().or_else(under_test);
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_nats-server").into());
        let mut command = match (&self.options.host, self.options.small_store) {
            (None, None) => Command::new(binary),
            (None, Some(mebibytes)) => {
                let store = self.store_directory();
                std::fs::create_dir_all(&store).expect("our own directory is writable");
                let script = "mount -t tmpfs -o size=$0m tmpfs \"$1\" && shift && exec \"$@\"";
                let mut command = Command::new("unshare");
                // Becomes the server as well.
                command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
                command.arg(mebibytes.to_string()).arg(store).arg(binary);
                command
            }
            (Some((namespace, _)), _) => {
                let mut command = Command::new("ip");
                // Becomes the server: the process that is started is the one that is killed.
                command.args(["netns", "exec", namespace]).arg(binary);
                command
            }
        };
        let port = |known: Option<SocketAddr>| {
            known.map_or_else(|| "-1".to_owned(), |address| address.port().to_string())
        };
        let address = self.options.address().to_string();
        command.args(["-a", &address, "-p", &port(self.client)]);
        if self.options.config.is_some() {
            command.arg("-c").arg(self.config_path());
        }
        if self.options.monitoring {
            command.args(["-m", &port(self.monitor)]);
        }
        if self.options.jetstream {
            command.arg("-js").arg("-sd").arg(self.store_directory());
        }
        command.args(&self.options.arguments);
        command.current_dir(self.directory());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn launch(&mut self) -> Result<(), String> {
        self.write_config_file();
        let mut child = self
            .command()
            .spawn()
            .map_err(|error| format!("cannot run it: {error}"))?;
        let log = Log::default();
        log.follow(child.stderr.take().expect("stderr is piped"));
        let mut process = Process { child, log };
        if let Err(reason) = process.wait_until_ready() {
            process.kill();
            return Err(reason);
        }
        let listening = "Listening for client connections on ";
        let host = self.options.address();
        self.client = process.log.address_after(listening, host);
        if self.options.monitoring {
            self.monitor = process.log.address_after("http monitor on ", host);
        }
        self.process = Some(process);
        if self.client.is_none() {
            return Err(format!("no line {listening:?} in:\n{}", self.log()));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &self.process
        {
            eprintln!("--- the server's log ---\n{}", process.log.text());
        }
        self.kill();
    }
}

/// A child process and what it writes to stderr.
struct Process {
    child: Child,
    log: Log,
}

impl Process {
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let ready = self.log.wait(deadline, |lines| {
            lines
                .iter()
                .any(|line| line.ends_with("Server is ready"))
                .then_some(())
        });
        if ready.is_some() {
            return Ok(());
        }
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("it ended with {status}"),
            _ => "it never said that it is ready".to_owned(),
        };
        Err(format!("{state}; logged:\n{}", self.log.text()))
    }

    fn kill(&mut self) {
        // Fails only where the child has ended already, and then the wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines that a thread collects from the child's stderr.
#[derive(Clone, Default)]
struct Log {
    shared: Arc<(Mutex<LogLines>, Condvar)>,
}

#[derive(Default)]
struct LogLines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(&self, source: impl std::io::Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.shared.0.lock().lines.push(line);
                log.shared.1.notify_all();
            }
            log.shared.0.lock().ended = true;
            log.shared.1.notify_all();
        });
    }

    /// Waits until `look` finds something; none when the process ended or the deadline passed without it.
    fn wait<T>(&self, deadline: Instant, look: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let mut state = self.shared.0.lock();
        loop {
            if let Some(found) = look(&state.lines) {
                return Some(found);
            }
            if state.ended {
                return None;
            }
            if self.shared.1.wait_until(&mut state, deadline).timed_out() {
                return look(&state.lines);
            }
        }
    }

    fn text(&self) -> String {
        self.shared.0.lock().lines.join("\n")
    }

    /// The port that follows `marker` in the log, on that host.
    fn address_after(&self, marker: &str, host: Ipv4Addr) -> Option<SocketAddr> {
        let state = self.shared.0.lock();
        let line = state.lines.iter().find(|line| line.contains(marker))?;
        let (_, port) = line.rsplit_once(':')?;
        let port = port
            .trim_end_matches(|character: char| !character.is_ascii_digit())
            .parse()
            .ok()?;
        Some(SocketAddr::from((host, port)))
    }
}
