//! A. Starting: what an operator hears when an app does not come up, and what never happens meanwhile.

use std::{fs, net::TcpListener, time::Duration};

use harness::{Daemon, Origin, chaos_app, descendants, repository, skip, wait};

use super::{app, fixed, managed, other};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_binary_is_named_and_found_once_it_appears() {
    let broken = other("late", "", "command = \"{dir}/late\"");
    let daemon = Daemon::start(&format!("{broken}{}", app("well", "", &[], ""))).await;
    daemon.app_ready("well").await;
    assert_eq!(daemon.get_host("well.test", "/").await.status, 200, "other apps are not affected");
    daemon.told_any("late", &["app-command-missing", "does not exist", "not found"]).await;
    assert_eq!(daemon.ctl(&["app", "start", "late"]).await.status, 6);
    let refused = daemon.get_host("late.test", "/").await;
    assert_eq!(
        (refused.status, refused.header("miwi-reason")),
        (503, "app-failed"),
        "nobody waits for what cannot come"
    );
    fs::copy(chaos_app(), daemon.dir().join("late.new")).unwrap();
    fs::rename(daemon.dir().join("late.new"), daemon.dir().join("late")).unwrap();
    daemon.app_ready("late").await;
    assert_eq!(daemon.get_host("late.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_name_that_is_nowhere_lists_the_path() {
    let output = Daemon::builder(&other("lost", "", "command = \"no-such-program\"")).check(&["--strict"]).await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains("no-such-program") && output.all().contains("/usr/bin"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_not_to_be_executable_has_its_own_message() {
    let config = ["plain", "interpreter", "windows"]
        .map(|name| other(name, "", &format!("command = \"{{dir}}/{name}.sh\"")))
        .concat();
    let daemon = Daemon::builder(&config)
        .file("plain.sh", "#!/bin/sh\nexit 0\n")
        .script("interpreter.sh", "#!/no/such/shell\nexit 0\n")
        .script("windows.sh", "#!/bin/sh\r\nexit 0\r\n")
        .start()
        .await;
    daemon.told_any("plain", &["not executable", "app-command-not-exec", "permission"]).await;
    daemon.told_any("interpreter", &["/no/such/shell"]).await;
    daemon.told_any("windows", &["windows line", "line end", "crlf"]).await;
}

/// Unmounts when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_runs_nothing_is_named() {
    let mount = |dir: &std::path::Path| {
        let command = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "noexec,size=64m", "tmpfs"])
            .arg(dir)
            .output();
        command.is_ok_and(|it| it.status.success())
    };
    let place = tempfile::tempdir().unwrap();
    if !skip::is_root() || !mount(place.path()) {
        skip!("mounting a file system needs root and the right to mount");
    }
    let _mounted = Mounted(place.path().to_owned());
    let script = place.path().join("app.sh");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = Daemon::start(&other("still", "", &format!("command = \"{}\"", script.display()))).await;
    daemon.told_any("still", &["noexec"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_working_directory_is_told_apart() {
    let config = [("gone", "{dir}/gone"), ("file", "{dir}/a-file")]
        .map(|(name, place)| app(name, "", &[], &format!("working_dir = \"{place}\"")))
        .concat();
    let daemon = Daemon::builder(&config).file("a-file", "").start().await;
    daemon.told_any("gone", &["app-cwd-missing", "does not exist"]).await;
    daemon.told_any("file", &["app-cwd-not-dir", "not a directory"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_that_the_user_may_not_enter_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if !skip::is_root() {
        skip!("running an app as another user needs root");
    }
    let config = app("denied", "", &[], "working_dir = \"{dir}/private/inner\"\nuser = \"nobody\"");
    let builder = Daemon::builder(&config).file("private/inner/x", "");
    let private = builder.dir().join("private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let daemon = builder.start().await;
    let told = daemon.told_any("denied", &["may not enter", "app-cwd-denied"]).await;
    assert!(told.contains("private"), "the parent that stops it is named: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_the_user_may_not_reach_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if !skip::is_root() {
        skip!("running an app as another user needs root");
    }
    let config = app("denied", "", &[], "working_dir = \"/\"\nuser = \"nobody\"\nlisten = \"unix\"");
    let builder = Daemon::builder(&config);
    fs::set_permissions(builder.dir(), fs::Permissions::from_mode(0o750)).unwrap();
    let daemon = builder.start().await;
    daemon.told_any("denied", &["user \"nobody\" may not enter"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_environment_is_named_without_its_values() {
    let name = format!("{}\n[backends.\"chaos.test\".process.env]\n\"A-B\" = \"x\"\n", managed(&[], ""));
    let output = Daemon::builder(&name).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("A-B"), "{output:?}");

    let output = Daemon::builder(&managed(&[], "env_file = \"{dir}/none.env\"")).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("none.env"), "{output:?}");

    let text = "A=1\nB=2\nC=3\n# comment\nD=4\nE=5\nsecret-without-equals-sign\n";
    let output =
        Daemon::builder(&managed(&[], "env_file = \"{dir}/app.env\"")).file("app.env", text).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("app.env:7"), "{output:?}");
    assert!(!output.all().contains("secret-without"), "a line of a secret file is not printed: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_cannot_be_are_refused_before_a_fork() {
    let output = Daemon::builder(&managed(&[], "user = \"no-such-user-here\"")).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("no-such-user-here"), "{output:?}");
    let output = Daemon::builder(&managed(&[], "user = \"root\"")).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("allow_root"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_a_daemon_that_may_switch() {
    if skip::is_root() {
        skip!("only a daemon without root is refused to switch users");
    }
    let output = Daemon::builder(&managed(&[], "user = \"nobody\"")).check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("root"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_port_in_use_names_its_owner_and_recovers() {
    let builder = Daemon::builder(&fixed(&[], ""));
    let taken = TcpListener::bind(("127.0.0.1", builder.port(2))).unwrap();
    let daemon = builder.start().await;
    let told = daemon.told_any("chaos", &["app-port-in-use", "in use"]).await;
    assert!(told.contains(&std::process::id().to_string()), "the owner's pid is named: {told}");
    drop(taken);
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_managed_port_costs_one_attempt_on_another() {
    let script = "#!/bin/sh\necho $PORT >> {dir}/ports\n\
                  if [ $(wc -l < {dir}/ports) -eq 1 ]; then echo 'Error: listen EADDRINUSE' >&2; exit 1; fi\n\
                  exec {chaos} --listen tcp\n";
    let config = other("chaos", "", "command = \"{dir}/app.sh\"\nlisten = \"tcp\"");
    let daemon = Daemon::builder(&config).script("app.sh", script).start().await;
    daemon.app_ready("chaos").await;
    let ports: Vec<String> = daemon.read("ports").lines().map(str::to_owned).collect();
    assert_eq!(ports.len(), 2, "two attempts: {ports:?}");
    assert_ne!(ports[0], ports[1], "a port that did not work is not tried again at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_the_apps_port_is_never_routed() {
    let builder = Daemon::builder(&fixed(&["--no-listen"], "start_timeout = \"60s\""));
    let port = builder.port(2);
    let daemon = builder.start().await;
    wait::until(wait::SOON, "the app runs", async || !daemon.app_pids("chaos").await.is_empty()).await;
    let stranger = Origin::start_at("stranger", ([127, 0, 0, 1], port).into()).await;
    // A process that another test begins at that moment has the socket, too, until it executes its program.
    let told = daemon.told_any("chaos", &[&format!("process (pid {} ", std::process::id())]).await;
    assert!(told.contains("another process"), "{told}");
    assert_ne!(daemon.app("chaos").await["state"], "running");
    assert_eq!(stranger.requests(), 0, "no request of a client reached it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_gets_a_fresh_socket_path() {
    let script = "#!/bin/sh\necho $MIWI_SOCKET >> {dir}/sockets\nexec {chaos} --listen unix\n";
    let config = other("chaos", "", "command = \"{dir}/app.sh\"\nlisten = \"unix\"");
    let daemon = Daemon::builder(&config).script("app.sh", script).start().await;
    daemon.app_ready("chaos").await;
    let first = daemon.app_pids("chaos").await[0];
    // Killed like this it leaves its socket file behind, and a second bind on it would fail.
    daemon.signal_pid(first, nix::sys::signal::Signal::SIGKILL);
    daemon
        .app_where("chaos", "a new process is ready", |it| {
            it["state"] == "running" && it["instances"][0]["pid"] != first
        })
        .await;
    let sockets: Vec<String> = daemon.read("sockets").lines().map(str::to_owned).collect();
    assert!(sockets.len() >= 2 && sockets[0] != sockets[1] && !sockets[0].is_empty(), "{sockets:?}");
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_with_0_before_ready_is_a_failure() {
    let daemon = Daemon::start(&managed(&["--exit-code", "0"], "")).await;
    daemon.told_any("chaos", &["exited before ready"]).await;
    let state = daemon.app("chaos").await["state"].clone();
    assert!(state != "stopped" && state != "running", "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_a_failed_start_are_in_the_report() {
    let daemon = Daemon::start(&managed(&["--no-listen", "--exit-after", "500", "--exit-code", "1"], "")).await;
    let told = daemon.told_any("chaos", &["alive, but not listening"]).await;
    assert!(told.contains("code 1") || told.contains("exit 1"), "{told}");
    let output = daemon.ctl(&["app", "restart", "chaos"]).await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains("alive, but not listening"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_is_waited_for_without_traffic_or_restart() {
    let daemon = Daemon::start(&managed(&["--ready-after", "4000"], "start_timeout = \"60s\"")).await;
    let starting = daemon.app_in_state("chaos", "starting").await;
    let (held, ready) = tokio::join!(daemon.get_host("chaos.test", "/"), daemon.app_ready("chaos"));
    assert_eq!(held.status, 200, "a request during the first start is held");
    assert_eq!(ready["restarts"], 0);
    if let Some(pid) = starting["instances"][0]["pid"].as_u64() {
        assert_eq!(ready["instances"][0]["pid"].as_u64(), Some(pid), "it is the same process");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_past_its_timeout_is_killed_with_the_last_probe_reason() {
    let daemon =
        Daemon::start(&managed(&["--ready-after", "600000"], "start_timeout = \"1s\"\nstop_timeout = \"1s\"")).await;
    daemon.told_any("chaos", &["start_timeout", "start timeout", "not ready within", "not ready after"]).await;
    daemon.told_any("chaos", &["refused", "no such file", "nothing accept", "nothing listen"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_port_is_named_in_the_report() {
    let daemon =
        Daemon::start(&managed(&["--listen", "tcp", "--wrong-port"], "listen = \"tcp\"\nstart_timeout = \"2s\"")).await;
    daemon.told_any("chaos", &["listens on 127.0.0.1:", "listens on port"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_daemonises_is_detected_and_its_child_killed() {
    let daemon = Daemon::start(&managed(&["--daemonize"], "")).await;
    daemon.told_any("chaos", &["daemonis", "daemoniz"]).await;
    daemon.ctl(&["app", "stop", "chaos"]).await;
    wait::until(wait::SOON, "no process of the app is left", async || {
        descendants(daemon.pid()).iter().all(|it| it.command != "chaos-app")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uvicorn_workers_that_never_come_up_run_into_the_timeout() {
    python_failure("uvicorn", &["--workers", "2", "--port", "{{port}}", "nothing_here:app"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hypercorn_that_leaves_with_0_has_failed() {
    python_failure("hypercorn", &["--bind", "127.0.0.1:{{port}}", "nothing_here:app"]).await;
}

async fn python_failure(server: &str, args: &[&str]) {
    let command = repository().join("tests/.venv/bin").join(server);
    if !command.exists() {
        skip!("{server} is not installed; tests/run installs it");
    }
    let process = format!(
        "command = {command:?}\nargs = {args:?}\nlisten = \"tcp\"\nstart_timeout = \"5s\"\nstop_timeout = \"2s\""
    );
    let daemon = Daemon::start(&other("broken", "", &process)).await;
    daemon.told_any("broken", &["nothing_here"]).await;
    assert_ne!(daemon.app("broken").await["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_apps_come_up_and_leave_nothing_behind() {
    const APPS: usize = 100;
    let config: String = (0..APPS).map(|it| app(&format!("app{it}"), "", &[], "listen = \"unix\"")).collect();
    let daemon = Daemon::builder(&config).spawn();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    wait::for_value(
        Duration::from_secs(300),
        "a hundred apps are ready",
        async || {
            let status = daemon.ctl(&["status", "-o", "json"]).await;
            let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
            let apps = status["apps"].as_array().cloned().unwrap_or_default();
            apps.iter().filter(|it| it["state"] == "running").count()
        },
        |running| *running == APPS,
    )
    .await;
    let full = descriptors();
    daemon.ctl_ok(&["app", "stop", "--all"]).await;
    wait::until(wait::LATER, "every process is gone", async || {
        descendants(daemon.pid()).iter().all(|it| it.command != "chaos-app")
    })
    .await;
    wait::until(wait::LATER, "the descriptors of the apps are closed", async || descriptors() + APPS <= full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_fails_backs_off_and_names_the_error() {
    use std::os::unix::process::CommandExt;
    // Nobody else's processes count against a user that exists only here.
    const UID: u32 = 61_971;
    if !skip::is_root() {
        skip!("running the daemon as another user needs root");
    }
    if std::process::Command::new(chaos_app()).arg("--help").uid(UID).gid(UID).output().is_err() {
        skip!("the build's directory is closed to other users");
    }
    let daemon = Daemon::builder(&managed(&["--pid-file", "{dir}/starts"], "")).uid(UID).start().await;
    daemon.app_ready("chaos").await;
    // As that user, because a limit of somebody else's process needs a capability that containers take away.
    let limit = |most: u32| {
        let pid = daemon.pid().to_string();
        let set = std::process::Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nproc={most}:")])
            .uid(UID)
            .gid(UID)
            .status();
        assert!(set.unwrap().success(), "prlimit of our own process");
    };
    limit(1);
    let pid = daemon.app_pids("chaos").await[0];
    daemon.signal_pid(pid, nix::sys::signal::Signal::SIGKILL);
    daemon.told_any("chaos", &["EAGAIN", "resource temporarily unavailable"]).await;
    assert_eq!(daemon.read("starts").lines().count(), 1);
    limit(4096);
    daemon.app_ready("chaos").await;
}

// 20. Where the warden can open nothing more, a launch fails and is tried again, and what it had opened is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_without_descriptors_fails_cleanly_and_recovers() {
    let daemon = Daemon::builder(&managed(&["--pid-file", "{dir}/starts"], "")).warden().start().await;
    daemon.app_ready("chaos").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    let descriptors = || -> Vec<u32> {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        open.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok()).collect()
    };
    let limit = |most: u32| {
        let pid = daemon.pid().to_string();
        std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status()
    };
    let before = descriptors();
    let free = (0..).find(|it| !before.contains(it)).unwrap();
    if !limit(free).is_ok_and(|it| it.success()) {
        skip!("limits of another process cannot be set here");
    }
    daemon.ctl(&["app", "start", "chaos"]).await;
    daemon.told_any("chaos", &["EMFILE", "too many open files"]).await;
    assert_eq!(daemon.read("starts").lines().count(), 1);
    assert!(limit(4096).is_ok_and(|it| it.success()));
    daemon.ctl_ok(&["app", "start", "chaos"]).await;
    daemon.app_ready("chaos").await;
    assert_eq!(daemon.read("starts").lines().count(), 2);
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    let all_closed = async || descriptors().len() <= before.len();
    wait::until(wait::SOON, "there are no more descriptors than before", all_closed).await;
}
