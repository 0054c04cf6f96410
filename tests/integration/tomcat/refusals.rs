//! What cannot run is said before a machine is started, or as soon as the Tomcat knows.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_does_not_start_has_failed_at_once_and_says_why() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("broken", "1"), "start_timeout = \"110s\"")).await;
    daemon.told_any("hello", &["did not start"]).await;
    assert_ne!(daemon.app("hello").await["state"], "running");
    let told = daemon.told("hello").await;
    assert!(!told.contains("not ready within"), "nobody waits for the timeout: {told}");
    let logs = daemon.ctl_ok(&["app", "logs", "hello", "-n", "500"]).await;
    assert!(logs.stdout.contains("no database at db.invalid"), "{logs:?}");
    assert_eq!(daemon.get_host("hello.test", "/").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_do_not_fit_are_refused_with_the_remedy() {
    needs_java!();
    let newer = java::recompiled(&java::war("hello", "1"), "newer", 69);
    let plain = java::jar();
    for (war, code, words) in [
        (java::war("legacy", "1"), "app-war-javax", "javax.servlet"),
        (newer, "app-java-class-version", "Java 25"),
        (plain, "app-war-broken", "WEB-INF"),
        ("/no/such.war".into(), "app-war-missing", "/no/such.war"),
    ] {
        let output = Daemon::builder(&app(&war, "")).check(&["--strict"]).await;
        let said = output.all();
        assert!(output.status == 6 && said.contains(code) && said.contains(words), "{code}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tomcat_or_java_is_named() {
    needs_java!();
    let war = java::war("hello", "1");
    for (key, line, code) in [
        ("[backends.\"hello.test\".tomcat]\n", "home = \"/no/tomcat\"\n", "app-tomcat-missing"),
        ("[backends.\"hello.test\".jvm]\n", "java_home = \"/no/java\"\n", "app-java-missing"),
        ("[backends.\"hello.test\".jvm]\n", "gc = \"best\"\n", "app-jvm-gc"),
    ] {
        let config = app(&war, "").replacen(key, &format!("{key}{line}"), 1);
        let output = Daemon::builder(&config).check(&["--strict"]).await;
        assert!(output.status == 6 && output.all().contains(code), "{code}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_copied_archive_is_refused() {
    needs_java!();
    let whole = std::fs::read(java::war("hello", "1")).unwrap();
    let builder = Daemon::builder(&app(std::path::Path::new("{dir}/half.war"), ""));
    std::fs::write(builder.dir().join("half.war"), &whole[..whole.len() / 2]).unwrap();
    let output = builder.check(&["--strict"]).await;
    assert!(output.status == 6 && output.all().contains("still being copied"), "{output:?}");
}
