//! `[server] user`: the warden is root, its engines and apps are not.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use harness::{Builder, Daemon, get, skip, skip::is_root, wait};

use super::{engines, generation, is_generation, kill_engine};
use crate::lifecycle::managed;

const LOGGING: &str = "[logging]\nlevel = \"debug\"\n";
/// Everywhere, and nobody's.
const ACCOUNT: &str = "nobody";

pub(super) fn builder(server: &str, rest: &str) -> Builder {
    let config = format!("[server]\nuser = \"{ACCOUNT}\"\n{server}\n{rest}\n{LOGGING}");
    Daemon::builder(&config).warden().env("MIWID_TEST_CONFIRM_MS", "300").run_directory_of(ACCOUNT)
}

/// The lines of `/proc/PID/status` that say what a process may do.
fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = text.lines().find_map(|it| it.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default();
    line.split_ascii_whitespace().next().unwrap_or_default().to_owned()
}

fn account() -> (u32, u32) {
    let account = nix::unistd::User::from_name(ACCOUNT).expect("the accounts are read").expect("the account exists");
    (account.uid.as_raw(), account.gid.as_raw())
}

pub(super) fn assert_engine_is_nobody(daemon: &Daemon) {
    let (uid, gid) = account();
    for engine in engines(daemon) {
        let told = ["Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs"].map(|key| status(engine, key));
        let binds = "0000000000000400".to_owned();
        let none = "0000000000000000".to_owned();
        let one = "1".to_owned();
        assert_eq!(told, [uid.to_string(), gid.to_string(), binds.clone(), binds.clone(), binds, none, one]);
    }
    assert_eq!(status(daemon.pid(), "Uid"), "0", "the warden stays root");
}

pub(super) async fn assert_app_is_nobody(daemon: &Daemon) {
    for pid in daemon.app_pids("chaos").await {
        let told = ["Uid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"].map(|key| status(pid, key));
        let none = "0000000000000000";
        assert_eq!(told, [account().0.to_string().as_str(), none, none, none, "1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_and_apps_are_the_account_through_crash_upgrade_reload_and_restart() {
    if !is_root() {
        skip!("needs root");
    }
    let site = "[backends.\"files.test\"]\nroot = \"{dir}/www\"\n";
    let rest = format!("{}{site}", managed(&[], "instances = 2"));
    let daemon = builder("", &rest).file("www/index.html", "a page").start().await;
    daemon.app_ready("chaos").await;
    assert_engine_is_nobody(&daemon);
    assert_app_is_nobody(&daemon).await;
    let log = fs::metadata(daemon.dir().join("logs/chaos.log")).expect("the app's log");
    assert_eq!(log.uid(), account().0);
    let serves = async |what: &str| {
        assert_eq!(daemon.get_host("files.test", "/").await.text(), "a page", "{what}");
        assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200, "{what}");
        assert_engine_is_nobody(&daemon);
    };
    serves("from the start").await;
    let pids = daemon.app_pids("chaos").await;
    kill_engine(&daemon).await;
    serves("after a crash").await;
    daemon.ctl_ok(&["upgrade"]).await;
    is_generation(&daemon, 3).await;
    serves("after an upgrade").await;
    assert_eq!(daemon.app_pids("chaos").await, pids, "apps do not notice");
    assert_eq!(daemon.app("chaos").await["restarts"], 0);

    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    let restarted = daemon.app_pids("chaos").await;
    assert!(restarted.iter().all(|pid| !pids.contains(pid)), "{pids:?} -> {restarted:?}");
    assert_app_is_nobody(&daemon).await;
    let rest = rest.replace("instances = 2", "instances = 1");
    daemon.rewrite_config(&format!("[server]\nuser = \"{ACCOUNT}\"\n{rest}\n{LOGGING}"));
    let reloaded = daemon.reload().await;
    assert_eq!(reloaded.status, 0, "{reloaded:?}");
    daemon.app_where("chaos", "one is left", |it| it["instances"].as_array().is_some_and(|it| it.len() == 1)).await;
    serves("after a reload").await;
    daemon.rewrite_config(&format!(
        "[server]\nuser = \"{ACCOUNT}\"\n{}\n{LOGGING}",
        rest.replace("instances = 1", "user = \"daemon\"")
    ));
    let refused = daemon.reload().await;
    assert_ne!(refused.status, 0, "{refused:?}");
    assert!(refused.all().contains("every app runs as that account"), "{refused:?}");
    serves("after a reload that was refused").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    wait::until(wait::LATER, "the app is gone", async || restarted.iter().all(|it| !harness::exists(*it))).await;
    assert_eq!(generation(&daemon).await, 3);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ignores_term_or_crashes_is_dealt_with_as_ever() {
    if !is_root() {
        skip!("needs root");
    }
    let daemon = builder("", &managed(&["--ignore-term"], "stop_timeout = \"300ms\"")).start().await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    daemon.signal_pid(pids[0], nix::sys::signal::Signal::SIGKILL);
    let back = |it: &serde_json::Value| it["restarts"] == 1 && it["instances"][0]["state"] == "ready";
    daemon.app_where("chaos", "it is back", back).await;
    let pids = daemon.app_pids("chaos").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert!(pids.iter().all(|it| !harness::exists(*it)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_below_1024_are_bound_and_files_get_their_owner() {
    if !is_root() {
        skip!("needs root");
    }
    let Some(port) = (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) else {
        skip!("no free port below 1024");
    };
    let builder = builder("", &format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n"));
    let daemon = builder.start().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(get(address, "localhost", "/health").await.expect("an answer").status, 200);
    let (uid, _) = account();
    for path in [daemon.dir().join("state"), daemon.socket()] {
        let found = fs::metadata(&path).expect("it is there");
        assert_eq!((found.uid(), found.mode() & 0o007), (uid, 0), "{}", path.display());
    }
    assert_eq!(fs::metadata(daemon.dir()).expect("there").uid(), 0, "what was there before is left alone");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_only_root_may_read_is_named_with_what_to_do() {
    if !is_root() {
        skip!("needs root");
    }
    let site = "[backends.\"files.test\"]\nroot = \"{dir}\"\n[backends.\"files.test\".ssl]\n";
    let builder = builder("", &format!("{site}cert = \"{{dir}}/a.pem\"\nkey = \"{{dir}}/a.key\"\n"));
    let pair = rcgen::generate_simple_self_signed(vec!["files.test".to_owned()]).expect("a certificate");
    let builder = builder.file("a.pem", &pair.cert.pem()).file("a.key", &pair.signing_key.serialize_pem());
    fs::set_permissions(builder.dir().join("a.key"), fs::Permissions::from_mode(0o600)).expect("changed");
    let refusal = builder.refusal().await;
    assert_eq!(refusal.code, Some(6), "{refusal:?}");
    assert!(refusal.stderr.contains("a.key: Permission denied"), "{refusal:?}");
    assert!(refusal.stderr.contains("the user that miwid runs as must be able to read it"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_unsafe_or_impossible_is_refused_with_a_hint() {
    if !is_root() {
        skip!("needs root");
    }
    let other = managed(&[], "user = \"daemon\"");
    let unwritable = "state_dir = \"{dir}/theirs\"";
    let cases = [
        (builder("", &other), "every app runs as that account"),
        (builder("", "").arg("--single-process"), "with --single-process"),
        (builder("group = \"no-such-group\"", ""), "group \"no-such-group\" does not exist"),
        (builder("", "").arg("--set").arg("server.user=root"), "server.user is root"),
        (builder(unwritable, "").file("theirs/x", ""), "belongs to somebody else"),
        (builder("", "").uid(1), "needs miwid to start as root"),
    ];
    for (builder, expected) in cases {
        let refusal = builder.refusal().await;
        assert_eq!(refusal.code, Some(6), "{refusal:?}");
        assert!(refusal.stderr.contains(expected) && refusal.stderr.contains("hint: "), "{expected}: {refusal:?}");
    }
    let builder = builder("", "");
    fs::set_permissions(builder.dir(), fs::Permissions::from_mode(0o777)).expect("changed");
    let refusal = builder.refusal().await;
    assert!(refusal.stderr.contains("can be written by others"), "{refusal:?}");
}

/// What the launch stub answers to a launch, started as the warden starts it.
fn launch(user: &str) -> (String, String) {
    use std::{
        io::{Read, Write},
        net::Shutdown,
        os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt},
        process::{Command, Stdio},
    };
    let (uid, gid) = account();
    let identity = format!("{{\"name\":\"{ACCOUNT}\",\"uid\":{uid},\"gid\":{gid},\"groups\":[{gid}]}}");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(harness::miwid());
    command.arg0("miwid-launch").arg(identity).env_clear();
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the stub starts");
    // The command has an end of the pair of its own.
    drop(command);
    let wire = format!(
        "{{\"argv\":[\"/usr/bin/id\",\"-u\"],\"env\":[],\"working_dir\":\"/\",\"user\":{user},\"group\":null}}"
    );
    ours.write_all(wire.as_bytes()).and_then(|()| ours.shutdown(Shutdown::Write)).expect("the launch is read");
    let (mut answer, mut output) = (String::new(), String::new());
    ours.read_to_string(&mut answer).expect("an answer");
    child.stdout.take().expect("it is piped").read_to_string(&mut output).expect("an output");
    child.wait().expect("it ends");
    (answer, output)
}

#[test]
fn no_launch_gets_another_account_than_the_warden_has_chosen() {
    if !is_root() {
        skip!("needs root");
    }
    let uid = account().0;
    assert_eq!(launch("null"), (String::new(), format!("{uid}\n")));
    assert_eq!(launch(&format!("[{uid},{uid},[]]")), (String::new(), format!("{uid}\n")));
    for other in ["[0,0,[]]", "[1,1,[1]]"] {
        let (answer, output) = launch(other);
        assert!(answer.contains("setgroups") && answer.contains("\"errno\":1"), "{answer}");
        assert_eq!(output, "", "nothing ran");
    }
}
