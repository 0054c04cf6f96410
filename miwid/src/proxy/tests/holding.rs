//! Requests that wait for an app.

use std::{cell::Cell, time::Duration};

use futures_util::{FutureExt as _, future::join_all};

use super::rig::{DEADLINE, Rig, hold, nobody, origin, polite, run, until};
use crate::{proxy::WakeRules, upstream::Availability};

#[test]
fn exactly_the_overflow_of_the_hold_is_refused() {
    run(async {
        let rig = Rig::with(hold(10, DEADLINE), |it| it).await;
        rig.set.set_availability(Availability::Holding);
        let refused = Cell::new(0);
        let one = async |_: usize| {
            let answer = rig.get().await;
            if answer.starts_with("HTTP/1.1 503") {
                assert!(answer.contains("miwi-reason: hold-full") && answer.contains("retry-after: 2"), "{answer}");
                refused.set(refused.get() + 1);
            }
            answer
        };
        let clients = join_all((0..100).map(one));
        let release = async {
            // Not before the others have their answers, or late ones would find an open door.
            until(|| refused.get() == 90 && rig.set.held() == 10).await;
            rig.publish(origin(polite).await);
            rig.set.set_availability(Availability::Serving);
        };
        let (answers, ()) = tokio::join!(clients, release);
        assert_eq!(answers.iter().filter(|it| it.starts_with("HTTP/1.1 200")).count(), 10);
        assert_eq!(rig.set.held(), 0);
    });
}

#[test]
fn a_hold_that_lasts_too_long_is_504() {
    run(async {
        let rig = Rig::with(hold(10, Duration::from_millis(30)), |it| it).await;
        rig.set.set_availability(Availability::Holding);
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("miwi-reason: hold-timeout"), "{answer}");
        assert_eq!(rig.set.held(), 0);
    });
}

#[test]
fn a_client_that_leaves_the_hold_frees_its_place() {
    run(async {
        let rig = Rig::new().await;
        rig.set.set_availability(Availability::Paused);
        rig.publish(origin(polite).await);
        let request = rig.get();
        tokio::select! {
            answer = request => panic!("a paused app answered: {answer}"),
            () = until(|| rig.set.held() == 1) => {}
        }
        until(|| rig.set.held() == 0).await;
    });
}

#[test]
fn an_idle_app_is_asked_for_and_then_answers() {
    run(async {
        let rig = Rig::new().await;
        rig.set.set_availability(Availability::Idle);
        let wake = async {
            rig.set.demanded().await;
            rig.set.set_availability(Availability::Holding);
            rig.publish(origin(polite).await);
            rig.set.set_availability(Availability::Serving);
        };
        let (answer, ()) = tokio::join!(rig.get(), wake);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

/// Wakes for `GET /x` only.
async fn light_sleeper() -> Rig {
    let wake_on = config::WakeOn { methods: vec!["GET".into()], paths: vec!["/x".into()] };
    Rig::with(hold(8, DEADLINE), |it| it.with_wake_on(WakeRules::new(&wake_on))).await
}

#[test]
fn what_may_not_wake_an_idle_app_is_told_so_and_wakes_nothing() {
    run(async {
        let rig = light_sleeper().await;
        rig.set.set_availability(Availability::Idle);
        for line in ["GET /wp-login.php", "GET /x/y", "POST /x", "HEAD /x"] {
            let answer = rig.ask(&format!("{line} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("miwi-reason: app-idle"), "{line}: {answer}");
            assert!(answer.contains("retry-after: 30\r\n"), "{line}: {answer}");
        }
        assert!(rig.set.demanded().now_or_never().is_none() && rig.set.held() == 0, "nobody has asked for it");
        let (answer, ()) = tokio::join!(rig.get(), async {
            rig.set.demanded().await;
            rig.publish(origin(polite).await);
            rig.set.set_availability(Availability::Serving);
        });
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn what_may_not_wake_an_app_waits_for_one_that_others_woke() {
    run(async {
        let rig = light_sleeper().await;
        let other = "GET /other HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
        rig.set.set_availability(Availability::Holding);
        let (answer, ()) = tokio::join!(rig.ask(other), async {
            until(|| rig.set.held() == 1).await;
            rig.publish(origin(polite).await);
            rig.set.set_availability(Availability::Serving);
        });
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        // It falls asleep while one waits: that one goes, and does not wake it.
        let rig = light_sleeper().await;
        rig.set.set_availability(Availability::Holding);
        let (answer, ()) = tokio::join!(rig.ask(other), async {
            until(|| rig.set.held() == 1).await;
            rig.set.set_availability(Availability::Idle);
        });
        assert!(answer.contains("miwi-reason: app-idle"), "{answer}");
        assert!(rig.set.demanded().now_or_never().is_none(), "nobody has asked for it");
    });
}

#[test]
fn stopped_and_failed_apps_say_so_at_once() {
    run(async {
        let rig = Rig::new().await;
        for (availability, reason, after) in [
            (Availability::Stopped, "app-stopped", 30),
            (Availability::Failed { retry_after: Duration::from_secs(9) }, "app-failed", 9),
        ] {
            rig.set.set_availability(availability);
            let answer = rig.get().await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.contains(&format!("miwi-reason: {reason}")), "{answer}");
            assert!(answer.contains(&format!("retry-after: {after}\r\n")), "{answer}");
        }
    });
}

#[test]
fn a_request_that_hits_a_dying_instance_gets_its_successor() {
    run(async {
        let rig = Rig::new().await;
        let old = rig.publish(nobody());
        let replace = async {
            // The request has been refused by now, or will be in a moment: both ways it must end well.
            rig.set.set_availability(Availability::Holding);
            rig.set.withdraw(&old, DEADLINE).await;
            rig.publish(origin(polite).await);
            rig.set.set_availability(Availability::Serving);
        };
        let (answer, ()) = tokio::join!(rig.get(), replace);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn replacing_the_endpoint_under_load_fails_no_request() {
    run(async {
        let rig = Rig::with(hold(64, DEADLINE), |it| it).await;
        let mut current = rig.publish(origin(polite).await);
        let (done, failed) = (Cell::new(false), Cell::new(0));
        let client = async |_: usize| {
            while !done.get() {
                if !rig.get().await.starts_with("HTTP/1.1 200") {
                    failed.set(failed.get() + 1);
                }
            }
        };
        let clients = join_all((0..10).map(client));
        let replace = async {
            for round in 0..20 {
                if round % 2 == 0 {
                    // Rolling: the new one is there before the old one goes.
                    let next = rig.publish(origin(polite).await);
                    assert!(rig.set.withdraw(&current, DEADLINE).await);
                    current = next;
                } else {
                    // Hold: the old one goes first.
                    rig.set.set_availability(Availability::Holding);
                    assert!(rig.set.withdraw(&current, DEADLINE).await);
                    until(|| rig.set.held() == 10).await;
                    current = rig.publish(origin(polite).await);
                    rig.set.set_availability(Availability::Serving);
                }
            }
            done.set(true);
        };
        tokio::join!(clients, replace);
        assert_eq!(failed.get(), 0);
    });
}
