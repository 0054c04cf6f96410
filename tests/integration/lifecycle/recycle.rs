//! G. Replacing what has grown, is old or has worked long, at night by a schedule; and sleep.

use std::collections::BTreeSet;

use harness::{Daemon, wait};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{app, managed};

/// Waits until the only instance is another one, while requests go on, and none of them fails.
async fn replaced_under_load(daemon: &Daemon, what: &str) {
    let before = daemon.app_ready("chaos").await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast", "/"]).start();
    daemon
        .app_where("chaos", what, |it| {
            it["state"] == "running" && it["instances"][0]["pid"] != before["instances"][0]["pid"]
        })
        .await;
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    assert_eq!(daemon.app("chaos").await["restarts"], 0, "a replacement is no crash");
}

// 69. Leak to memory_restart: one rolling replace with its numbers in an event.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_grows_is_replaced() {
    let daemon = Daemon::start(&managed(&["--leak", "8000000"], "memory_restart = \"40MB\"")).await;
    replaced_under_load(&daemon, "the one that grew is replaced").await;
    let events = daemon.ctl_ok(&["events"]).await.stdout;
    let told: Vec<&str> = events.lines().filter(|it| it.contains("app.recycled")).collect();
    assert!(told.len() == 1 && told[0].contains("memory_restart is 40 MiB"), "{told:?}");
}

// 69, its pause. One that grows on is not replaced for it again within five minutes, but for other reasons it is.
#[tokio::test(flavor = "multi_thread")]
async fn growing_on_is_no_reason_to_be_replaced_all_the_time() {
    const MARK: u64 = 40 << 20;
    let limits = "memory_restart = \"40MB\"\nmax_requests = 1000";
    let daemon = Daemon::start(&managed(&["--leak", "20000000"], limits)).await;
    let first = daemon.app_ready("chaos").await;
    let grown = |it: &Value| it["memory_bytes"].as_u64().is_some_and(|memory| memory > MARK);
    let second = daemon
        .app_where("chaos", "the second has been too large for longer than it took the first", |it| {
            let instance = &it["instances"][0];
            let is_second = instance["pid"] != first["instances"][0]["pid"] && it["state"] == "running";
            is_second && grown(instance) && instance["uptime_seconds"].as_u64() > Some(10)
        })
        .await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    daemon
        .app_where("chaos", "it is replaced for its requests", |it| {
            it["state"] == "running" && it["instances"][0]["pid"] != second["instances"][0]["pid"]
        })
        .await;
    load.stop().await.assert_none_failed();
    let events = daemon.ctl_ok(&["events"]).await.stdout;
    let told: Vec<&str> = events.lines().filter(|it| it.contains("app.recycled")).collect();
    assert!(told.len() == 2 && told[0].contains("memory_restart") && told[1].contains("has answered"), "{told:?}");
}

// 71. max_requests, within a tenth.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_answered_enough_is_replaced() {
    let daemon = Daemon::start(&managed(&[], "max_requests = 500")).await;
    replaced_under_load(&daemon, "the one that has answered enough is replaced").await;
    let events = daemon.ctl_ok(&["events"]).await.stdout;
    assert!(events.contains("it has answered"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_old_is_replaced_also_on_a_fixed_port() {
    let daemon = Daemon::start(&super::fixed(&[], "max_lifetime = \"3s\"")).await;
    replaced_under_load(&daemon, "the old one is replaced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_replaces_every_instance() {
    let daemon = Daemon::start(&managed(&[], "instances = 2\nrestart_schedule = \"* * * * *\"")).await;
    daemon.app_ready("chaos").await;
    let before: BTreeSet<u32> = daemon.app_pids("chaos").await.into_iter().collect();
    wait::until(wait::LATER, "both are new", async || {
        let now: BTreeSet<u32> = daemon.app_pids("chaos").await.into_iter().collect();
        now.len() == 2 && now.is_disjoint(&before)
    })
    .await;
}

// 72. Its hour comes while something else runs on the app: that goes first, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_does_not_get_in_the_way_of_a_restart() {
    let flags = ["--health-file", "{dir}/health"];
    let wish = "restart_schedule = \"* * * * *\"\nstart_timeout = \"10m\"";
    let daemon = Daemon::builder(&managed(&flags, wish)).file("health", "200").start().await;
    daemon.app_ready("chaos").await;
    // Until it may end, the restart is in the way of every minute; so is a scheduled one that came first.
    daemon.write("health", "503");
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    wait::until(2 * wait::LATER, "a minute was left out", async || {
        daemon.ctl_ok(&["events"]).await.stdout.contains("app.schedule_skipped")
    })
    .await;
    assert_eq!(daemon.get_host("chaos.test", "/fast").await.status, 200, "the old one serves");
    daemon.write("health", "200");
    restart.wait().await.unwrap();
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_none_is_refused() {
    let output = Daemon::builder(&managed(&[], "restart_schedule = \"61 * * * *\"")).check(&[]).await;
    assert!(output.status == 6 && output.all().contains("minute"), "{output:?}");
}

// 49, 76. Idle to zero, whatever the probes ask; fifty first requests at once are one start, and all are answered.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_nobody_asks_for_sleeps_and_wakes_once_for_all() {
    let flags = ["--pid-file", "{dir}/starts", "--ready-after", "300"];
    let daemon = Daemon::start(&app("chaos", "health_interval = \"200ms\"", &flags, "idle_timeout = \"1s\"")).await;
    daemon.app_in_state("chaos", "idle").await;
    wait::until(wait::SOON, "no process is left", async || daemon.app_pids("chaos").await.is_empty()).await;
    let starts = daemon.read("starts").lines().count();
    let result = daemon.load("chaos.test").connections(50).paths(&["/fast"]).requests(50).run().await;
    result.assert_none_failed();
    assert_eq!(daemon.read("starts").lines().count(), starts + 1, "one start for all");
    daemon.app_in_state("chaos", "idle").await;
    daemon.ctl_ok(&["app", "start", "chaos"]).await;
    assert_eq!(daemon.app("chaos").await["state"], "running", "an operator wakes it too");
}

// 77. A scanner does not wake it: not by its paths, not by its methods, and not over a connection that served before.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_wake_on_names_wakes_an_app() {
    let wish = "idle_timeout = \"3s\"\nwake_on = { methods = [\"GET\"], paths = [\"/\", \"/fast*\"] }";
    let daemon = Daemon::start(&app("chaos", "", &["--pid-file", "{dir}/starts"], wish)).await;
    daemon.app_ready("chaos").await;
    let mut kept = Kept::open(&daemon).await;
    // Awake, it answers all that it is asked.
    assert!(kept.ask("GET /wp-login.php").await.starts_with("HTTP/1.1 404"));
    assert!(kept.ask("GET /fast").await.starts_with("HTTP/1.1 200"));
    // A scanner that never ends does not keep it awake.
    let scanner =
        daemon.load("chaos.test").connections(1).paths(&["/.env", "/wp-login.php"]).expect(&[404, 503]).start();
    daemon.app_in_state("chaos", "idle").await;
    scanner.stop().await.assert_none_failed();
    wait::until(wait::SOON, "no process is left", async || daemon.app_pids("chaos").await.is_empty()).await;
    let starts = daemon.read("starts").lines().count();
    for line in [
        "GET /wp-login.php",
        "GET /fast/../wp-login.php",
        "GET //wp-login.php",
        "GET /.well-known/acme-challenge/x",
        "POST /fast",
        "HEAD /",
        "OPTIONS /",
    ] {
        let answer = kept.ask(line).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 503") && answer.contains("miwi-reason: app-idle"), "{line}: {answer}");
        assert!(answer.contains("retry-after: "), "{line}: {answer}");
    }
    let scan = daemon.load("chaos.test").connections(4).paths(&["/.env", "/wp-login.php"]).requests(200);
    scan.expect(&[503]).run().await.assert_none_failed();
    assert_eq!(daemon.app("chaos").await["state"], "idle");
    assert_eq!(daemon.read("starts").lines().count(), starts, "nothing was started");
    assert!(!daemon.ctl_ok(&["events"]).await.stdout.contains("app.waking"));

    assert!(kept.ask("GET /fast").await.starts_with("HTTP/1.1 200"), "what it names wakes it");
    assert_eq!(daemon.read("starts").lines().count(), starts + 1);
    assert!(kept.ask("GET /wp-login.php").await.starts_with("HTTP/1.1 404"), "and then it answers all again");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_wake_on_counts_at_once_and_restarts_nothing() {
    let text = |path: &str| {
        let wish = format!("idle_timeout = \"1s\"\nwake_on = {{ paths = [\"{path}\"] }}");
        app("chaos", "", &[], &wish)
    };
    let daemon = Daemon::start(&text("/fast")).await;
    daemon.app_ready("chaos").await;
    let load = daemon.load("chaos.test").connections(2).paths(&["/fast"]).start();
    load.flowing(10).await;
    let pids = daemon.app_pids("chaos").await;
    daemon.rewrite_config(&text("/env"));
    daemon.ctl_ok(&["reload"]).await;
    load.flowing(10).await;
    assert_eq!(daemon.app_pids("chaos").await, pids, "it is no reason to restart");
    load.stop().await.assert_none_failed();
    daemon.app_in_state("chaos", "idle").await;
    wait::until(wait::SOON, "no process is left", async || daemon.app_pids("chaos").await.is_empty()).await;
    assert_eq!(daemon.get_host("chaos.test", "/fast").await.header("miwi-reason"), "app-idle");
    assert_eq!(daemon.get_host("chaos.test", "/env").await.status, 200);
    daemon.app_in_state("chaos", "idle").await;
    wait::until(wait::SOON, "no process is left", async || daemon.app_pids("chaos").await.is_empty()).await;
    // The same while it sleeps.
    daemon.rewrite_config(&text("/fast"));
    daemon.ctl_ok(&["reload"]).await;
    assert_eq!(daemon.get_host("chaos.test", "/env").await.header("miwi-reason"), "app-idle");
    assert_eq!(daemon.get_host("chaos.test", "/fast").await.status, 200);
}

/// A connection to the app's site that stays open.
struct Kept(tokio::net::TcpStream);

impl Kept {
    async fn open(daemon: &Daemon) -> Self {
        Self(tokio::net::TcpStream::connect(daemon.http()).await.unwrap())
    }

    /// The head of the answer.
    async fn ask(&mut self, line: &str) -> String {
        let Self(stream) = self;
        let request = format!("{line} HTTP/1.1\r\nHost: chaos.test\r\nContent-Length: 0\r\n\r\n");
        let request = if line.starts_with("POST") { request } else { request.replace("Content-Length: 0\r\n", "") };
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(wait::LATER, stream.read_u8()).await.expect("an answer in time");
            answer.push(byte.unwrap_or_else(|error| panic!("{line}: {error}")));
        }
        let head = String::from_utf8(answer).unwrap();
        let length = head.lines().find_map(|it| it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body: usize = if line.starts_with("HEAD") { 0 } else { length.unwrap_or(0) };
        stream.read_exact(&mut vec![0; body]).await.unwrap();
        head
    }
}

// 78. A wake that fails is answered, and starts nothing for each request.
#[tokio::test(flavor = "multi_thread")]
async fn a_wake_that_fails_is_a_503_and_not_a_start_for_each_request() {
    let script = "#!/bin/sh\necho x >> {dir}/starts\nif [ -e {dir}/broken ]; then exit 1; fi\nexec {chaos}\n";
    let config =
        super::other("chaos", "", "command = \"{dir}/app.sh\"\nidle_timeout = \"1s\"\nhold = { timeout = \"2s\" }");
    let daemon = Daemon::builder(&config).script("app.sh", script).start().await;
    daemon.app_in_state("chaos", "idle").await;
    daemon.write("broken", "");
    let before = daemon.read("starts").lines().count();
    let result = daemon.load("chaos.test").connections(20).requests(60).expect(&[503, 504]).run().await;
    result.assert_none_failed();
    let started = || daemon.read("starts").lines().count() - before;
    wait::until(wait::SOON, "it was tried", async || started() > 0).await;
    assert!(started() < 20, "{} starts", started());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_app_is_restarted_when_its_files_change() {
    let script = |version: &str| format!("#!/bin/sh\nMIWI_VERSION={version} exec {{chaos}}\n");
    let config = super::other("chaos", "", "command = \"./run.sh\"\nworking_dir = \"{dir}/src\"\nwatch = true");
    let daemon = Daemon::builder(&config).script("src/run.sh", &script("one")).start().await;
    daemon.app_ready("chaos").await;
    let version = || async { daemon.get_host("chaos.test", "/env").await.json()["MIWI_VERSION"].clone() };
    assert_eq!(version().await, "one");
    let load = daemon.load("chaos.test").connections(2).paths(&["/fast"]).start();
    daemon.write("src/run.sh", &script("two"));
    wait::until(wait::SOON, "the new version serves", async || version().await == "two").await;
    // What does not start leaves the old one alone.
    daemon.write("src/run.sh", "#!/bin/sh\nexit 1\n");
    wait::until(wait::SOON, "it was tried", async || {
        daemon.ctl_ok(&["events"]).await.stdout.contains("app.rollout_failed")
    })
    .await;
    assert_eq!(version().await, "two");
    load.stop().await.assert_none_failed();
}
