//! Floods, backups and deaths of `RotatingFile`: every line is in exactly one file.

use std::io::Read as _;

use super::*;

fn rotation(max_size: u64) -> config::Rotation {
    config::Rotation {
        enabled: true,
        max_size: config::ByteSize(max_size),
        max_backups: 1000,
        compress: true,
        max_age: None,
        max_total: None,
        naming: config::BackupNaming::Numbered,
    }
}

fn lines_of(path: &Path) -> Vec<u64> {
    let mut found = plan::backups(path).expect("the directory is there");
    let mut files: Vec<PathBuf> = found.drain(..).map(|backup| backup.path).collect();
    files.push(path.to_owned());
    let mut lines = Vec::new();
    for file in files {
        let bytes = fs::read(&file).expect("readable");
        let mut text = String::new();
        if file.extension().is_some_and(|end| end == "gz") {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("intact gzip");
        } else {
            text = String::from_utf8(bytes).expect("text");
        }
        lines.extend(text.lines().map(|line| line.parse::<u64>().expect("a whole line")));
    }
    lines.sort_unstable();
    lines
}

fn wait_until_compressed(file: &RotatingFile) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while file.inner.lock().compressing == Compressing::Running {
        assert!(Instant::now() < deadline, "compression does not end");
        std::thread::yield_now();
    }
}

#[test]
fn a_flood_loses_and_doubles_no_line() {
    for naming in [config::BackupNaming::Numbered, config::BackupNaming::Timed] {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("logs/access.log");
        let config = config::Rotation { naming, ..rotation(2000) };
        let file = RotatingFile::open(path.clone(), config).expect("opens");
        for n in 0..5000_u64 {
            file.write(format!("{n}\n").as_bytes()).expect("writes");
        }
        wait_until_compressed(&file);
        assert_eq!(lines_of(&path), (0..5000).collect::<Vec<_>>(), "{naming:?}");
        assert!(file.backups() > 5);
    }
}

#[test]
fn max_backups_is_kept() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    let config = config::Rotation { max_backups: 3, compress: false, ..rotation(100) };
    let file = RotatingFile::open(path.clone(), config).expect("opens");
    for n in 1000..1200_u64 {
        file.write(format!("{n}\n").as_bytes()).expect("writes");
    }
    assert_eq!(file.backups(), 3);
    assert_eq!(lines_of(&path).last(), Some(&1199));
}

#[test]
fn reopen_rotates_unless_somebody_moved_the_file() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    let config = config::Rotation { compress: false, ..rotation(1 << 20) };
    let file = RotatingFile::open(path.clone(), config).expect("opens");
    file.write(b"1\n").expect("writes");
    file.reopen().expect("reopens");
    assert_eq!(file.backups(), 1);
    file.write(b"2\n").expect("writes");
    fs::rename(&path, home.path().join("moved")).expect("moves");
    file.write(b"3\n").expect("writes to the moved file until told");
    file.reopen().expect("reopens");
    file.write(b"4\n").expect("writes");
    assert_eq!(file.backups(), 1);
    assert_eq!(fs::read(home.path().join("moved")).expect("there"), b"2\n3\n");
    assert_eq!(fs::read(&path).expect("there"), b"4\n");
}

#[test]
fn a_removed_directory_is_made_again() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("logs/access.log");
    let file = RotatingFile::open(path.clone(), rotation(1 << 20)).expect("opens");
    file.write(b"1\n").expect("writes");
    fs::remove_dir_all(home.path().join("logs")).expect("removes");
    file.write(b"2\n").expect("writes");
    assert_eq!(fs::read(&path).expect("there"), b"2\n");
}

#[test]
fn a_pipe_without_reader_drops_and_counts() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let file = RotatingFile::open_lazily(path, rotation(100));
    assert!(file.write(b"1\n2\n").is_err());
    assert!(file.write(b"3\n").is_err());
    assert_eq!(file.dropped(), 3);
}

#[test]
fn a_plain_twin_of_a_finished_gzip_is_deleted() {
    let log = Path::new("/l/a.log");
    let backup = |name: &str, compression| Backup {
        path: PathBuf::from(name),
        tag: "1".into(),
        compression,
        modified: SystemTime::UNIX_EPOCH,
        size_bytes: 1,
    };
    let found = [backup("/l/a.log.1", plan::Compression::Plain), backup("/l/a.log.1.gz", plan::Compression::Gzip)];
    let (steps, _) = plan::rotate(log, &found, &rotation(1), SystemTime::UNIX_EPOCH);
    let rename = |from: &str, to: &str| Step::Rename { from: from.into(), to: to.into() };
    assert_eq!(
        steps,
        [Step::Delete("/l/a.log.1".into()), rename("/l/a.log.1.gz", "/l/a.log.2.gz"), rename("/l/a.log", "/l/a.log.1")]
    );
}

#[test]
fn retention_by_age_and_total_keeps_the_newest() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let backup = |number: u64, age: u64| Backup {
        path: format!("/l/a.log.{number}").into(),
        tag: number.to_string(),
        compression: plan::Compression::Plain,
        modified: now - Duration::from_secs(age),
        size_bytes: 100,
    };
    let found = [backup(3, 30), backup(1, 10), backup(2, 20)];
    let deleted = |config: config::Rotation| -> Vec<PathBuf> {
        let (steps, _) = plan::rotate(Path::new("/l/a.log"), &found, &config, now);
        let deletion = |step: Step| match step {
            Step::Delete(path) => Some(path),
            Step::Rename { .. } => None,
        };
        steps.into_iter().filter_map(deletion).collect()
    };
    let paths = |numbers: &[u64]| numbers.iter().map(|n| PathBuf::from(format!("/l/a.log.{n}"))).collect::<Vec<_>>();
    let base = rotation(1);
    assert_eq!(deleted(base.clone()), paths(&[]));
    assert_eq!(deleted(config::Rotation { max_age: Some(Duration::from_secs(25)), ..base.clone() }), paths(&[3]));
    let total = Some(config::ByteSize(250));
    assert_eq!(deleted(config::Rotation { max_total: total, ..base.clone() }), paths(&[3]));
    assert_eq!(deleted(config::Rotation { max_backups: 2, ..base.clone() }), paths(&[2, 3]));
    assert_eq!(deleted(config::Rotation { max_backups: 0, ..base }), [&paths(&[1, 2, 3])[..], &paths(&[1])].concat());
}

#[test]
fn a_full_disk_drops_and_counts_and_never_rotates_a_device() {
    // The device says ENOSPC to every write: a full disk without mounting one.
    let file = RotatingFile::open("/dev/full".into(), rotation(1)).expect("opens");
    let error = file.write(b"1\n2\n").expect_err("no space");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.dropped(), 2);
    assert!(!Path::new("/dev/full.1").exists());
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("access.log");
    fs::create_dir(home.path().join("access.log.1")).expect("stands in the way");
    let file = RotatingFile::open(path.clone(), rotation(4)).expect("opens");
    for line in [b"1\n", b"2\n", b"3\n", b"4\n"] {
        file.write(line).expect("writes on into the big file");
    }
    assert_eq!((fs::read(&path).expect("there"), file.dropped()), (b"1\n2\n3\n4\n".to_vec(), 0));
}
