//! Starting, replacing and stopping: nothing a client would notice.

use harness::{descendants, wait};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_web_archive_runs_in_a_tomcat_of_its_own_within_its_memory() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "")).await;
    daemon.app_ready("hello").await;
    assert!(says(&daemon, "/").await.starts_with("hello 1 pid="));
    // 44 % of 256 MiB, whatever the host has.
    let heap: u64 = says(&daemon, "/heap").await.parse().unwrap();
    assert!((90..=128).contains(&heap), "{heap} MiB of heap");
    assert_eq!(says(&daemon, "/remote").await, "http 127.0.0.1");
    let app = daemon.app("hello").await;
    assert!(app["instances"][0]["address"].as_str().is_some_and(|it| it.starts_with("unix:")), "{app}");
    let base = base(&daemon, "hello");
    for name in ["conf/server.xml", "conf/web.xml", "webapps/ROOT.war"] {
        assert!(base.join(name).exists(), "{name} is in the base");
    }
    let logs = daemon.ctl_ok(&["app", "logs", "hello", "-n", "200"]).await;
    assert!(logs.stdout.contains("hello 1 is up"), "{logs:?}");
    daemon.ctl_ok(&["app", "stop", "hello"]).await;
    wait::until(wait::SOON, "the base is gone", async || !base.exists()).await;
    assert!(descendants(daemon.pid()).iter().all(|it| it.command != "java"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tomcat_runs_as_the_apps_own_user() {
    needs_java!();
    if !skip::is_root() {
        skip!("running an app as another user needs root");
    }
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "user = \"nobody\"")).await;
    daemon.app_ready("hello").await;
    assert!(says(&daemon, "/").await.starts_with("hello 1"));
    let pid = daemon.app_pids("hello").await[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:\t65534")), "{status}");
    let output = daemon.ctl(&["app", "deploy", "hello", &java::war("hello", "2").display().to_string()]).await;
    assert_eq!(output.status, 0, "{output:?}");
    assert!(says(&daemon, "/").await.starts_with("hello 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_and_below_a_context_path_it_is_the_same() {
    needs_java!();
    let config =
        app(&java::war("hello", "1"), "listen = \"tcp\"").replacen("war = ", "context = \"/shop/de\"\nwar = ", 1);
    let daemon = Daemon::start(&config).await;
    let app = daemon.app_ready("hello").await;
    assert!(app["instances"][0]["address"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{app}");
    assert!(says(&daemon, "/shop/de/").await.starts_with("hello 1"));
    assert_eq!(daemon.get_host("hello.test", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_own_examples_run() {
    needs_java!();
    let examples = std::path::Path::new("/usr/share/tomcat10-examples/examples");
    if !examples.is_dir() {
        skip!("tomcat10-examples is not installed; tests/run installs it");
    }
    let builder = Daemon::builder(&app(std::path::Path::new("{dir}/examples.war"), ""));
    let packed = std::process::Command::new("jar")
        .arg("--create")
        .arg("--file")
        .arg(builder.dir().join("examples.war"))
        .arg("-C")
        .arg(examples)
        .arg(".")
        .status()
        .unwrap();
    assert!(packed.success());
    let daemon = builder.start().await;
    daemon.app_ready("hello").await;
    assert!(says(&daemon, "/servlets/servlet/HelloWorldExample").await.contains("Hello World"));
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_lose_no_request() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "")).await;
    assert_eq!(daemon.app_ready("hello").await["strategy"], "rolling");
    let load = daemon.load("hello.test").connections(10).paths(&["/", "/slow", "/"]).start();
    load.flowing(20).await;
    let times = restarts();
    for _ in 0..times {
        daemon.ctl_ok(&["app", "restart", "hello"]).await;
        load.flowing(5).await;
    }
    let result = load.stop().await;
    result.assert_none_failed();
    println!("tomcat: {} requests over {times} restarts, slowest {:?}", result.ok, result.slowest);
    assert_eq!(daemon.app("hello").await["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_ends_before_its_tomcat_does() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "")).await;
    daemon.app_ready("hello").await;
    let (slow, stopped) = tokio::join!(daemon.get_host("hello.test", "/slow"), async {
        wait::until(wait::SOON, "it is in flight", async || {
            daemon.app("hello").await["instances"][0]["in_flight"].as_u64() != Some(0)
        })
        .await;
        daemon.ctl_ok(&["app", "stop", "hello"]).await
    });
    assert_eq!((slow.status, slow.text().trim()), (200, "slow 1"));
    assert!(!stopped.all().contains("ignored"), "a Tomcat whose connections are closed stops by itself: {stopped:?}");
    assert!(!daemon.told("hello").await.contains("killed"), "it ended by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_is_replaced() {
    needs_java!();
    let daemon = Daemon::start(&app(&java::war("hello", "1"), "")).await;
    daemon.app_ready("hello").await;
    let pid = daemon.app_pids("hello").await[0];
    let exit =
        http::Request::post("/exit").header("host", "hello.test").body(bytes::Bytes::from_static(b"now")).unwrap();
    assert_eq!(daemon.request(exit).await.status, 502, "nobody sends it to the next one");
    daemon
        .app_where("hello", "a new process is ready", |it| it["state"] == "running" && it["instances"][0]["pid"] != pid)
        .await;
    assert_eq!(daemon.app("hello").await["restarts"], 1);
    daemon.told_any("hello", &["code 3"]).await;
}

// Evidence: what each thread did before an unwell machine was replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_well_is_replaced_after_a_thread_dump() {
    needs_java!();
    let probes = "\n[backends.\"hello.test\".process.probes]\nliveness = { exec = [\"/bin/sh\", \"-c\", \
        \"! grep -qsF $MIWI_SOCKET {dir}/ill\"], interval = \"200ms\", failures = 2 }";
    let daemon = Daemon::start(&app(&java::war("hello", "1"), probes)).await;
    let before = daemon.app_ready("hello").await;
    let address = before["instances"][0]["address"].as_str().unwrap().trim_start_matches("unix:").to_owned();
    daemon.write("ill", &address);
    daemon
        .app_where("hello", "a new one runs", |it| {
            it["state"] == "running" && it["instances"][0]["pid"] != before["instances"][0]["pid"]
        })
        .await;
    let logs = daemon.ctl_ok(&["app", "logs", "hello", "-n", "1000"]).await;
    assert!(logs.stdout.contains("Full thread dump"), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jar_is_told_its_port_and_its_memory() {
    needs_java!();
    let config = format!(
        "[backends.\"jar.test\"]\nname = \"jar\"\napp_type = \"java\"\nhealth_check = \"/\"\n\n\
         [backends.\"jar.test\".process]\ncommand = {:?}\nargs = [\"one\", \"two\"]\nmemory_limit = \"256MB\"\n\
         settle_time = \"200ms\"\n",
        java::jar()
    );
    let daemon = Daemon::start(&config).await;
    daemon.app_ready("jar").await;
    let reply = daemon.get_host("jar.test", "/").await;
    assert!(reply.text().starts_with("jar one two pid="), "{}", reply.text());
    let heap: u64 = reply.text().trim().rsplit_once('=').unwrap().1.parse().unwrap();
    assert!((90..=128).contains(&heap), "{heap} MiB of heap");
    let load = daemon.load("jar.test").connections(4).start();
    load.flowing(20).await;
    daemon.ctl_ok(&["app", "restart", "jar"]).await;
    load.flowing(20).await;
    let output = daemon.ctl(&["app", "deploy", "jar", &java::jar().display().to_string()]).await;
    assert_eq!(output.status, 0, "{output:?}");
    assert!(daemon.app("jar").await["release"].is_string());
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
}
