//! Waiting between attempts: as long as it should be, whatever happens meanwhile.

use std::time::Duration;

use harness::{
    cloudflare::{Cloudflare, Rule, Then},
    wait,
};

use super::world::{DAY, DOMAINS, World};

// F43
#[tokio::test(flavor = "multi_thread")]
async fn starting_again_does_not_shorten_the_back_off() {
    let double = Cloudflare::start().await;
    double.rule(Rule::on_create(Then::Refuse { status: 400, code: 10000, message: "Authentication error".into() }));
    let mut world = World::with(double, DOMAINS).await;
    world.certificate_where("default", "it has failed once", |it| it["attempts"] == 1).await;
    for _ in 0..3 {
        world = world.restart(DOMAINS).await;
        let standing = world.certificate("default").await;
        assert_eq!((&standing["attempts"], &standing["state"]), (&1.into(), &"failing".into()), "{standing:#}");
    }
    assert_eq!(world.posts(), 1);
    world.advance(Duration::from_secs(20 * 60));
    world.certificate_where("default", "it has failed twice", |it| it["attempts"] == 2).await;
    assert_eq!(world.posts(), 2);
    // By hand it is tried at once.
    world.double.no_rules();
    world.daemon.ctl_ok(&["cert", "renew", "default", "--force"]).await;
    world.issued("default").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn months_of_failure_warn_and_never_end_the_trying() {
    let world = World::start(DOMAINS).await;
    let first = world.issued("default").await;
    world.double.rule(Rule::on_create(Then::Refuse { status: 500, code: 1, message: "out of order".into() }));
    world.advance(DAY * 61);
    world.certificate_where("default", "it fails", |it| it["state"] == "failing").await;
    assert_eq!(world.certificate("default").await["sha256"], first["sha256"], "the old one is shown");
    for (day, words) in [(61, "within 30 days"), (84, "within 7 days"), (89, "within 1 days")] {
        if day > 61 {
            world.advance(DAY * (day - if day == 84 { 61 } else { 84 }));
        }
        wait::until(wait::LATER, words, async || world.daemon.log().contains(words)).await;
    }
    world.double.no_rules();
    world.advance(Duration::from_secs(8 * 3600));
    world.certificate_where("default", "it was renewed", |it| it["sha256"] != first["sha256"]).await;
    assert_eq!(world.daemon.log().matches("within 30 days").count(), 1, "once");
}
