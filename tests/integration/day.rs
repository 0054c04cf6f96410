//! `docs/DAY.md`, a day with miwictl, is a script: every command in it is run, in its order, and ends as the page says. With
//! `MIWI_WRITE_DAY=1` the page gets what they print; what they print is not compared, since it has times and pids in it.

use std::{fs, path::Path, process::Stdio};

use harness::{Daemon, Output, miwictl, repository, skip, wait};
use tokio::process::Command;

const CONFIG: &str = r#"
[backends."shop.test"]
name = "shop"
app_type = "nodejs"
health_check = "/"
[backends."shop.test".process]
command = "node"
args = ["server.js"]
working_dir = "{dir}/v1"
settle_time = "1s"
start_timeout = "10s"
"#;

/// Says which version it is.
fn server(version: &str) -> String {
    format!(
        "require('http').createServer((request, response) => {{\n  console.log(request.method + ' ' + request.url)\n  \
         response.end('{version}\\n')\n}}).listen(process.env.PORT, '127.0.0.1', () => console.log('{version} listens'))\n"
    )
}

/// What a fence of the page holds, in order: a command, how it ends, what it prints.
struct Step {
    command: String,
    exit: i32,
}

/// `$ miwictl app deploy shop ./v3   # exit 6`.
fn steps(page: &str) -> Vec<Step> {
    let commands = page.lines().filter_map(|it| it.strip_prefix("$ miwictl "));
    commands
        .map(|it| match it.split_once("# exit ") {
            Some((command, exit)) => {
                Step { command: command.trim().to_owned(), exit: exit.trim().parse().expect("an exit code") }
            }
            None => Step { command: it.trim().to_owned(), exit: 0 },
        })
        .collect()
}

async fn run(daemon: &Daemon, command: &str) -> Output {
    let output = Command::new(miwictl())
        .args(command.split_whitespace())
        .current_dir(daemon.dir())
        .env("MIWID_SOCKET", daemon.socket())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    Output::of(&output.await.expect("miwictl runs"))
}

/// The page with what its commands have printed.
fn written(page: &str, outputs: &[String]) -> String {
    let (mut text, mut outputs, mut skipping) = (String::new(), outputs.iter(), false);
    for line in page.lines() {
        if line.starts_with("```") || line.starts_with("$ ") {
            skipping = false;
        }
        if skipping {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if line.starts_with("$ miwictl ") {
            text.push_str(outputs.next().map_or("", String::as_str));
            skipping = true;
        }
    }
    text
}

/// Nobody else's machine has our directories.
fn anywhere(text: &str, dir: &Path) -> String {
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let text = text.replace(&dir.display().to_string(), "/srv/shop");
    text.replace(&repository().join("target/debug").display().to_string(), "/usr/bin")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_miwictl_goes_as_its_page_says() {
    if !std::process::Command::new("node").arg("--version").output().is_ok_and(|it| it.status.success()) {
        skip!("node is not installed");
    }
    let page = repository().join("docs/DAY.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let daemon = Daemon::builder(CONFIG)
        .warden()
        .file("v1/server.js", &server("version 1"))
        .file("v2/server.js", &server("version 2"))
        .file("v3/server.js", "const database = require('./database')\n")
        .start()
        .await;
    daemon.app_ready("shop").await;
    wait::until(wait::LATER, "it is ready", async || daemon.ctl_json(&["status"]).await["state"] == "ready").await;
    let load = daemon.load("shop.test").connections(2).start();
    let mut outputs = Vec::new();
    for Step { command, exit } in steps(&text) {
        // While requests are held, none is answered.
        if !command.contains("resume") {
            load.flowing(5).await;
        }
        let output = run(&daemon, &command).await;
        assert_eq!(output.status, exit, "{command}: {output:?}");
        // Progress comes first on a terminal, too.
        outputs.push(anywhere(&format!("{}{}", output.stderr, output.stdout), daemon.dir()));
    }
    assert!(outputs.len() >= 10, "the page has commands");
    load.stop().await.assert_none_failed();
    if std::env::var_os("MIWI_WRITE_DAY").is_some() {
        fs::write(&page, written(&text, &outputs)).expect("the page is written");
    }
}
