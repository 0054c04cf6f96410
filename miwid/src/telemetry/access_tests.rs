//! Workers, the writer and sinks that do not want.

use std::{fs, path::Path};

use super::{super::format::tests::record, *};

const PATIENCE: Duration = Duration::from_secs(30);

fn logging(path: &Path, buffer_size: usize) -> config::Logging {
    config::Logging {
        level: "info".into(),
        format: config::LogFormat::Text,
        path: None,
        access_log: config::AccessLog {
            enabled: true,
            path: path.to_owned(),
            format: config::AccessFormat::Common,
            buffer_size,
            on_full: OnFull::Drop,
            fields: Vec::new(),
        },
        rotation: config::Rotation {
            enabled: true,
            max_size: config::ByteSize::mib(10),
            max_backups: 5,
            compress: false,
            max_age: None,
            max_total: None,
            naming: config::BackupNaming::Numbered,
        },
    }
}

fn statuses(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the log is there");
    text.lines().filter_map(|line| line.split(' ').nth(8)).map(ToOwned::to_owned).collect()
}

#[test]
fn records_arrive_in_order_and_the_rest_with_a_flush() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("logs/access.log");
    let logs = Logs::default();
    let log = AccessLog::open(&logging(&path, 2), &logs, &Metrics::default()).expect("opens");
    let mut buffer = log.buffer();
    for status in [200, 201, 202] {
        buffer.record(&Record { status, ..record() });
    }
    log.close(PATIENCE);
    assert_eq!(statuses(&path), ["200", "201"], "two fill a block, the third waits");
    buffer.flush();
    log.close(PATIENCE);
    assert_eq!(statuses(&path), ["200", "201", "202"]);
    assert_eq!(logs.path("access"), Some(path));
}

#[test]
fn a_record_is_made_only_for_a_log() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    let (on, mut off) = (logging(&path, 1), logging(&path, 1));
    off.access_log.enabled = false;
    let log = AccessLog::open(&off, &Logs::default(), &Metrics::default()).expect("opens");
    let mut buffer = log.buffer();
    buffer.record_with(|| unreachable!("there is no log"));
    log.reconfigure(&on).expect("reconfigures");
    buffer.record_with(|| Record { status: 201, ..record() });
    log.close(PATIENCE);
    assert_eq!(statuses(&path), ["201"]);
}

#[test]
fn a_changed_path_takes_the_next_record_and_loses_none_of_the_held() {
    let home = tempfile::tempdir().expect("a directory");
    let (old, new) = (home.path().join("old.log"), home.path().join("new.log"));
    let log = AccessLog::open(&logging(&old, 100), &Logs::default(), &Metrics::default()).expect("opens");
    let mut buffer = log.buffer();
    buffer.record(&Record { status: 200, ..record() });
    log.reconfigure(&logging(&new, 100)).expect("reconfigures");
    buffer.record(&Record { status: 201, ..record() });
    buffer.flush();
    log.close(PATIENCE);
    assert_eq!(statuses(&new), ["201"]);
    let deadline = Instant::now() + PATIENCE;
    while statuses(&old) != ["200"] {
        assert!(Instant::now() < deadline, "the held line never came");
        std::thread::yield_now();
    }
}

#[test]
fn a_disabled_log_makes_no_file_and_holds_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    let mut config = logging(&path, 1);
    config.access_log.enabled = false;
    let log = AccessLog::open(&config, &Logs::default(), &Metrics::default()).expect("opens");
    let mut buffer = log.buffer();
    buffer.record(&record());
    assert!(buffer.block.is_empty() && !path.exists());
    log.close(PATIENCE);
}

#[test]
fn a_pipe_that_nobody_reads_drops_lines_and_announces_one_event() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (logs, metrics, events) = (Logs::default(), Metrics::default(), super::super::Events::default());
    logs.announce_to(&events);
    let log = AccessLog::open(&logging(&path, 10), &logs, &metrics).expect("opens in spite of it");
    let mut buffer = log.buffer();
    for _ in 0..1000 {
        buffer.record(&record());
    }
    log.close(PATIENCE);
    assert_eq!(events.since(0).len(), 1);
    let dropped = "miwid_log_dropped_lines_total{log=\"access\"} 1000";
    if cfg!(feature = "metrics") {
        assert!(metrics.exposition().contains(dropped), "{}", metrics.exposition());
    }
}

#[test]
fn a_blocking_log_loses_nothing_in_a_flood() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    let mut config = logging(&path, 1);
    config.access_log.on_full = OnFull::Block;
    let log = AccessLog::open(&config, &Logs::default(), &Metrics::default()).expect("opens");
    let mut buffer = log.buffer();
    for _ in 0..5000 {
        buffer.record(&record());
    }
    log.close(PATIENCE);
    assert_eq!(statuses(&path).len(), 5000);
}
