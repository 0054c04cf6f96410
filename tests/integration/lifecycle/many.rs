//! A hundred apps at once: all come up, or none does, the operator is answered meanwhile, and nothing is left of them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use harness::{Daemon, descendants, exists, wait};

use super::app;

const APPS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_apps_start_at_once_and_leave_nothing() {
    let config: String = (0..APPS).map(|it| app(&format!("app{it}"), "", &[], "start_timeout = \"120s\"")).collect();
    let begun = Instant::now();
    let daemon = Daemon::start(&config).await;
    let slowest = Cell::new(Duration::ZERO);
    let ready = wait::for_value(
        wait::LATER,
        "all are ready",
        || async {
            let asked = Instant::now();
            let status = daemon.ctl_json(&["status"]).await;
            let took = asked.elapsed();
            let apps = status["apps"].as_array().cloned().unwrap_or_default();
            (apps.iter().filter(|it| it["state"] == "running").count(), took)
        },
        |(running, took)| {
            slowest.set(slowest.get().max(*took));
            *running == APPS
        },
    )
    .await;
    println!(
        "{} apps ready after {:.1?}; the slowest `miwictl status` meanwhile took {:.1?}",
        ready.0,
        begun.elapsed(),
        slowest.get()
    );
    for name in [0, APPS / 2, APPS - 1] {
        assert_eq!(daemon.get_host(&format!("app{name}.test"), "/").await.status, 200);
    }
    let below: Vec<u32> = descendants(daemon.pid()).iter().map(|it| it.pid).collect();
    assert!(below.len() >= APPS, "{} processes", below.len());
    let run_dir = daemon.dir().join("i");
    assert!(daemon.stop().await.success());
    assert!(below.iter().all(|pid| !exists(*pid)), "no process is left");
    assert!(!run_dir.exists() || run_dir.read_dir().is_ok_and(|mut it| it.next().is_none()), "no socket is left");
}

// 107. Whatever fails all the time, the operator and the other sites are answered.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_hundred_apps_crash_the_operator_and_the_others_are_served() {
    let broken = |it| app(&format!("app{it}"), "", &["--exit-code", "1"], "");
    let config: String = (0..APPS).map(broken).chain([app("well", "", &[], "")]).collect();
    let daemon = Daemon::start(&config).await;
    daemon.app_ready("well").await;
    let load = daemon.load("well.test").connections(4).paths(&["/fast"]).start();
    let slowest = Cell::new(Duration::ZERO);
    wait::until(wait::LATER, "all are in a crash loop", async || {
        let asked = Instant::now();
        let status = daemon.ctl_json(&["status"]).await;
        slowest.set(slowest.get().max(asked.elapsed()));
        let apps = status["apps"].as_array().cloned().unwrap_or_default();
        assert_eq!(apps.len(), APPS + 1, "every answer is whole");
        apps.iter().filter(|it| it["state"] == "crash-loop").count() == APPS
    })
    .await;
    println!("the slowest `miwictl status` beside {APPS} crash loops took {:.1?}", slowest.get());
    load.flowing(10).await;
    load.stop().await.assert_none_failed();
    assert_eq!(daemon.app("well").await["restarts"], 0);
}
