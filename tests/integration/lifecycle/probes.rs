//! D. Probes: what starts an app, what routes to it and what replaces it, in every way of asking.

use harness::{Daemon, repository, skip, wait};

use super::other;

/// An app that does `first` beside itself once the file `go` is there; `probe` is its startup probe.
fn waiting(first: &str, probe: &str) -> (String, String) {
    let script = format!(
        "#!/bin/sh\n(until [ -e {{dir}}/go ]; do sleep 0.05; done; {first}) &\nexec {{chaos}} --term-file {{dir}}/x\n"
    );
    let process = format!(
        "command = \"{{dir}}/app.sh\"\nstart_timeout = \"60s\"\n\n[backends.\"chaos.test\".process.probes]\nstartup = {{ {probe} }}"
    );
    (script, other("chaos", "", &process))
}

async fn starts_when_it_says_so(first: &str, probe: &str, meanwhile: &str) {
    let (script, config) = waiting(first, probe);
    let daemon = Daemon::builder(&config).script("app.sh", &script).start().await;
    daemon.told_any("chaos", &[meanwhile]).await;
    assert_eq!(daemon.app("chaos").await["state"], "starting");
    daemon.write("go", "");
    daemon.app_ready("chaos").await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_output_starts_it() {
    starts_when_it_says_so("echo it is warm now", "log = \"warm now\"", "no line with").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_word_starts_it() {
    if std::process::Command::new("systemd-notify").arg("--version").output().is_err() {
        skip!("systemd-notify is not installed");
    }
    let early = "systemd-notify --status=loading; until [ -e {dir}/go ]; do sleep 0.05; done; systemd-notify --ready";
    let (script, config) = waiting(early, "notify = true");
    // Its status comes at once, its readiness with the file.
    let script = script.replacen("(until [ -e {dir}/go ]; do sleep 0.05; done; ", "(", 1);
    let daemon = Daemon::builder(&config).script("app.sh", &script).start().await;
    daemon.told_any("chaos", &["READY=1 has not come (status: loading)"]).await;
    daemon.write("go", "");
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_exits_with_0_starts_it() {
    starts_when_it_says_so("true", "exec = [\"ls\", \"{dir}/go\"]", "No such file").await;
}

/// A liveness probe that finds every instance ill whose address is in the file `ill`.
fn mortal(name: &str, app_type: &str, lines: &str) -> String {
    let text = format!(
        "{lines}\n\n[backends.\"{name}.test\".process.probes]\nliveness = {{ exec = [\"/bin/sh\", \"-c\", \
         \"! grep -qsF \\\"$PORT\\\" {{dir}}/ill\"], interval = \"200ms\", failures = 2 }}"
    );
    other(name, "", &text).replacen("app_type = \"command\"", &format!("app_type = \"{app_type}\""), 1)
}

/// Makes every instance that runs now ill.
async fn sicken(daemon: &Daemon, name: &str) {
    let app = daemon.app(name).await;
    let addresses = app["instances"].as_array().unwrap().iter().map(|it| it["address"].as_str().unwrap().to_owned());
    let ports: Vec<String> = addresses.map(|it| it.rsplit(':').next().unwrap_or_default().to_owned()).collect();
    daemon.write("ill", &ports.join("\n"));
}

// 46. All slots at once: one after the other, never zero.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_are_not_well_are_replaced_one_after_the_other() {
    let daemon =
        Daemon::start(&mortal("chaos", "command", "command = \"{chaos}\"\ninstances = 2\nlisten = \"tcp\"")).await;
    daemon.app_ready("chaos").await;
    let before = daemon.app_pids("chaos").await;
    let load = daemon.load("chaos.test").connections(8).paths(&["/fast", "/"]).start();
    load.flowing(20).await;
    sicken(&daemon, "chaos").await;
    daemon
        .app_where("chaos", "both are new", |app| {
            let pids: Vec<u64> =
                app["instances"].as_array().unwrap().iter().filter_map(|it| it["pid"].as_u64()).collect();
            app["state"] == "running"
                && pids.len() == 2
                && pids.iter().all(|it| !before.iter().any(|old| u64::from(*old) == *it))
        })
        .await;
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    let app = daemon.app("chaos").await;
    assert_eq!(app["restarts"], 0, "a replacement is no crash: {app}");
    let events = daemon.ctl_ok(&["events"]).await;
    assert!(events.stdout.contains("app.unwell"), "{events:?}");
}

// Evidence: what a Python program did when it had to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_that_must_be_killed_leaves_its_stacks() {
    let python = repository().join("tests/.venv/bin/python");
    if !python.exists() {
        skip!("python is not installed; tests/run installs it");
    }
    let server = "import http.server, os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        class Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n\
        def stuck_forever():\n    http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\nstuck_forever()\n";
    let lines =
        format!("command = {python:?}\nargs = [\"{{dir}}/server.py\"]\nstop_timeout = \"1s\"\nlisten = \"tcp\"");
    let daemon = Daemon::builder(&mortal("snake", "python", &lines)).file("server.py", server).start().await;
    daemon.app_ready("snake").await;
    sicken(&daemon, "snake").await;
    wait::until(wait::LATER, "its stacks are in the log", async || {
        let logs = daemon.ctl_ok(&["app", "logs", "snake", "-n", "500"]).await.stdout;
        logs.contains("Fatal Python error: Aborted") && logs.contains("in stuck_forever")
    })
    .await;
    daemon.app_ready("snake").await;
}
