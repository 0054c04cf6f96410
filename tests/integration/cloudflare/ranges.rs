//! The ranges: built in, asked for, judged, kept.

use harness::{
    Builder, Daemon,
    cloudflare::{Cloudflare, Rule, Then},
    wait,
};
use serde_json::{Value, json};

use super::peer::{CLOUDFLARE, SERVER, STRANGER, ask, from, get};

/// A range that nobody has built in, and somebody in it.
const NEW: &str = "45.0.0.0/16";
const IN_NEW: &str = "45.0.7.7";

struct World {
    double: Cloudflare,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let world = Self { double: Cloudflare::start().await, dir: tempfile::tempdir().unwrap() };
        std::fs::write(world.dir.path().join("ca.pem"), world.double.ca()).unwrap();
        world
    }

    /// Its state outlives it.
    fn daemon(&self) -> Builder {
        let state = self.dir.path().display();
        let server = SERVER.replace("[server]\n", &format!("[server]\nstate_dir = \"{state}/state\"\n"));
        let text = format!(
            "{server}[cloudflare]\nonly = true\nonly_refusal = \"answer\"\napi_base = \"{}\"\n\
             [backends.\"a.test\"]\nrespond = {{ status = 200, body = \"a\" }}\n",
            self.double.base()
        );
        Daemon::builder(&text).env("SSL_CERT_FILE", self.dir.path().join("ca.pem"))
    }

    fn say(&self, v4: &[&str]) {
        self.double.say_ips(Some(said(v4)));
    }
}

fn said(more: &[&str]) -> Value {
    let built_in = include_str!("../../../miwid/src/cloudflare/ranges.txt");
    let ranges = built_in.lines().filter(|it| !it.starts_with('#'));
    let (v6, v4): (Vec<&str>, Vec<&str>) = ranges.partition(|it| it.contains(':'));
    let v4 = [v4, more.to_vec()].concat();
    json!({ "ipv4_cidrs": v4, "ipv6_cidrs": v6, "etag": "e" })
}

async fn is_served(daemon: &Daemon, peer: &str) -> bool {
    ask(&mut from(daemon, 1, peer).await, &get("/", "a.test", "")).await.unwrap().0.starts_with("http/1.1 200")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cloudflare_says_counts_at_once_and_after_a_restart() {
    let world = World::start().await;
    let daemon = world.daemon().start().await;
    wait::until(wait::SOON, "it asks by itself", async || world.double.count("GET", "/ips") == 1).await;
    assert!(!is_served(&daemon, IN_NEW).await);
    world.say(&[NEW]);
    let listed = daemon.ctl_json(&["cloudflare", "ips", "--refresh"]).await;
    assert!(listed["ranges"].as_array().unwrap().contains(&json!(NEW)), "{listed:#}");
    assert_eq!((&listed["only"], &listed["last_error"]), (&json!(true), &Value::Null));
    assert!(listed["heard"].is_string());
    let [cloudflare, new, stranger] = [CLOUDFLARE, IN_NEW, STRANGER];
    for (peer, expected) in [(cloudflare, true), (new, true), (stranger, false)] {
        assert_eq!(is_served(&daemon, peer).await, expected, "{peer}");
    }
    world.double.set_open(false);
    assert!(daemon.stop().await.success());
    let daemon = world.daemon().start().await;
    assert!(is_served(&daemon, IN_NEW).await, "the disk has kept it");
    let table = daemon.ctl(&["cloudflare", "ips"]).await;
    assert!(table.stdout.lines().any(|it| it == NEW) && table.stderr.contains("nobody else is served"), "{table:?}");
    assert_eq!(world.double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_answers_change_nothing() {
    let world = World::start().await;
    world.say(&[NEW]);
    let daemon = world.daemon().start().await;
    wait::until(wait::SOON, "the first answer counts", async || is_served(&daemon, IN_NEW).await).await;
    let refuse = |status| Then::Answer { status, content_type: "text/html", body: "<html>".to_owned() };
    let mut few = said(&[]);
    few["ipv4_cidrs"] = json!(["104.16.0.0/13"]);
    let mut none = said(&[]);
    none["ipv6_cidrs"] = json!([]);
    let answers =
        [said(&["0.0.0.0/0"]), said(&["198.51.100.0/24"]), said(&["10.0.0.0/8"]), few, none, json!({}), Value::Null];
    for answer in answers {
        world.double.say_ips(Some(answer.clone()));
        let said = daemon.ctl_json(&["cloudflare", "ips", "--refresh"]).await;
        assert_eq!(said["error"]["exit"], 6, "{answer}: {said:#}");
        assert!(!said["error"]["hint"].as_str().unwrap().is_empty());
        let [new, stranger] = [is_served(&daemon, IN_NEW).await, is_served(&daemon, STRANGER).await];
        assert_eq!((new, stranger), (true, false), "{answer}");
    }
    world.say(&[NEW]);
    for fault in [refuse(502), refuse(200), Then::Truncate(40), Then::Gzip, Then::Reset, Then::Big(3 << 20)] {
        world.double.no_rules();
        world.double.rule(Rule::new("GET", "/ips", fault.clone()));
        assert_eq!(daemon.ctl(&["cloudflare", "ips", "--refresh"]).await.status, 6, "{fault:?}");
        assert!(is_served(&daemon, IN_NEW).await);
    }
    let listed = daemon.ctl_json(&["cloudflare", "ips"]).await;
    assert!(listed["last_error"].is_string(), "{listed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spoiled_on_the_disk_is_not_believed() {
    let world = World::start().await;
    world.double.set_open(false);
    let kept = world.dir.path().join("state/cloudflare/ips.json");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    for text in [json!({ "at": 1, "result": said(&["0.0.0.0/1"]) }).to_string(), String::new(), "{".to_owned()] {
        std::fs::write(&kept, &text).unwrap();
        let daemon = world.daemon().start().await;
        assert!(is_served(&daemon, CLOUDFLARE).await && !is_served(&daemon, IN_NEW).await, "{text}");
        assert!(daemon.log().contains("the kept ranges of Cloudflare are not used"), "{}", daemon.log());
    }
}
