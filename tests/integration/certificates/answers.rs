//! What the API may answer, and what the daemon makes of it: the numbers are those of the list of failures that a good
//! implementation must pass.

use std::time::Duration;

use harness::{
    cloudflare::{Cloudflare, Mutation, RetryAfter, Rule, Status, Then, Token},
    wait,
};

use super::world::{DOMAINS, World};

fn refuse(status: u16, code: u32, message: &str) -> Then {
    Then::Refuse { status, code, message: message.to_owned() }
}

fn answer(status: u16, body: &str) -> Then {
    Then::Answer { status, content_type: "text/html", body: body.to_owned() }
}

/// Each fault on a request of its own; whether a certificate came, and the class of the failure if not.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_taken_for_what_they_are() {
    let world = World::start("").await;
    let elsewhere = format!("https://{}/client/v4/elsewhere", world.double.address());
    let cases: Vec<(&str, Then, u32, Option<&str>)> = vec![
        ("F6 500", refuse(500, 1, "broken"), 1, None),
        ("F6 502 as HTML", answer(502, "<html>Bad gateway</html>"), 1, None),
        ("F6 520 as text", answer(520, "error code: 520"), 1, None),
        ("F6 503 without a body", answer(503, ""), 1, None),
        ("F7 a body that is cut", Then::Truncate(40), 1, None),
        ("F7 gzip", Then::Gzip, 1, None),
        ("F7 10 MB", Then::Big(10 << 20), 1, None),
        ("F7 a byte order mark", Then::ByteOrderMark, 1, None),
        ("F7 half a word", Then::Truncate(1), 1, None),
        ("F8 a reset before", Then::Reset, 1, None),
        ("F8 a reset after", Then::ResetAfter, 1, None),
        ("F9 1100", refuse(400, 1100, "Failed to write certificate to Database"), 1, None),
        ("F10 1201 twice", refuse(400, 1201, "CA signing failure. Could not parse returned certificate"), 2, None),
        ("F10 1201 for ever", refuse(400, 1201, "CA signing failure"), 99, Some("transient")),
        ("F11 10000 with 400", refuse(400, 10000, "Authentication error"), 1, Some("auth")),
        ("F12 9109", refuse(403, 9109, "Invalid access token"), 1, Some("auth")),
        ("F14 6003", refuse(400, 6003, "Invalid request headers"), 1, Some("config")),
        ("F15 code 0", refuse(403, 0, "Actor 'x' requires permission 'y' to list zones"), 1, Some("auth")),
        ("F16 no result", Then::NullResult, 99, None),
        ("F17 a redirect", Then::Redirect(elsewhere), 1, Some("config")),
        ("messages as texts", Then::MessagesAsStrings, 1, None),
        ("no messages", Then::OmitMessages, 1, None),
        ("more than is known", Then::ExtraFields, 1, None),
        ("an unknown code", refuse(400, 4242, "Something new"), 1, Some("unknown")),
    ];
    for (number, (what, then, times, expected)) in cases.into_iter().enumerate() {
        world.double.no_rules();
        world.double.rule(Rule::on_create(then).times(times));
        let host = format!("h{number}.example.com");
        let before = world.double.certificates().len();
        let said = world.daemon.ctl_json(&["cert", "request", &host]).await;
        let code = said["error"]["code"].as_str();
        assert_eq!(code, expected, "{what}: {said:#}");
        if expected.is_none() {
            assert!(world.shown(&host).await.is_cloudflares(), "{what}");
            let live = world.double.certificates()[before..].iter().filter(|it| it.hostnames == [host.clone()]).count();
            assert_eq!(live, 1, "{what}: what was made is used, not made again");
        } else {
            assert_eq!(said["error"]["exit"], 6, "{what}");
        }
    }
    assert_eq!(world.double.count("POST", "/elsewhere") + world.double.count("GET", "/elsewhere"), 0, "F17");
    assert_eq!(world.double.violations(), [""; 0]);
}

// F7, F8
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_ends_is_given_up_and_what_it_brought_is_found() {
    let ask = async |then: Then| {
        let world = World::start("").await;
        world.double.rule(Rule::on_create(then).once());
        let said = world.request(&["app.example.com", "--name", "app"]).await;
        assert_eq!(said.status, 0, "{said:?}");
        assert_eq!((world.double.certificates().len(), world.posts()), (1, 1), "one was made, and that is used");
        assert!(world.shown("app.example.com").await.is_cloudflares());
        assert_eq!(world.double.violations(), [""; 0]);
    };
    tokio::join!(ask(Then::HangAfter), ask(Then::Drip(1)));
}

// F18 to F24, F26 to F29
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_what_was_asked_for_is_never_shown() {
    let world = World::start("").await;
    world.request(&["app.example.com", "--name", "app"]).await;
    let first = world.shown("app.example.com").await;
    assert!(first.is_cloudflares());
    let junk = |text: &str| Mutation::ExpiresOn(text.to_owned());
    let id = |text: &str| Mutation::Id(text.to_owned());
    let cases = [
        ("F18", Mutation::WrongKey, false),
        ("F19", Mutation::WrongName, false),
        ("F19 one of them", Mutation::DropName, false),
        ("F20, with a warning", Mutation::ValidityDays(5475), true),
        ("F21", Mutation::Expired, false),
        ("F22", Mutation::NotYetValid, false),
        ("F23 no leaf", Mutation::NoLeaf, false),
        ("F23 leaf last", Mutation::LeafLast, true),
        ("F23 with the root", Mutation::WithRoot, true),
        ("F23 CR LF", Mutation::CrLf, true),
        ("F23 words around", Mutation::GarbageAround, true),
        ("F23 nothing", Mutation::Empty, false),
        ("F26 RFC 3339", junk("2027-02-21T09:06:00Z"), true),
        ("F26 nothing", junk(""), true),
        ("F26 absurd", junk("yesterday"), true),
        ("F27 hexadecimal", id("0x47530d8f561faa08"), true),
        ("F27 with a slash", id("a/b"), true),
        ("F29", Mutation::ClientOnly, false),
        ("another root", Mutation::OtherRoot, false),
    ];
    for (number, (what, mutation, is_good)) in cases.into_iter().enumerate() {
        world.double.no_rules();
        world.double.rule(Rule::on_create(Then::Mutate(mutation)).once());
        let host = format!("h{number}.example.com");
        let said = world.daemon.ctl_json(&["cert", "request", &host]).await;
        if is_good {
            assert!(said["error"].is_null(), "{what}: {said:#}");
            assert!(world.shown(&host).await.is_cloudflares(), "{what}");
        } else {
            assert_eq!(said["error"]["code"], "rejected", "{what}: {said:#}");
            assert!(world.certificate(&host).await.is_null(), "{what}");
        }
    }
    // F27: an identifier with a slash goes back as it came.
    world.daemon.ctl_ok(&["cert", "revoke", "h16.example.com", "--force"]).await;
    assert!(world.double.certificates().iter().any(|it| it.id == "a/b" && it.revoked_at.is_some()));

    world.double.rule(Rule::on_create(Then::Mutate(Mutation::WrongKey)));
    assert_eq!(world.daemon.ctl(&["cert", "renew", "app", "--force"]).await.status, 6);
    assert_eq!(world.shown("app.example.com").await, first, "the old one stays");
    assert!(world.daemon.log().contains("90 days were asked for"), "F20");
    assert_eq!(world.double.violations(), [""; 0]);
}

// F13, F14, F41
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_in_its_file_counts_without_a_reload() {
    let world = World::start("").await;
    world.double.update_token(Cloudflare::TOKEN, |it| it.status = Status::Disabled);
    let said = world.daemon.ctl_json(&["cert", "request", "a.example.com"]).await["error"].clone();
    assert_eq!(said["code"], "auth");
    assert!(said["message"].as_str().unwrap().contains("the token itself is disabled"), "{said:#}");
    world.double.add_token(Token::user("cfut_another"));
    std::fs::write(world.file("token"), "cfut_another\r\n").unwrap();
    assert_eq!(world.request(&["a.example.com"]).await.status, 0);
    assert_eq!(world.double.violations(), [""; 0]);
}

// F3
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_before_the_api_wants_to_be() {
    let world = World::start("").await;
    world.double.rule(Rule::on_create(Then::RateLimit(RetryAfter::Seconds(900))).once());
    let said = world.daemon.ctl_json(&["cert", "request", "a.example.com"]).await;
    assert_eq!(said["error"]["code"], "throttled", "{said:#}");
    let posts = world.posts();
    for host in ["a.example.com", "b.example.com"] {
        let said = world.daemon.ctl_json(&["cert", "request", "--force", host]).await;
        assert_eq!(said["error"]["code"], "throttled", "{said:#}");
    }
    assert_eq!(world.posts(), posts, "not even by force");
    world.advance(Duration::from_secs(1000));
    assert_eq!(world.request(&["a.example.com"]).await.status, 0);
}

// F4, F5
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_not_told_or_told_badly_is_five_minutes() {
    let world = World::start("").await;
    let cases = [
        (RetryAfter::Absent, 300),
        (RetryAfter::Text("soon".to_owned()), 300),
        (RetryAfter::Text("-5".to_owned()), 300),
        (RetryAfter::HttpDate(1200), 1200),
    ];
    for (after, seconds) in cases {
        let (what, posts) = (format!("{after:?}"), world.posts());
        // A date is the double's; the daemon's clock must be where it is.
        world.double.rule(Rule::on_create(Then::RateLimit(after)).once());
        let ask = async || world.daemon.ctl_json(&["cert", "request", "--force", "a.example.com"]).await;
        assert_eq!(ask().await["error"]["code"], "throttled", "{what}");
        world.advance(Duration::from_secs(seconds - 60));
        assert_eq!(ask().await["error"]["code"], "throttled", "{what}");
        assert_eq!(world.posts(), posts + 1, "{what}: nobody was asked too early");
        // A tenth more at most, which is chance.
        world.advance(Duration::from_secs(60 + seconds / 10 + 1));
        assert!(ask().await["error"].is_null(), "{what}");
        world.daemon.ctl_ok(&["cert", "remove", "a.example.com"]).await;
    }
}

// F47
#[tokio::test(flavor = "multi_thread")]
async fn every_class_of_failure_is_counted_and_has_its_exit_code() {
    let world = World::start("").await;
    let cases = [
        ("auth", refuse(403, 9109, "Invalid access token")),
        ("config", refuse(400, 6003, "Invalid request headers")),
        ("unknown", refuse(400, 4242, "Something new")),
        ("rejected", Then::Mutate(Mutation::WrongKey)),
        ("transient", refuse(500, 1, "broken")),
        ("throttled", Then::RateLimit(RetryAfter::Seconds(60))),
    ];
    for (class, then) in cases {
        world.double.no_rules();
        world.double.rule(Rule::on_create(then));
        let said = world.daemon.ctl_json(&["cert", "request", "a.example.com"]).await["error"].clone();
        assert_eq!((&said["code"], &said["exit"]), (&class.into(), &6.into()), "{said:#}");
        assert!(!said["hint"].as_str().unwrap().is_empty(), "{said:#}");
        let metrics = world.daemon.get("/metrics").await.text();
        let line = format!("miwid_certificate_requests_total{{result=\"{class}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

// F44
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_is_said() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let echo = format!("the token {} is not good enough", Cloudflare::TOKEN);
    world.double.rule(Rule::on_create(refuse(400, 4242, &echo)).once());
    let mut said = world.daemon.ctl(&["cert", "request", "a.example.com"]).await.all();
    for args in [
        &["cert", "list", "-o", "json"][..],
        &["cert", "show", "default"],
        &["status", "-o", "json"],
        &["config", "show"],
        &["events"],
        &["op", "list", "-o", "json"],
    ] {
        said.push_str(&world.daemon.ctl(args).await.all());
    }
    said.push_str(&world.daemon.log());
    said.push_str(&world.daemon.get("/metrics").await.text());
    for file in walk(&world.file("store")) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let is_key = file.ends_with("key.pem") || file.ends_with("ca.key");
        assert!(!text.contains(Cloudflare::TOKEN), "{}", file.display());
        assert!(is_key || !text.contains("PRIVATE KEY"), "{}", file.display());
    }
    assert!(said.contains("is not good enough"), "the answer itself is told: {said}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.daemon.pid())).expect("it runs");
    let cores = limits.lines().find(|it| it.starts_with("Max core file size")).expect("one of the limits");
    assert_eq!(cores.split_whitespace().filter(|it| *it == "0").count(), 2, "no core takes them to the disk: {cores}");
    for secret in [Cloudflare::TOKEN, "PRIVATE KEY", "Bearer "] {
        assert!(!said.contains(secret), "{secret} was said");
    }
}

// F44
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_however_much_is_logged() {
    let world = World::start("").await;
    let daemon = world.another(DOMAINS).env("RUST_LOG", "trace").start().await;
    let shown = async || daemon.ctl_json(&["cert", "show", "default"]).await;
    wait::for_value(wait::LATER, "it is there", shown, |it| it["issuer"] == "cloudflare-origin").await;
    let echo = format!("the token {} is not good enough", Cloudflare::TOKEN);
    let mut said = String::new();
    for (args, is_refused) in [
        (&["cloudflare", "check"][..], false),
        (&["cloudflare", "check", "-o", "json"], true),
        // No token goes along, so none could come back.
        (&["cloudflare", "ips", "--refresh"], false),
        (&["cloudflare", "purge", "https://app.example.com/"], true),
        (&["cloudflare", "purge", "--all"], false),
        (&["cert", "renew", "default", "--force"], true),
    ] {
        world.double.no_rules();
        if is_refused {
            world.double.rule(Rule::new("*", "/", refuse(400, 4242, &echo)));
        }
        said.push_str(&daemon.ctl(args).await.all());
    }
    assert!(said.contains("is not good enough"), "the answer itself is told: {said}");
    assert_eq!(daemon.get_host("nobody.test", "/").await.status, 404);
    said.push_str(&daemon.log());
    assert!(said.contains("DEBUG"), "much is logged");
    for secret in [Cloudflare::TOKEN, "PRIVATE KEY", "Bearer "] {
        let line = said.lines().find(|it| it.contains(secret));
        assert!(line.is_none(), "{secret} was said: {line:?}");
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.path());
    entries.flat_map(|it| if it.is_dir() { walk(&it) } else { vec![it] }).collect()
}
