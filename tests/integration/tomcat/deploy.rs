//! New archives in the place of old ones.

use super::*;

async fn deploy(daemon: &Daemon, war: &std::path::Path) -> harness::Output {
    daemon.ctl(&["app", "deploy", "hello", &war.display().to_string()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_redeployed_and_rolled_back_under_load() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "")).await;
    daemon.app_ready("hello").await;
    let load = daemon.load("hello.test").connections(8).paths(&["/", "/slow", "/"]).start();
    load.flowing(20).await;
    let output = deploy(&daemon, &java::war("hello", "2")).await;
    assert_eq!(output.status, 0, "{output:?}");
    assert!(says(&daemon, "/").await.starts_with("hello 2"));
    for (war, reason) in [
        (java::war("broken", "1"), "did not start"),
        (java::war("legacy", "1"), "app-war-javax"),
        (java::jar(), "WEB-INF"),
    ] {
        let output = deploy(&daemon, &war).await;
        assert!(output.status == 6 && output.all().contains(reason), "{reason}: {output:?}");
        assert!(says(&daemon, "/").await.starts_with("hello 2"));
        load.flowing(10).await;
    }
    daemon.ctl_ok(&["app", "rollback", "hello"]).await;
    assert!(says(&daemon, "/").await.starts_with("hello 1"));
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_archive_may_come_by_deploy() {
    needs_java!();
    let config = app(std::path::Path::new("x"), "").replacen("war = \"x\"\n", "context = \"/\"\n", 1);
    let daemon = Daemon::start(&config).await;
    daemon.told_any("hello", &["app-war-missing"]).await;
    let output = deploy(&daemon, &java::war("hello", "1")).await;
    assert_eq!(output.status, 0, "{output:?}");
    daemon.app_ready("hello").await;
    assert!(says(&daemon, "/").await.starts_with("hello 1"));
}
