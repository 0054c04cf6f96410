//! Engines that do not last: what worked before serves, the apps notice nothing, and operators are told.

use std::fs;

use harness::{Daemon, FakeNotify, Output, miwid, wait};
use nix::sys::signal::Signal;

use super::{engines, generation, is_generation, kill_engine, kills, start, start_with};
use crate::lifecycle::managed;

const SITE: &str = "[backends.\"a.test\"]\nrespond = { status = 200, body = \"good\" }\n";

/// `miwictl status` tells of the trouble, in its exit code and its words.
async fn troubled(daemon: &Daemon, words: &str) -> Output {
    let said =
        wait::for_value(wait::LATER, "status tells of it", || daemon.ctl(&["status"]), |it| it.status == 3).await;
    assert!(said.stderr.contains(words) && said.stderr.contains("hint: "), "{said:?}");
    said
}

async fn recovers(daemon: &Daemon) {
    wait::for_value(wait::LATER, "all is well again", || daemon.ctl(&["status"]), |it| it.status == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_no_engine_survives_gives_way_to_the_last_good_one() {
    let text = format!("{}{SITE}", managed(&[], "instances = 2"));
    let builder = Daemon::builder(&text).warden().env("MIWID_TEST_CONFIRM_MS", "300");
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    let daemon = builder.env("NOTIFY_SOCKET", socket).start().await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    wait::until(wait::LATER, "it has proved itself", async || daemon.log().contains("the configuration has lasted"))
        .await;

    daemon.write("miwid.toml", "[server]\nhttp_port = \"none\"\n");
    daemon.signal_pid(engines(&daemon)[0], Signal::SIGKILL);
    // The second and the third cannot begin.
    is_generation(&daemon, 4).await;
    let words =
        "3 engines ended within 60 s, the last ended with code 6: the configuration that worked before is served";
    let said = troubled(&daemon, words).await;
    assert!(said.stdout.contains("chaos") && said.stdout.contains("miwid.toml"), "the answer is there, too: {said:?}");
    assert_eq!(daemon.ctl_json(&["status"]).await["apps"][0]["name"], "chaos", "one document, and a whole one");
    notify.expect(&format!("STATUS={words}"), wait::LATER).await;
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "good");
    assert_eq!((daemon.app_pids("chaos").await, &daemon.app("chaos").await["restarts"]), (pids.clone(), &0.into()));

    // It lasts, and still it is not what the files say.
    kill_engine(&daemon).await;
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "good");
    troubled(&daemon, words).await;
    assert_eq!(daemon.reload().await.status, 6, "the files are still broken");
    daemon.rewrite_config(&text.replace("good", "better"));
    daemon.ctl_ok(&["reload"]).await;
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "better");
    recovers(&daemon).await;
    assert_eq!(daemon.app_pids("chaos").await, pids);
    kill_engine(&daemon).await;
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "better", "the files count again");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_last_gives_way_to_the_one_before() {
    let daemon = start(&managed(&[], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let second = daemon.dir().join("second");
    fs::copy(miwid(), &second).expect("a copy");
    let program = || {
        let engine = *engines(&daemon).last().expect("an engine");
        fs::read_link(format!("/proc/{engine}/exe")).expect("a program")
    };
    daemon.ctl_ok(&["upgrade", "--binary", "{dir}/second"]).await;
    is_generation(&daemon, 2).await;
    wait::until(wait::LATER, "the old one has left", async || engines(&daemon).len() == 1).await;
    assert_eq!(program(), second);
    for _ in 0..kills().max(3) {
        kill_engine(&daemon).await;
    }
    troubled(&daemon, "was ended by signal 9: the program before the last upgrade serves").await;
    assert_eq!(program(), fs::canonicalize(miwid()).expect("a path"));
    assert_eq!((daemon.app_pids("chaos").await, daemon.get_host("chaos.test", "/").await.status), (pids.clone(), 200));
    daemon.ctl_ok(&["upgrade", "--binary", "{dir}/second"]).await;
    recovers(&daemon).await;
    assert_eq!((daemon.app_pids("chaos").await, program()), (pids, second));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_older_is_there_it_is_told_all_the_same_also_while_nobody_answers() {
    let daemon = start_with(&managed(&[], ""), "60000").await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    for _ in 0..3 {
        kill_engine(&daemon).await;
    }
    troubled(&daemon, "there is nothing older to go back to").await;
    let engine = engines(&daemon)[0];
    daemon.signal_pid(engine, Signal::SIGSTOP);
    let said = daemon.ctl(&["status", "-o", "json"]).await;
    daemon.signal_pid(engine, Signal::SIGCONT);
    assert_eq!(said.status, 3, "{said:?}");
    assert!(said.stdout.contains("crash-loop") && said.stdout.contains("nothing older"), "{said:?}");
    assert_eq!((daemon.app_pids("chaos").await, generation(&daemon).await), (pids, 4));
    let file = daemon.dir().join("control.sock.trouble");
    let next = daemon.killed(&managed(&[], "")).await;
    assert!(file.exists(), "nobody was left to remove it");
    let daemon = next.warden().start().await;
    recovers(&daemon).await;
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_lasts_is_the_end_of_the_trouble() {
    let daemon = start(&managed(&[], "")).await;
    for _ in 0..3 {
        kill_engine(&daemon).await;
    }
    wait::until(wait::LATER, "it lasts", async || daemon.log().contains("an engine has lasted")).await;
    assert!(daemon.log().contains("there is nothing older"), "there was trouble");
    assert_eq!(daemon.ctl(&["status"]).await.status, 0);
    assert!(daemon.stop().await.success());
}
