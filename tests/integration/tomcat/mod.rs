//! Java: web archives in a real Tomcat, each instance with one of its own, and a program in a JAR.

use harness::{Daemon, java, skip};

mod deploy;
mod life;
mod refusals;

/// Restarts under load: `MIWI_RESTARTS`, or as many as fit every run.
fn restarts() -> usize {
    std::env::var("MIWI_RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// The app `hello` from `war`, with lines for its process.
fn app(war: &std::path::Path, process: &str) -> String {
    format!(
        "[backends.\"hello.test\"]\nname = \"hello\"\napp_type = \"tomcat\"\n\n[backends.\"hello.test\".tomcat]\nwar = {war:?}\n\n\
         [backends.\"hello.test\".jvm]\nprofile = \"fast-start\"\n\n\
         [backends.\"hello.test\".process]\nsettle_time = \"200ms\"\nmemory_limit = \"256MB\"\n{process}\n"
    )
}

macro_rules! needs_java {
    () => {
        if let Some(why) = harness::java::missing() {
            harness::skip!("{why}");
        }
    };
}
use needs_java;

/// The Tomcat's base of the only instance.
fn base(daemon: &Daemon, name: &str) -> std::path::PathBuf {
    let place = daemon.dir().join("state/apps").join(name).join("i");
    std::fs::read_dir(place).unwrap().flatten().next().expect("one instance").path()
}

async fn says(daemon: &Daemon, path: &str) -> String {
    let reply = daemon.get_host("hello.test", path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.text().trim().to_owned()
}
