//! F. Output: the app never waits for its log, and the log loses nothing without saying so.

use std::{fs, io::Read, time::Duration};

use harness::{Daemon, get, wait};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
};

use super::{app, managed};

/// A line as the writers of the chaos app make it: `w0 00000012 aaaa...`.
fn numbered(line: &str) -> Option<(&str, u64)> {
    let at = line.find('w')?;
    let mut words = line[at..].split(' ');
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// Everything logged for the app: backups first (gz too), then the current file.
fn logged(daemon: &Daemon, name: &str) -> Vec<u8> {
    let mut files: Vec<_> = find(daemon.dir(), name);
    files.sort();
    files.into_iter().flat_map(|file| content(&file)).collect()
}

fn find(directory: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let file = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if file.starts_with(name) && file.contains(".log") {
            found.push(path);
        }
    }
    found
}

/// The files of a log and how long they are.
fn sizes(daemon: &Daemon, name: &str) -> std::collections::BTreeMap<std::path::PathBuf, Option<u64>> {
    let sized = |file: std::path::PathBuf| {
        let size = fs::metadata(&file).map(|it| it.len()).ok();
        (file, size)
    };
    find(daemon.dir(), name).into_iter().map(sized).collect()
}

fn content(file: &std::path::Path) -> Vec<u8> {
    // It may have got another name since it was found.
    let Ok(bytes) = fs::read(file) else { return Vec::new() };
    if file.extension().is_none_or(|it| it != "gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("an intact gzip file");
    plain
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_dropped_and_counted_and_bothers_nobody() {
    // A limit that a flood exceeds on the slowest machine.
    let flood = app("flood", "", &["--log-flood", "0", "--log-flood-for", "5000"], "logs = { rate_limit = \"200KB\" }");
    let quiet = app("quiet", "", &["--log-lines", "1000"], "");
    let daemon = Daemon::start(&format!("{flood}{quiet}")).await;
    daemon.app_ready("flood").await;
    daemon.app_ready("quiet").await;
    let before = resident_bytes(daemon.pid());
    let load = daemon.load("flood.test").connections(4).paths(&["/fast"]).start();
    load.flowing(100).await;
    // A line gets through again: the flood's own last words may have been among what was dropped.
    wait::until(wait::LATER, "the flood is over", async || {
        let asked = get(daemon.http(), "flood.test", "/log?text=heard-again").await.unwrap();
        assert_eq!(asked.status, 200);
        let text = String::from_utf8_lossy(&logged(&daemon, "flood")).into_owned();
        text.contains("dropped") && text.contains("heard-again")
    })
    .await;
    let result = load.stop().await;
    result.assert_none_failed();
    println!("flood: the daemon grew by {} bytes", resident_bytes(daemon.pid()).saturating_sub(before));
    let text = String::from_utf8_lossy(&logged(&daemon, "flood")).into_owned();
    assert!(text.contains("dropped"), "what is missing is said");
    let quiet = String::from_utf8_lossy(&logged(&daemon, "quiet")).into_owned();
    assert_eq!(quiet.lines().filter_map(numbered).count(), 1000, "the other app's log is complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_neither_the_app_nor_the_proxy() {
    if !std::path::Path::new("/dev/full").exists() {
        harness::skip!("/dev/full is missing");
    }
    let daemon = Daemon::start(&managed(&["--log-lines", "5000"], "logs = { path = \"/dev/full\" }")).await;
    daemon.app_ready("chaos").await;
    daemon.load("chaos.test").requests(200).run().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_blocks_stops_neither_the_app_nor_the_proxy() {
    let builder = Daemon::builder(&managed(&["--log-lines", "5000"], "logs = { path = \"{dir}/fifo.log\" }"));
    nix::unistd::mkfifo(&builder.dir().join("fifo.log"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let daemon = builder.start().await;
    daemon.app_ready("chaos").await;
    daemon.load("chaos.test").requests(200).run().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_split_and_bytes_are_kept() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    get(daemon.http(), "chaos.test", "/log?bytes=1048576").await.unwrap();
    get(daemon.http(), "chaos.test", "/log?raw=1").await.unwrap();
    let raw = b"raw \xff\xfe\x00\x01 bytes";
    let bytes = wait::for_some(wait::SOON, "both are in the file", async || {
        let bytes = logged(&daemon, "chaos");
        bytes.windows(raw.len()).any(|it| it == raw).then_some(bytes)
    })
    .await;
    assert_eq!(bytes.iter().filter(|it| **it == b'y').count() >> 20, 1, "no byte of the long line is lost");
    let longest = bytes.split(|it| *it == b'\n').map(<[u8]>::len).max().unwrap_or(0);
    assert!(longest < 20 * 1024, "a line of {longest} bytes was not split");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_two_workers_stay_whole() {
    let daemon =
        Daemon::start(&managed(&["--log-writers", "2", "--log-lines", "500", "--log-line-bytes", "2048"], "")).await;
    daemon.app_ready("chaos").await;
    let text = wait::for_some(wait::LATER, "all lines are in the file", async || {
        let text = String::from_utf8_lossy(&logged(&daemon, "chaos")).into_owned();
        (text.lines().filter_map(numbered).count() >= 1000).then_some(text)
    })
    .await;
    for line in text.lines().filter(|line| numbered(line).is_some()) {
        let fill = line.rsplit(' ').next().unwrap_or_default();
        let first = fill.chars().next().unwrap_or_default();
        assert!(fill.len() > 2000 && fill.chars().all(|it| it == first), "two lines in one: {line:.80}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_loses_and_repeats_nothing() {
    const LINES: u64 = 20_000;
    let lines = LINES.to_string();
    let logs = "logs = { max_size = \"256KB\", max_backups = 50 }";
    let daemon = Daemon::start(&managed(&["--log-lines", &lines, "--log-line-bytes", "200"], logs)).await;
    daemon.app_ready("chaos").await;
    let rotated = daemon.ctl_ok(&["logs", "rotate", "chaos"]).await;
    assert!(rotated.stdout.contains("chaos"), "the file names are returned: {rotated:?}");
    let mut seen: Vec<u64> = wait::for_some(Duration::from_secs(120), "all lines are in the files", async || {
        let before = sizes(&daemon, "chaos");
        let text = String::from_utf8_lossy(&logged(&daemon, "chaos")).into_owned();
        let seen: Vec<u64> = text.lines().filter_map(numbered).map(|(_, number)| number).collect();
        // A file that is renamed or compressed while we read is read twice; that is our doing.
        (seen.len() as u64 >= LINES && sizes(&daemon, "chaos") == before).then_some(seen)
    })
    .await;
    assert!(find(daemon.dir(), "chaos").len() > 2, "it was rotated by size");
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..LINES), "each line once");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_name_their_instance_and_stream() {
    let daemon = Daemon::start(&managed(&[], "logs = { format = \"json\" }")).await;
    daemon.app_ready("chaos").await;
    daemon.get_host("chaos.test", "/log?text=spoken").await;
    wait::until(wait::SOON, "the line is there", async || {
        let text = String::from_utf8_lossy(&logged(&daemon, "chaos")).into_owned();
        text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).any(|line| {
            line["app"] == "chaos"
                && line["instance"] == 0
                && line["line"].as_str().is_some_and(|it| it.contains("spoken"))
        })
    })
    .await;
    let text = String::from_utf8_lossy(&logged(&daemon, "chaos")).into_owned();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
}

// 62. A disk that is nearly full: app and proxy go on, one event, and the log resumes when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_left_room_and_the_log_resumes() {
    let place = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs"])
        .arg(place.path())
        .output()
        .is_ok_and(|it| it.status.success());
    if !mounted {
        harness::skip!("mounting a file system needs root and the right to mount");
    }
    let _mounted = Unmount(place.path().to_owned());
    let log = place.path().join("chaos.log");
    let daemon = Daemon::start(&managed(&[], &format!("logs = {{ path = {log:?} }}"))).await;
    daemon.app_ready("chaos").await;
    let ballast = place.path().join("ballast");
    // Full but for a little: less than a twentieth is free.
    fs::write(&ballast, vec![0; (2 << 20) - (64 << 10)]).unwrap();
    wait::until(wait::SOON, "the operator is told", async || {
        daemon.get_host("chaos.test", "/log?text=unheard").await;
        daemon.ctl_ok(&["events"]).await.stdout.contains("nearly full")
    })
    .await;
    daemon.load("chaos.test").requests(50).run().await.assert_none_failed();
    fs::remove_file(&ballast).unwrap();
    wait::until(wait::SOON, "the log resumes", async || {
        daemon.get_host("chaos.test", "/log?text=heard-again").await;
        fs::read_to_string(&log).unwrap_or_default().contains("heard-again")
    })
    .await;
    assert_eq!(daemon.ctl_ok(&["events"]).await.stdout.matches("nearly full").count(), 1, "said once");
}

/// Takes the file system away again, also when the test fails.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

// 67. A follower that stalls: the app does not wait, and what the follower has not seen is counted where it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stalls_is_told_what_it_missed_and_delays_nobody() {
    // More than all windows and pipes between the daemon and a reader that does not read.
    const LINES: u64 = 16_000;
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    daemon.get_host("chaos.test", "/log?text=the-beginning").await;
    wait::until(wait::SOON, "the first line was read", async || {
        daemon.ctl_ok(&["app", "logs", "chaos"]).await.stdout.contains("the-beginning")
    })
    .await;
    let mut follower = daemon.ctl_child(&["app", "logs", "chaos", "-f", "-n", "1", "-o", "jsonl"]);
    let mut records = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    // It follows from the line that it has been shown.
    assert!(next(&mut records).await["line"].as_str().is_some_and(|it| it.contains("the-beginning")));

    // Nothing is read from here on, and all is written.
    let written = daemon.get_host("chaos.test", &format!("/log?lines={LINES}&bytes=1000")).await;
    assert_eq!(written.status, 200, "the app was not kept waiting");
    daemon.load("chaos.test").paths(&["/fast"]).requests(50).run().await.assert_none_failed();
    daemon.get_host("chaos.test", "/log?text=the-end").await;
    let text = wait::for_some(wait::LATER, "the file has all of it", async || {
        let text = String::from_utf8_lossy(&logged(&daemon, "chaos")).into_owned();
        text.contains("the-end").then_some(text)
    })
    .await;
    let in_file = text.lines().filter_map(numbered).count() as u64;
    assert_eq!(in_file + dropped(&text), LINES, "the file has every line, or says how many it has not");

    let (mut seen, mut missed) = (0, 0);
    loop {
        let record = next(&mut records).await;
        let line = record["line"].as_str().unwrap_or_default();
        match numbered(line) {
            _ if line.contains("the-end") => break,
            Some((_, number)) => {
                assert_eq!(number, seen + missed, "what is missing was counted before what follows it");
                seen += 1;
            }
            None => {
                let gap = record["gap"].as_u64().unwrap_or(0);
                assert!(gap > 0, "neither a line nor a gap: {record}");
                missed += gap;
            }
        }
    }
    println!("a stalled follower saw {seen} lines and was told of {missed} others");
    assert_eq!(seen + missed, LINES);
    assert!(seen > 0 && missed > 0, "it saw {seen} lines and missed {missed}");
    follower.kill().await.expect("it can be ended");
}

/// The next record of a follower.
async fn next(records: &mut Lines<BufReader<ChildStdout>>) -> serde_json::Value {
    let line = tokio::time::timeout(wait::LATER, records.next_line()).await.expect("a record in time");
    let line = line.expect("text").expect("it goes on");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
}

/// How many lines a log says that it has not.
fn dropped(text: &str) -> u64 {
    let said =
        text.lines().filter_map(|line| line.strip_prefix("[miwid] dropped ")?.split(' ').next()?.parse::<u64>().ok());
    said.sum()
}

// 68. A directory that is removed under us is made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_directory_was_removed_begins_anew() {
    let daemon = Daemon::start(&managed(&[], "logs = { path = \"{dir}/logs/chaos.log\" }")).await;
    daemon.app_ready("chaos").await;
    wait::until(wait::SOON, "it has a log", async || daemon.dir().join("logs/chaos.log").exists()).await;
    fs::remove_dir_all(daemon.dir().join("logs")).unwrap();
    wait::until(wait::SOON, "the log is there again", async || {
        daemon.get_host("chaos.test", "/log?text=heard-again").await;
        daemon.read("logs/chaos.log").contains("heard-again")
    })
    .await;
}
