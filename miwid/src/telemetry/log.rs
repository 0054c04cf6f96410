//! The daemon's own log (tracing) and the list of every log file it writes, so that one command rotates them all.
//!
//! `init` may be called again: the second call, with the configuration, replaces what the first one set up.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use config::LogFormat;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use super::{Events, RotatingFile};

type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// What a later `init` replaces. The guard writes what is queued when it is dropped.
struct Installed {
    output: reload::Handle<Output, Registry>,
    filter: reload::Handle<EnvFilter, tracing_subscriber::layer::Layered<reload::Layer<Output, Registry>, Registry>>,
    guard: Mutex<Option<WorkerGuard>>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Sends log lines to standard error (`None`, or no `path`) or to a rotated file, which is returned: register it in
/// `Logs` as `error`. `RUST_LOG` wins over the configured level.
pub fn init(config: Option<&config::Logging>) -> io::Result<Option<Arc<RotatingFile>>> {
    let filter = filter(config)?;
    let (output, file, guard) = output(config)?;
    if let Some(installed) = INSTALLED.get() {
        installed.output.reload(output).map_err(io::Error::other)?;
        installed.filter.reload(filter).map_err(io::Error::other)?;
        // The old guard is dropped after the new output is in place: it waits until its file is written.
        let old = std::mem::replace(&mut *lock(&installed.guard), guard);
        drop(old);
        return Ok(file);
    }
    let (output, output_handle) = reload::Layer::new(output);
    let (filter, filter_handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(output).with(filter).try_init().map_err(io::Error::other)?;
    let installed = Installed { output: output_handle, filter: filter_handle, guard: Mutex::new(guard) };
    let _ = INSTALLED.set(installed);
    Ok(file)
}

/// Writes the queued lines of the log file; the last thing before the process ends.
pub fn flush() {
    if let Some(installed) = INSTALLED.get() {
        let guard = lock(&installed.guard).take();
        drop(guard);
    }
}

/// A plain level speaks of miwid's own lines: at `debug` the libraries below would bury them, and rustls warns of every
/// client that breaks off. A filter that names its targets is taken as it is.
fn filter(config: Option<&config::Logging>) -> io::Result<EnvFilter> {
    let level = match std::env::var("RUST_LOG") {
        Ok(level) if !level.is_empty() => level,
        _ => config.map_or("info", |config| config.level.as_str()).to_owned(),
    };
    EnvFilter::try_new(directives(&level)).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{level:?} is no log level or filter: {error}"))
    })
}

fn directives(level: &str) -> String {
    match level.trim().to_lowercase().as_str() {
        plain @ ("info" | "debug" | "trace") => {
            format!("warn,rustls=error,miwid={plain},config={plain},audit={plain},app={plain},tls={plain}")
        }
        "warn" => "warn,rustls=error".to_owned(),
        _ => level.to_owned(),
    }
}

fn output(config: Option<&config::Logging>) -> io::Result<(Output, Option<Arc<RotatingFile>>, Option<WorkerGuard>)> {
    let format = config.map_or(LogFormat::Text, |config| config.format);
    let Some((path, rotation)) = config.and_then(|config| Some((config.path.clone()?, config.rotation.clone()))) else {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let layer = match format {
            LogFormat::Text => fmt::layer().with_ansi(colours).with_writer(io::stderr).boxed(),
            LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        };
        return Ok((layer, None, None));
    };
    let file = Arc::new(RotatingFile::open(path, rotation)?);
    let (writer, guard): (NonBlocking, _) = tracing_appender::non_blocking(Appender(Arc::clone(&file)));
    let layer = match format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    Ok((layer, Some(file), Some(guard)))
}

/// The appender's thread writes whole events, so that a rotation never splits a line.
struct Appender(Arc<RotatingFile>);

impl io::Write for Appender {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // A failed write is counted by the file; an error here would only make the appender's thread complain.
        let _ = self.0.write(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One file that is written, as `miwictl logs list` shows it.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// `access`, `error` or the app's name.
    pub name: String,
    pub path: PathBuf,
    pub size_bytes: u64,
    pub backups: usize,
    pub dropped_lines: u64,
}

/// Every log file of the daemon. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logs {
    files: Arc<Mutex<BTreeMap<String, Arc<RotatingFile>>>>,
    events: Arc<OnceLock<Events>>,
}

impl Logs {
    pub fn register(&self, name: &str, file: Arc<RotatingFile>) {
        lock(&self.files).insert(name.to_owned(), file);
    }

    pub fn unregister(&self, name: &str) {
        lock(&self.files).remove(name);
    }

    /// Where trouble with a log becomes an event; call it once at the start. Without it, trouble is only logged.
    pub fn announce_to(&self, events: &Events) {
        let _ = self.events.set(events.clone());
    }

    pub fn announce(&self, kind: &'static str, name: &str, message: String) {
        match self.events.get() {
            Some(events) => events.emit(kind, name, message),
            None => tracing::warn!(kind, subject = name, "{message}"),
        }
    }

    pub fn list(&self) -> Vec<LogFile> {
        let describe = |(name, file): (String, Arc<RotatingFile>)| LogFile {
            name,
            path: file.path().to_owned(),
            size_bytes: file.size(),
            backups: file.backups(),
            dropped_lines: file.dropped(),
        };
        self.chosen(None).into_iter().map(describe).collect()
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        lock(&self.files).get(name).map(|file| file.path().to_owned())
    }

    /// Rotates the named file, or all; returns the new backups. Blocking: call it off the runtimes.
    pub fn rotate(&self, name: Option<&str>) -> io::Result<Vec<PathBuf>> {
        let chosen = self.chosen(name);
        if let (Some(name), true) = (name, chosen.is_empty()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no log is called {name:?}")));
        }
        let rotated = each(chosen, RotatingFile::rotate)?;
        Ok(rotated.into_iter().flatten().collect())
    }

    /// What SIGUSR1 asks for: reopen each file; one that nobody moved away is rotated first.
    pub fn reopen(&self) -> io::Result<()> {
        each(self.chosen(None), RotatingFile::reopen).map(|_| ())
    }

    /// A copy, so that no file is rotated under the lock of the list.
    fn chosen(&self, name: Option<&str>) -> Vec<(String, Arc<RotatingFile>)> {
        let files = lock(&self.files);
        let matches = |(key, _): &(&String, &Arc<RotatingFile>)| name.is_none_or(|name| name == key.as_str());
        files.iter().filter(matches).map(|(name, file)| (name.clone(), Arc::clone(file))).collect()
    }
}

/// Goes on after an error, so that one bad disk does not keep the other logs from rotating; the first error is returned.
fn each<T>(
    files: Vec<(String, Arc<RotatingFile>)>,
    act: impl Fn(&RotatingFile) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let outcomes: Vec<io::Result<T>> = files
        .iter()
        .map(|(name, file)| act(file).map_err(|error| io::Error::new(error.kind(), format!("log {name}: {error}"))))
        .collect();
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_level_is_for_our_own_lines_and_a_filter_is_taken_as_written() {
        assert_eq!(directives("debug"), "warn,rustls=error,miwid=debug,config=debug,audit=debug,app=debug,tls=debug");
        assert_eq!(directives("h2=debug,info"), "h2=debug,info");
        assert_eq!(directives("error"), "error");
    }

    #[test]
    fn a_second_init_moves_the_lines_into_the_file() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("logs/error.log");
        let rotation = config::Rotation {
            enabled: true,
            max_size: config::ByteSize::mib(10),
            max_backups: 5,
            compress: false,
            max_age: None,
            max_total: None,
            naming: config::BackupNaming::Numbered,
        };
        let access_log = config::AccessLog {
            enabled: false,
            path: home.path().join("access.log"),
            format: config::AccessFormat::Common,
            buffer_size: 1,
            on_full: config::OnFull::Drop,
            fields: Vec::new(),
        };
        let (level, format) = ("error".to_owned(), LogFormat::Json);
        let config = config::Logging { level, format, path: Some(path.clone()), access_log, rotation };
        init(None).expect("sets up standard error");
        let file = init(Some(&config)).expect("reconfigures").expect("a file");
        tracing::error!(answer = 42, "it broke");
        flush();
        let text = std::fs::read_to_string(&path).expect("the log is there");
        let line = text.lines().find(|line| line.contains("it broke")).expect("the line is there");
        let value: serde_json::Value = serde_json::from_str(line).expect("valid JSON");
        assert_eq!((&value["answer"], &value["level"]), (&42.into(), &"ERROR".into()));

        let logs = Logs::default();
        logs.register("error", file);
        assert_eq!(logs.rotate(Some("error")).expect("rotates"), [home.path().join("logs/error.log.1")]);
        assert!(logs.rotate(Some("nobody")).is_err());
        assert_eq!(logs.list()[0].backups, 1);
    }
}
