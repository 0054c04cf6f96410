//! Who may do what over the control socket: roles by user and group, by what the kernel says of the other end.

use std::process::Stdio;

use harness::{Daemon, Output, miwictl, skip, wait};
use tokio::process::Command;

use crate::lifecycle::app;

/// Accounts that every Debian has.
const DAEMON: u32 = 1;
const BIN: u32 = 2;

/// The group of `DAEMON` may open the socket.
fn text(acl: &str) -> String {
    format!("[control]\ngroup = \"daemon\"\n{acl}\n{}{}", app("shop", "", &[], ""), app("blog", "", &[], ""))
}

async fn started(acl: &str) -> Daemon {
    let daemon = Daemon::start(&text(acl)).await;
    daemon.app_ready("shop").await;
    daemon.app_ready("blog").await;
    // The build's own directory may be closed to others; the daemon's is not.
    std::fs::copy(miwictl(), daemon.dir().join("miwictl")).unwrap();
    daemon
}

/// `miwictl ARGS` by the account `uid`, in the group that may open the socket.
async fn ctl_as(daemon: &Daemon, uid: u32, args: &[&str]) -> Output {
    let mut command = Command::new(daemon.dir().join("miwictl"));
    command.arg("--socket").arg(daemon.socket()).args(args).uid(uid).gid(DAEMON);
    let run = command.stdin(Stdio::null()).current_dir("/").kill_on_drop(true).output();
    Output::of(&tokio::time::timeout(wait::LATER, run).await.expect("it ends").unwrap())
}

async fn may(daemon: &Daemon, uid: u32, args: &[&str]) {
    let output = ctl_as(daemon, uid, args).await;
    assert_eq!(output.status, 0, "{args:?}: {output:?}");
}

async fn may_not(daemon: &Daemon, uid: u32, args: &[&str]) -> Output {
    let output = ctl_as(daemon, uid, args).await;
    assert_eq!(output.status, 4, "{args:?}: {output:?}");
    assert!(output.all().contains("permission denied") && output.all().contains("hint:"), "{args:?}: {output:?}");
    output
}

// 101. A viewer looks, is refused with the reason, and the refusal is on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_looks_and_changes_nothing() {
    if !skip::is_root() {
        skip!("becoming another user needs root");
    }
    let daemon = started("[control.acl]\n").await;
    for args in [&["status"][..], &["app", "list"], &["app", "status", "shop"], &["op", "list"], &["upstream", "list"]]
    {
        may(&daemon, DAEMON, args).await;
    }
    let output = may_not(&daemon, DAEMON, &["app", "restart", "shop"]).await;
    assert!(output.stderr.contains("daemon (uid 1) has the role viewer"), "{output:?}");
    let log = daemon.log();
    let line = log.lines().find(|it| it.contains("audit") && it.contains("restart"));
    let is_told = |it: &str| it.contains("uid=1 ") && it.contains("target=shop") && it.contains("denied");
    assert!(line.is_some_and(is_told), "no audit line in:\n{log}");

    let upload = daemon.dir().join("upload");
    std::fs::create_dir(&upload).unwrap();
    let upload = upload.display().to_string();
    let file = daemon.dir().join("miwid.toml").display().to_string();
    let changes: &[&[&str]] = &[
        &["app", "start", "shop"],
        &["app", "stop", "shop"],
        &["app", "restart", "--all"],
        &["app", "scale", "shop", "2"],
        &["app", "pause", "shop"],
        &["app", "resume", "shop"],
        &["app", "reset", "shop"],
        &["app", "deploy", "shop", &upload],
        &["app", "rollback", "shop"],
        &["app", "logs", "shop"],
        &["upstream", "drain", "shop", "1"],
        &["upstream", "undrain", "blog", "1"],
        &["logs", "rotate", "--all"],
        &["logs", "rotate", "access"],
        &["logs", "tail", "access"],
        &["cert", "request", "a.test"],
        &["cert", "import", "--cert", &file, "--key", &file],
        &["cloudflare", "purge", "https://a.test/x"],
        &["cloudflare", "check"],
        &["cloudflare", "ips", "--refresh"],
        &["config", "show"],
        &["reload"],
        &["reload", "--dry-run"],
        &["reload", "-c", &file],
        &["upgrade"],
        &["shutdown"],
    ];
    let before = daemon.app("shop").await;
    for args in changes {
        may_not(&daemon, DAEMON, args).await;
    }
    let after = daemon.app("shop").await;
    assert_eq!(after["instances"][0]["pid"], before["instances"][0]["pid"]);
    assert!(daemon.ctl_json(&["op", "list"]).await["operations"].as_array().is_some_and(Vec::is_empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_some_apps_steers_these_and_an_admin_everything() {
    if !skip::is_root() {
        skip!("becoming another user needs root");
    }
    let acl = "[control.acl]\n\"bin\" = { role = \"operator\", apps = [\"sh*\"] }\n\"group:daemon\" = { role = \"viewer\", apps = [\"blog\"] }\n";
    let daemon = started(acl).await;
    may(&daemon, BIN, &["app", "restart", "shop"]).await;
    may(&daemon, BIN, &["app", "logs", "shop"]).await;
    // As a member of the group.
    may(&daemon, BIN, &["app", "logs", "blog"]).await;
    for args in [&["app", "restart", "blog"][..], &["reload"], &["logs", "tail", "access"], &["shutdown"]] {
        may_not(&daemon, BIN, args).await;
    }
    may(&daemon, DAEMON, &["app", "logs", "blog"]).await;
    may_not(&daemon, DAEMON, &["app", "logs", "shop"]).await;
    // A script hears the same.
    let output = ctl_as(&daemon, BIN, &["app", "stop", "blog", "-o", "json"]).await;
    let said: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&said["error"]["code"], &said["error"]["exit"]), (&"permission-denied".into(), &4.into()), "{said}");

    daemon.rewrite_config(&text(
        "[control.acl]\nbin = \"operator\"\n\"group:daemon\" = \"admin\"\n\"user:no-such\" = \"admin\"\n",
    ));
    daemon.ctl_ok(&["reload"]).await;
    may(&daemon, BIN, &["app", "restart", "blog"]).await;
    daemon.rewrite_config(&text("[control.acl]\nbin = \"operator\"\n"));
    may(&daemon, DAEMON, &["reload"]).await;
    // It has taken its own right away, and an operator of everything does not decide where the configuration is.
    may_not(&daemon, DAEMON, &["reload"]).await;
    may(&daemon, BIN, &["reload"]).await;
    let path = daemon.dir().join("miwid.toml").display().to_string();
    may_not(&daemon, BIN, &["reload", "-c", &path]).await;
}

/// What an app wrote last comes with the news of its failure: only for those who may read its output.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_an_app_are_for_those_who_may_read_its_output() {
    if !skip::is_root() {
        skip!("becoming another user needs root");
    }
    let acl = "[control.acl]\nbin = { role = \"viewer\", apps = [\"shop\"] }\n";
    const WORDS: &str = "alive, but not listening";
    let failing = app("shop", "", &["--no-listen", "--exit-after", "300", "--exit-code", "1"], "");
    let daemon = Daemon::start(&format!("[control]\ngroup = \"daemon\"\n{acl}{failing}")).await;
    std::fs::copy(miwictl(), daemon.dir().join("miwictl")).unwrap();
    daemon.told_any("shop", &[WORDS]).await;
    let failed = daemon.ctl(&["app", "restart", "shop"]).await;
    assert!(failed.status == 6 && failed.all().contains(WORDS), "{failed:?}");
    for (uid, expected) in [(BIN, true), (DAEMON, false)] {
        for args in [&["op", "list", "-o", "json"][..], &["app", "status", "shop", "-o", "json"]] {
            let seen = ctl_as(&daemon, uid, args).await;
            assert!(seen.status == 0 && seen.stdout.contains(WORDS) == expected, "{uid} {args:?}: {seen:?}");
        }
    }
}
