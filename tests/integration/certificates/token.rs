//! The API token itself: how long it is good for is looked at once a day, and told before it is too late.

use std::time::Duration;

use harness::{
    cloudflare::{Cloudflare, Status},
    wait,
};

use super::world::{DAY, DOMAINS, World};

async fn left(world: &World) -> Option<u64> {
    let page = world.daemon.get("/metrics").await.text();
    let line = page.lines().find_map(|it| it.strip_prefix("miwid_cloudflare_token_expiry_seconds "))?;
    Some(line.parse().expect("it has not ended"))
}

async fn left_within(world: &World, days: std::ops::Range<u64>) {
    let fits = |it: &Option<u64>| it.is_some_and(|it| days.contains(&(it / DAY.as_secs())));
    wait::for_value(wait::SOON, "the token's end is known", || left(world), fits).await;
}

async fn told(world: &World) -> Vec<String> {
    let events = world.daemon.ctl_ok(&["events"]).await.stdout;
    events.lines().filter(|it| it.contains("cloudflare.token")).map(str::to_owned).collect()
}

async fn told_last(world: &World, count: usize, what: &str) {
    let told = wait::for_value(wait::SOON, what, || told(world), |it| it.len() >= count).await;
    assert!(told.len() == count && told[count - 1].contains(what), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_shown_and_told_of_in_time() {
    let double = Cloudflare::start().await;
    let end = double.now() + DAY * 40;
    double.update_token(Cloudflare::TOKEN, |it| it.expires_on = Some(end));
    let world = World::with(double, DOMAINS).await;
    world.issued("default").await;
    assert_eq!(left(&world).await, None, "nobody has asked yet");
    world.advance(Duration::from_secs(61));
    left_within(&world, 39..40).await;
    assert_eq!(told(&world).await, [""; 0], "it is early");
    world.advance(DAY * 10);
    left_within(&world, 29..30).await;
    told_last(&world, 1, "expires within 30 days").await;
    world.double.update_token(Cloudflare::TOKEN, |it| it.status = Status::Disabled);
    world.advance(DAY);
    told_last(&world, 2, "is disabled").await;
    // Counted down between two looks as well.
    left_within(&world, 28..29).await;
    assert_eq!(world.double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_end_has_none_to_show() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let asked = async || world.double.count("GET", "/user/tokens/verify");
    let before = asked().await;
    world.advance(Duration::from_secs(61));
    wait::until(wait::SOON, "the token is looked at", async || asked().await > before).await;
    assert_eq!((left(&world).await, told(&world).await.len()), (None, 0));
}
