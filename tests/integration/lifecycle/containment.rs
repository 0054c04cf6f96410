//! C, G. What holds an app: its control group where there is one, its rights, its limits.

use std::{fs, path::PathBuf};

use harness::{Daemon, exists, skip, wait};

use super::{managed, other};

/// The groups that the daemon made for its instances.
fn groups(daemon: &Daemon) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", daemon.pid())).ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let root = PathBuf::from(mount).join(own.trim_end_matches("supervisor")).join(format!("miwid.{}", daemon.pid()));
    root.is_dir().then_some(root)
}

fn status_of(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

// 31. One that left the session, its parent and its environment behind is found by the group alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_any_mark_goes_with_its_group() {
    let script = "#!/bin/sh\n(setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$ > {dir}/escaped; exec sleep 300' &)\nexec {chaos}\n";
    let daemon =
        Daemon::builder(&other("chaos", "", "command = \"{dir}/app.sh\"")).script("app.sh", script).start().await;
    daemon.app_ready("chaos").await;
    let Some(root) = groups(&daemon) else { skip!("no cgroup v2 that the daemon may divide") };
    wait::until(wait::SOON, "it has escaped", async || !daemon.read("escaped").trim().is_empty()).await;
    let escaped: u32 = daemon.read("escaped").trim().parse().unwrap();
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert!(!exists(escaped) || status_of(escaped, "State").starts_with('Z'), "it is gone");
    wait::until(wait::SOON, "its group is gone", async || {
        fs::read_dir(&root).unwrap().flatten().all(|it| !it.path().is_dir())
    })
    .await;
    assert!(daemon.stop().await.success());
    assert!(!root.exists(), "a daemon that ends leaves no group");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gains_no_privileges_and_goes_before_its_daemon_when_memory_runs_out() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "100");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|it| *it == "0").count() == 2, "{core}");
}

// 70, 74. A limit either holds, and the kernel's kill is told with it, or is said not to.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_limit_holds_or_is_said_not_to() {
    let daemon = Daemon::start(&managed(&["--leak", "40000000"], "memory_limit = \"64MB\"\npids_limit = 64")).await;
    daemon.app_ready("chaos").await;
    let told = daemon.told("chaos").await;
    if told.contains("memory_limit, pids_limit not enforced") {
        skip!("the memory and pids controllers of cgroup v2 are not available; the app is told so");
    }
    let told = daemon.told_any("chaos", &["out of memory"]).await;
    assert!(told.contains("limit 64 MiB"), "{told}");
}

// 73. What forks without end is held by its limit, and told of it by name; it serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_held_by_its_limit_which_is_named() {
    let script = "#!/bin/sh\n(sleep 1; i=0; while [ $i -lt 200 ]; do sleep 120 & i=$((i+1)); done) &\nexec {chaos}\n";
    let config = other("chaos", "", "command = \"{dir}/app.sh\"\npids_limit = 48");
    let daemon = Daemon::builder(&config).script("app.sh", script).start().await;
    daemon.app_ready("chaos").await;
    if daemon.told("chaos").await.contains("pids_limit not enforced") {
        skip!("the pids controller of cgroup v2 is not available; the app is told so");
    }
    wait::until(wait::LATER, "the limit is named", async || {
        daemon.ctl_ok(&["events"]).await.stdout.contains("pids_limit = 48 is reached")
    })
    .await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
    assert!(daemon.stop().await.success());
}

// 27. Orphans of an app come to the warden, who sees them off as they end.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_orphans_leaves_no_zombies_and_does_not_touch_the_app() {
    let script = "#!/bin/sh\n(i=0; while [ $i -lt 2000 ]; do (sleep 0 &); i=$((i+1)); done; echo done > {dir}/stormed) &\nexec {chaos}\n";
    let config = other("chaos", "", "command = \"{dir}/app.sh\"");
    let daemon = Daemon::builder(&config).script("app.sh", script).warden().start().await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    let zombies = || {
        let warden = daemon.pid();
        let children = fs::read_to_string(format!("/proc/{warden}/task/{warden}/children")).unwrap_or_default();
        let ended = |it: &&str| it.parse().is_ok_and(|it| status_of(it, "State").starts_with('Z'));
        children.split_whitespace().filter(ended).count()
    };
    let most = std::cell::Cell::new(0);
    wait::until(wait::LATER, "the storm is over", async || {
        most.set(zombies().max(most.get()));
        !daemon.read("stormed").is_empty()
    })
    .await;
    assert!(most.get() <= 100, "{} zombies at one time", most.get());
    wait::until(wait::SOON, "nothing of it is left", async || zombies() == 0).await;
    assert_eq!((daemon.app_pids("chaos").await, daemon.get_host("chaos.test", "/").await.status), (vec![pid], 200));
    assert_eq!(daemon.app("chaos").await["restarts"], 0);
}
