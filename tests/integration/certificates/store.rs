//! The store under a daemon that is killed, and on a disk that is full.

use harness::{
    cloudflare::{Rule, Then},
    skip, wait,
};
use nix::sys::signal::Signal;

use super::world::{DOMAINS, World};

/// Moments of a renewal, in their order.
const MOMENTS: [&str; 6] =
    ["asked for", "key written", "request out", "version begun", "version there", "request forgotten"];

/// Whether the moment has come, by what the disk and the double show.
fn has_come(world: &World, moment: &str, posts: usize, versions: usize) -> bool {
    let names = |it: &str| -> Vec<String> {
        let entries = std::fs::read_dir(world.file("store").join(it)).into_iter().flatten().flatten();
        entries.filter_map(|it| it.file_name().into_string().ok()).collect()
    };
    match moment {
        "asked for" => true,
        "key written" => names("pending").iter().any(|it| it == "default"),
        "request out" => world.posts() > posts,
        "version begun" => names("certs/default").iter().any(|it| it.starts_with(".v-")),
        "version there" => names("certs/default").iter().filter(|it| it.starts_with("v-")).count() > versions,
        _ => world.posts() > posts && names("pending").is_empty(),
    }
}

// F32, F35
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_at_any_moment_leaves_a_store_that_works() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let shown = world.shown("app.example.com").await;
    for round in 0..12 {
        let daemon = world.another(DOMAINS).start().await;
        let (posts, certificates) = (world.posts(), world.double.certificates().len());
        let versions = std::fs::read_dir(world.file("store/certs/default")).unwrap().flatten();
        let versions = versions.filter(|it| it.file_name().to_string_lossy().starts_with("v-")).count();
        let mut renewal = daemon.ctl_child(&["cert", "renew", "default", "--force"]);
        // A moment that is over too quickly to be seen is over when the command is.
        while !has_come(&world, MOMENTS[round % MOMENTS.len()], posts, versions)
            && renewal.try_wait().unwrap().is_none()
        {
            tokio::task::yield_now().await;
        }
        daemon.signal(Signal::SIGKILL);
        drop((daemon, renewal));
        let daemon = world.another(DOMAINS).start().await;
        let listed = daemon.ctl_json(&["cert", "list"]).await;
        let found = listed["certificates"].as_array().unwrap().iter().find(|it| it["name"] == "default").cloned();
        assert_eq!(found.map(|it| it["issuer"].clone()), Some("cloudflare-origin".into()), "{listed:#}");
        assert!(!daemon.log().contains("cannot be used"), "{}", daemon.log());
        daemon.ctl_ok(&["cert", "renew", "default", "--force"]).await;
        assert!(daemon.stop().await.success());
        let made = world.double.certificates().len() - certificates;
        assert!(made <= 2, "{made} certificates for one that was killed and one that was not");
    }
    assert_eq!(world.shown("app.example.com").await, shown, "the first daemon never stopped showing what it had");
    assert_eq!(world.double.violations(), [""; 0]);
}

// F8, F38
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_was_lost_with_the_daemon_is_not_made_again() {
    let world = World::start("").await;
    let daemon = world.another(DOMAINS);
    world.double.rule(Rule::on_create(Then::HangAfter).once());
    let daemon = daemon.start().await;
    wait::until(wait::LATER, "it was made", async || world.double.certificates().len() == 1).await;
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let daemon = world.another(DOMAINS).start().await;
    let shown = async || daemon.ctl_json(&["cert", "show", "default"]).await;
    let is_there = |it: &serde_json::Value| it["issuer"] == "cloudflare-origin" && it["state"] == "ready";
    wait::for_value(wait::LATER, "it is there", shown, is_there).await;
    let made = world.double.certificates();
    assert_eq!((made.len(), world.posts()), (1, 1));
    assert!(daemon.log().contains("taken over from an earlier request"));
    assert_eq!(world.double.violations(), [""; 0]);
}

/// A small file system of its own; gone with this.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=128k,mode=700", "none"];
        let mounted = std::process::Command::new("mount").args(mount).arg(&path).output();
        mounted.is_ok_and(|it| it.status.success()).then_some(Self(path))
    }

    /// Leaves so many bytes at most.
    fn fill(&self, room: usize) {
        let mut filled = vec![0; 1 << 20];
        while std::fs::write(self.0.join("filler"), &filled).is_err() {
            filled.truncate(filled.len() - 4096);
        }
        filled.truncate(filled.len().saturating_sub(room));
        std::fs::write(self.0.join("filler"), &filled).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

// F30
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_but_the_wait_for_room() {
    if !skip::is_root() {
        skip!("mounting a file system needs root");
    }
    let own = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(own.path().join("small")) else { skip!("a tmpfs cannot be mounted here") };
    let storage = format!("storage = \"{}\"\n", small.0.display());
    let world = World::start_in("", &storage).await;
    assert_eq!(world.request(&["app.example.com", "--name", "app"]).await.status, 0);
    let first = world.shown("app.example.com").await;
    // Nothing at all, then enough to find that out with, and to write down the key.
    for (room, posts) in [(0, 1), (20 << 10, 2)] {
        small.fill(room);
        let said = world.daemon.ctl_json(&["cert", "renew", "app", "--force"]).await;
        if room == 0 {
            assert_eq!(said["error"]["code"], "storage", "{said:#}");
            assert_eq!(world.shown("app.example.com").await, first, "the old one stays");
        } else {
            let result = said["operations"][0]["result"].as_str().unwrap();
            assert!(result.contains("cannot be kept"), "{said:#}");
            assert_ne!(world.shown("app.example.com").await, first, "the new one is in use");
        }
        assert_eq!(world.posts(), posts, "nobody is asked for what cannot be kept");
    }
    std::fs::remove_file(small.0.join("filler")).unwrap();
    wait::until(wait::LATER, "it is on the disk", async || world.certificate("app").await["last_error"].is_null())
        .await;
    assert_eq!(world.daemon.ctl(&["cert", "renew", "app", "--force"]).await.status, 0);
    let shown = world.shown("app.example.com").await;
    assert!(shown.is_cloudflares() && shown != first);
    assert_eq!(world.posts(), 3);
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    drop(world.daemon);
    let again = harness::Daemon::builder(&text).start().await;
    assert_eq!(again.ctl_json(&["cert", "show", "app"]).await["state"], "ready", "from the disk");
}

// F31
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_is_told_and_keeps_nothing_from_serving() {
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("file"), "in the way").unwrap();
    let world = World::start_in("", &format!("storage = \"{}/file\"\n", own.path().display())).await;
    let said = world.daemon.ctl_json(&["cert", "request", "app.example.com"]).await["error"].clone();
    assert_eq!(said["code"], "storage", "{said:#}");
    assert!(said["hint"].as_str().unwrap().contains("storage"), "{said:#}");
    assert_eq!((world.posts(), world.daemon.get_host("app.example.com", "/").await.text()), (0, "app".to_owned()));
}
