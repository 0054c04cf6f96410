//! Deploy: a new version takes over only when it has proved itself, and the old one can come back.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use harness::{Daemon, Output, wait};

use super::{app, other};

/// An app whose working directory has its start script, so that a release is a directory with another one.
fn releasable(process: &str) -> String {
    let backend = "health_interval = \"100ms\"\nhealth_check = \"/health\"";
    let defaults =
        "command = \"./run.sh\"\nworking_dir = \"{dir}/v0\"\nstart_timeout = \"3s\"\nstop_timeout = \"2s\"\n";
    let mut text = other("chaos", backend, &format!("{defaults}{process}"));
    for default in ["settle_time = \"200ms\"\n", "start_timeout = \"3s\"\n"] {
        if process.contains(default.split(' ').next().unwrap_or_default()) {
            text = text.replacen(default, "", 1);
        }
    }
    text
}

fn script(version: &str, flags: &str) -> String {
    format!("#!/bin/sh\necho version {version} in $PWD\nMIWI_VERSION={version} exec {{chaos}} {flags}\n")
}

/// Writes the release `version`, which starts the chaos app with `flags`.
fn release(daemon: &Daemon, version: &str, flags: &str) -> PathBuf {
    daemon.write(&format!("{version}/run.sh"), &script(version, flags));
    let directory = daemon.dir().join(version);
    fs::set_permissions(directory.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

async fn started(process: &str) -> Daemon {
    let daemon = Daemon::builder(&releasable(process)).script("v0/run.sh", &script("v0", "")).start().await;
    daemon.app_ready("chaos").await;
    daemon
}

async fn deploy(daemon: &Daemon, directory: &std::path::Path) -> Output {
    daemon.ctl(&["app", "deploy", "chaos", &directory.display().to_string()]).await
}

/// What version answers.
async fn version(daemon: &Daemon) -> String {
    daemon.get_host("chaos.test", "/env").await.json()["MIWI_VERSION"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_go_forth_and_back_without_a_failed_request() {
    let daemon = started("").await;
    let load = daemon.load("chaos.test").paths(&["/fast", "/"]).start();
    load.flowing(20).await;
    for name in ["v1", "v2"] {
        let output = deploy(&daemon, &release(&daemon, name, "")).await;
        assert_eq!(output.status, 0, "{output:?}");
        assert_eq!(version(&daemon).await, name);
        load.flowing(20).await;
    }
    let app = daemon.app("chaos").await;
    assert!(app["release"].as_str().is_some_and(|it| output_names(&daemon).contains(&it.to_owned())), "{app}");
    for expected in ["v1", "v0"] {
        daemon.ctl_ok(&["app", "rollback", "chaos"]).await;
        assert_eq!(version(&daemon).await, expected);
        load.flowing(20).await;
    }
    load.stop().await.assert_none_failed();
    assert!(daemon.app("chaos").await["release"].is_null(), "back at what is configured");
    let output = daemon.ctl(&["app", "rollback", "chaos"]).await;
    assert!(output.status == 8 && output.all().contains("no earlier release"), "{output:?}");
}

/// The releases on the disk.
fn output_names(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.dir().join("state/apps/chaos/releases")).into_iter().flatten().flatten();
    entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

// 55. The new version fails its gate, in every way that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_release_never_takes_over_and_the_reason_is_on_screen() {
    let daemon = started("settle_time = \"2s\"").await;
    let before = daemon.app_pids("chaos").await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    load.flowing(20).await;
    for (name, flags, reason) in [
        ("exits", "--exit-code 3", "exited before ready (code 3)"),
        ("hangs", "--no-listen", "not ready within 3 s"),
        ("answers-500", "--health 500", "/health: 500"),
        ("elsewhere", "--listen tcp --wrong-port", "listens on"),
        ("falls-over", "--exit-after 1500 --exit-code 4", "code 4"),
        ("falls-ill", "--health flap:3", "became ill before it had settled"),
    ] {
        let output = deploy(&daemon, &release(&daemon, name, flags)).await;
        assert_eq!(output.status, 6, "{name}: {output:?}");
        assert!(output.all().contains(reason), "{name}: {output:?}");
        assert_eq!(daemon.app_pids("chaos").await, before, "{name}: the old process is untouched");
        assert_eq!(version(&daemon).await, "v0", "{name}");
        load.flowing(20).await;
    }
    load.stop().await.assert_none_failed();
    wait::until(wait::SOON, "what failed is removed", async || output_names(&daemon).is_empty()).await;
    assert_eq!(daemon.app("chaos").await["state"], "running");
}

// 56. Two slots: a failure at the second one rolls the first one back, or leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_in_the_second_slot_is_rolled_back_or_halted() {
    let flags = "$(test $MIWI_INSTANCE = 1 && echo --exit-code 5)";
    for (wish, expected) in [("rollback", 0), ("halt", 1)] {
        let daemon = started("instances = 2").await;
        let path = release(&daemon, "v1", flags).display().to_string();
        let output = daemon.ctl(&["app", "deploy", "chaos", &path, "--on-failure", wish]).await;
        assert!(output.status == 6 && output.all().contains("code 5"), "{output:?}");
        daemon.app_where("chaos", "both slots serve", |it| it["ready"] == 2).await;
        let mut seen = 0;
        for pid in daemon.app_pids("chaos").await {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            seen += usize::from(String::from_utf8_lossy(&environment).contains("MIWI_VERSION=v1"));
        }
        assert_eq!(seen, expected, "{wish}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_deploy_runs_once_in_the_release_and_its_failure_is_the_deploys() {
    let daemon = started("instances = 2\npre_deploy = \"echo ran in $PWD >> {dir}/migrations; cat ok\"").await;
    let good = release(&daemon, "v1", "");
    fs::write(good.join("ok"), "").unwrap();
    let output = deploy(&daemon, &good).await;
    assert_eq!(output.status, 0, "{output:?}");
    let ran = daemon.read("migrations");
    assert!(ran.lines().count() == 1 && ran.contains("state/apps/chaos/releases/"), "{ran}");
    let output = deploy(&daemon, &release(&daemon, "v2", "")).await;
    assert!(output.status == 6 && output.all().contains("pre_deploy failed (code 1)"), "{output:?}");
    assert!(output.all().contains("No such file"), "its last lines say why: {output:?}");
    assert_eq!(version(&daemon).await, "v1");
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    daemon.ctl_ok(&["app", "rollback", "chaos"]).await;
    assert_eq!(daemon.read("migrations").lines().count(), 2, "neither a restart nor a rollback migrates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_outlives_a_reload_and_old_ones_are_removed() {
    let daemon = started("").await;
    for name in ["v1", "v2", "v3", "v4"] {
        assert_eq!(deploy(&daemon, &release(&daemon, name, "")).await.status, 0);
    }
    wait::until(wait::SOON, "the current and two earlier ones are left", async || output_names(&daemon).len() == 3)
        .await;
    let before = daemon.app_pids("chaos").await;
    daemon.rewrite_config(&releasable("env = { NEW = \"1\" }"));
    let output = daemon.reload().await;
    assert_eq!(output.status, 0, "{output:?}");
    assert_ne!(daemon.app_pids("chaos").await, before, "it rolled");
    assert_eq!(version(&daemon).await, "v4");
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    assert_eq!(version(&daemon).await, "v4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_belongs_to_the_user_of_its_app() {
    use std::os::unix::fs::MetadataExt;
    if !harness::skip::is_root() {
        harness::skip!("running an app as another user needs root");
    }
    let daemon = started("user = \"nobody\"\npre_deploy = \"touch made-by-$(id -un)\"").await;
    let output = deploy(&daemon, &release(&daemon, "v1", "")).await;
    assert_eq!(output.status, 0, "{output:?}");
    let release = daemon.dir().join("state/apps/chaos/releases").join(&output_names(&daemon)[0]);
    assert!(release.join("made-by-nobody").exists(), "pre_deploy runs as the app's user");
    let script = fs::metadata(release.join("run.sh")).unwrap();
    assert_eq!((script.uid(), script.mode() & 0o777), (65_534, 0o750));
    assert_eq!(version(&daemon).await, "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_outlives_its_daemon() {
    let state = tempfile::tempdir().unwrap();
    let config = |daemon: &str| format!("{}\n[server]\nstate_dir = {:?}\n# {daemon}\n", releasable(""), state.path());
    let first = Daemon::builder(&config("first")).script("v0/run.sh", &script("v0", "")).start().await;
    first.app_ready("chaos").await;
    assert_eq!(deploy(&first, &release(&first, "v1", "")).await.status, 0);
    assert!(first.stop().await.success());
    let second = Daemon::builder(&config("second")).script("v0/run.sh", &script("v0", "")).start().await;
    second.app_ready("chaos").await;
    assert_eq!(version(&second).await, "v1");
    second.ctl_ok(&["app", "rollback", "chaos"]).await;
    assert_eq!(version(&second).await, "v0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_is_cancelled_takes_its_pre_deploy_along() {
    let daemon = started("pre_deploy = \"echo $$ > {dir}/migration; exec sleep 300\"").await;
    let path = release(&daemon, "v1", "").display().to_string();
    let mut client = daemon.ctl_child(&["app", "deploy", "chaos", &path]);
    wait::until(wait::SOON, "pre_deploy runs", async || !daemon.read("migration").trim().is_empty()).await;
    let pid: u32 = daemon.read("migration").trim().parse().unwrap();
    let operations = daemon.ctl_json(&["op", "list"]).await;
    let id = operations["operations"][0]["id"].as_str().unwrap().to_owned();
    daemon.ctl_ok(&["op", "cancel", &id]).await;
    assert!(!client.wait().await.unwrap().success());
    wait::until(wait::SOON, "pre_deploy is gone", async || !harness::exists(pid)).await;
    assert_eq!(version(&daemon).await, "v0");
    wait::until(wait::SOON, "its release is gone", async || output_names(&daemon).is_empty()).await;
}

// Two versions cannot share a fixed port: the old one comes back when the new one fails, and nobody is refused.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_fixed_port_a_bad_release_gives_the_old_one_back() {
    let config = releasable("hold = { timeout = \"60s\" }").replacen(
        "health_interval",
        "url = \"http://127.0.0.1:{port2}\"\nhealth_interval",
        1,
    );
    let flags = "--listen {port2}";
    let daemon = Daemon::builder(&config).script("v0/run.sh", &script("v0", flags)).start().await;
    assert_eq!(daemon.app_ready("chaos").await["strategy"], "hold");
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    load.flowing(20).await;
    let output = deploy(&daemon, &release(&daemon, "bad", &format!("{flags} --exit-code 3"))).await;
    assert!(output.status == 6 && output.all().contains("code 3"), "{output:?}");
    assert_eq!(version(&daemon).await, "v0");
    assert_eq!(deploy(&daemon, &release(&daemon, "v1", flags)).await.status, 0);
    assert_eq!(version(&daemon).await, "v1");
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
}

// 57, 103. One at a time; who comes second is told who is first, and who leaves can come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_deploy_is_refused_and_an_interrupted_one_goes_on() {
    let daemon = started("start_timeout = \"60s\"").await;
    let slow = release(&daemon, "v1", "--ready-after 3000").display().to_string();
    let client = daemon.ctl_child(&["app", "deploy", "chaos", &slow]);
    daemon.app_in_state("chaos", "rolling").await;
    let second = deploy(&daemon, &release(&daemon, "v2", "")).await;
    assert!(second.status == 8 && second.all().contains("held by deploy by"), "{second:?}");
    let pid = client.id().unwrap();
    daemon.signal_pid(pid, nix::sys::signal::Signal::SIGINT);
    let output = Output::of(&client.wait_with_output().await.unwrap());
    assert_eq!(output.status, 130, "{output:?}");
    let id = output.stderr.split("op watch").nth(1).and_then(|it| it.split_whitespace().next()).unwrap().to_owned();
    daemon.ctl_ok(&["op", "watch", id.trim_matches(|c: char| !c.is_alphanumeric())]).await;
    assert_eq!(version(&daemon).await, "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_release_of_the_app_is_refused() {
    let daemon = started("").await;
    let file = daemon.dir().join("v0/run.sh").display().to_string();
    for (path, exit, words) in [(file.as_str(), 2, "is a directory"), ("/no/such/place", 2, "/no/such/place")] {
        let output = daemon.ctl(&["app", "deploy", "chaos", path]).await;
        assert!(output.status == exit && output.all().contains(words), "{output:?}");
    }
    let output = daemon.ctl(&["app", "deploy", "nobody", &file]).await;
    assert_eq!(output.status, 5, "{output:?}");
    assert!(output_names(&daemon).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_waits_for_what_it_depends_on() {
    let first = app("first", "", &["--ready-after", "1500", "--pid-file", "{dir}/starts"], "");
    let second = app("second", "", &["--pid-file", "{dir}/starts"], "depends_on = [\"first\"]");
    let daemon = Daemon::start(&format!("{second}{first}")).await;
    daemon.told_any("second", &["waits for first"]).await;
    daemon.app_ready("second").await;
    let order: Vec<String> = daemon.read("starts").lines().map(str::to_owned).collect();
    let pid = |name: &'static str| {
        let daemon = &daemon;
        async move { daemon.app_pids(name).await[0].to_string() }
    };
    assert_eq!(order, [pid("first").await, pid("second").await]);
}
