//! The store under a daemon that is killed, and on a disk that is full.

use harness::{
    cloudflare::{Rule, Then},
    wait,
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
    wait::until(wait::LATER, "it is there", async || {
        let shown = daemon.ctl_json(&["cert", "show", "default"]).await;
        shown["issuer"] == "cloudflare-origin" && shown["state"] == "ready"
    })
    .await;
    let made = world.double.certificates();
    assert_eq!((made.len(), world.posts()), (1, 1));
    assert!(daemon.log().contains("taken over from an earlier request"));
    assert_eq!(world.double.violations(), [""; 0]);
}
