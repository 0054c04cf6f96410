//! Waiting between attempts: as long as it should be, whatever happens meanwhile.

use std::time::Duration;

use harness::{
    cloudflare::{Cloudflare, Mutation, Rule, Then},
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
async fn a_certificate_that_is_due_when_it_comes_is_no_reason_to_ask_for_ever() {
    let double = Cloudflare::start().await;
    double.rule(Rule::on_create(Then::Mutate(Mutation::Aged)));
    let world = World::with(double, DOMAINS).await;
    let first = world.issued("default").await;
    let next = world.certificate("default").await["next_renewal"].clone();
    for _ in 0..3 {
        assert_eq!(world.certificate("default").await["next_renewal"], next, "it waits");
    }
    assert_eq!(world.posts(), 1);
    world.double.no_rules();
    world.advance(Duration::from_secs(3700));
    world.certificate_where("default", "it was renewed", |it| it["sha256"] != first["sha256"]).await;
    assert_eq!(world.posts(), 2);
}

// F42
#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_due_at_once_are_asked_for_one_after_another() {
    let world = World::start("").await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    let site = |it: usize| {
        format!(
            "[backends.\"h{it}.example.com\"]\nrespond = {{ status = 200, body = \"x\" }}\n\
             [backends.\"h{it}.example.com\".ssl]\nauto_cert = true\ndomains = [\"h{it}.example.com\"]\n"
        )
    };
    world.daemon.rewrite_config(&format!("{text}{}", (0..12).map(site).collect::<String>()));
    let begun = std::time::Instant::now();
    assert_eq!(world.daemon.reload().await.status, 0);
    wait::until(wait::LATER, "all are there", async || world.double.certificates().len() == 12).await;
    // Two a second: twelve cannot be there before the eleventh pause of half a second is over.
    assert!(begun.elapsed() >= Duration::from_millis(5500), "{:?}", begun.elapsed());
    assert_eq!((world.posts(), world.double.violations()), (12, vec![]));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_issuer_is_configured_no_more_is_told() {
    let world = World::start("").await;
    assert_eq!(world.request(&["app.example.com"]).await.status, 0);
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    let without: String = text.lines().filter(|it| !it.starts_with("api_token")).map(|it| format!("{it}\n")).collect();
    world.daemon.rewrite_config(&without);
    assert_eq!(world.daemon.reload().await.status, 0);
    world.advance(DAY * 61);
    let failing = world.certificate_where("app.example.com", "it is told", |it| it["state"] == "failing").await;
    assert!(failing["last_error"].as_str().unwrap().contains("not configured any more"), "{failing:#}");
    assert!(world.shown("app.example.com").await.is_cloudflares(), "it is shown as long as it is good");
    assert_eq!(world.posts(), 1);
}

// F22
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_and_what_it_did_is_made_good() {
    let world = World::start("").await;
    assert_eq!(world.request(&["old.example.com"]).await.status, 0);
    world.set_clock(-86_400);
    let said = world.daemon.ctl_json(&["cert", "request", "app.example.com"]).await["error"].clone();
    assert_eq!(said["code"], "rejected", "{said:#}");
    assert!(said["message"].as_str().unwrap().contains("clock"), "{said:#}");
    world.set_clock(86_400);
    assert_eq!(world.request(&["app.example.com"]).await.status, 0, "a day ahead does no harm");
    // Ninety days ahead everything seems to have ended: the old one is shown, and nothing is asked for without end.
    world.set_clock(90 * 86_400);
    world.certificate_where("old.example.com", "the failure is told", |it| it["attempts"].as_u64() > Some(0)).await;
    assert!(world.shown("old.example.com").await.is_cloudflares());
    world.set_clock(0);
    assert_eq!(world.daemon.ctl(&["cert", "renew", "old.example.com", "--force"]).await.status, 0);
    world.issued("old.example.com").await;
    assert!(world.posts() < 9, "{} requests", world.posts());
}

// F37
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_a_certificate_is_requested_disturbs_neither() {
    let world = World::start(DOMAINS).await;
    let first = world.issued("default").await;
    world.double.rule(Rule::on_create(Then::Delay(Duration::from_secs(2))).once());
    let posts = world.posts();
    let renewal = world.daemon.ctl_child(&["cert", "renew", "default", "--force"]);
    wait::until(wait::LATER, "the request is written down", async || world.file("store/pending/default").exists())
        .await;
    for _ in 0..3 {
        world.daemon.signal(nix::sys::signal::Signal::SIGHUP);
        assert_eq!(world.daemon.reload().await.status, 0);
    }
    assert!(renewal.wait_with_output().await.unwrap().status.success());
    let second = world.issued("default").await;
    assert_ne!(second["sha256"], first["sha256"]);
    assert_eq!(world.posts(), posts + 1);

    // Something else is wanted before what was asked for is there: that is asked for next.
    world.double.rule(Rule::on_create(Then::Delay(Duration::from_secs(2))).once());
    let renewal = world.daemon.ctl_child(&["cert", "renew", "default", "--force"]);
    wait::until(wait::LATER, "the request is written down", async || world.file("store/pending/default").exists())
        .await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    world.daemon.rewrite_config(&text.replace("\"*.example.com\"]", "\"*.example.com\", \"example.net\"]"));
    assert_eq!(world.daemon.reload().await.status, 0);
    assert!(renewal.wait_with_output().await.unwrap().status.success());
    wait::until(wait::LATER, "the new name is shown", async || world.shown("example.net").await.is_cloudflares()).await;
    assert_eq!(world.posts(), posts + 3);
}
