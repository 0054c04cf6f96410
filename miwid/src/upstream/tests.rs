//! Sets and checks against real sockets.

#![allow(clippy::unwrap_used)]

use std::{
    cell::Cell,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::{Address, Availability, Directory, Set, Unavailable, Verdict, probe};
use crate::telemetry::{Events, Metrics};

const DEADLINE: Duration = Duration::from_secs(20);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.expect("the test came to its end") });
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn url(host: &str, port: u16) -> config::UpstreamUrl {
    config::UpstreamUrl::Http { host: host.to_owned(), port }
}

fn proxy(urls: Vec<config::UpstreamUrl>, strategy: config::Strategy, path: Option<&str>) -> config::Proxy {
    config::Proxy {
        urls,
        strategy,
        health: config::Health {
            path: path.map(str::to_owned),
            interval: Duration::from_millis(10),
            timeout: DEADLINE,
            expect: Vec::new(),
        },
        preserve_host: true,
        upstream_http: config::UpstreamHttp::Http1,
        connect_timeout: DEADLINE,
        retries: 1,
        sticky: None,
        max_in_flight: None,
        proxy_protocol: None,
        tls_ca: None,
        tls_client_cert: None,
    }
}

fn pick(set: &Set, client: IpAddr) -> String {
    set.pick(client, &[]).unwrap().in_flight.endpoint().label.clone()
}

#[test]
fn each_strategy_chooses_as_it_should() {
    let directory = Directory::default();
    let urls = vec![url("127.0.0.1", 1), url("127.0.0.1", 2), url("127.0.0.1", 3)];
    let of = |strategy| directory.set("s", &proxy(urls.clone(), strategy, None), None);
    let set = of(config::Strategy::RoundRobin);
    let seen: BTreeSet<_> = (0..3).map(|_| pick(&set, CLIENT)).collect();
    assert_eq!(seen.len(), 3);
    let set = of(config::Strategy::IpHash);
    let seen: BTreeSet<_> = (0..9).map(|_| pick(&set, CLIENT)).collect();
    assert_eq!(seen.len(), 1);
    let set = of(config::Strategy::LeastConn);
    let busy = [set.pick(CLIENT, &[]).unwrap(), set.pick(CLIENT, &[]).unwrap()];
    let seen: BTreeSet<_> = (0..9).map(|_| pick(&set, CLIENT)).collect();
    assert_eq!(seen.len(), 1);
    assert!(busy.iter().all(|it| !seen.contains(&it.in_flight.endpoint().label)));
}

#[test]
fn a_reload_keeps_unchanged_endpoints_and_their_state() {
    let directory = Directory::default();
    let round = config::Strategy::RoundRobin;
    let set = directory.set("s", &proxy(vec![url("127.0.0.1", 1), url("127.0.0.1", 2)], round, None), None);
    let before = set.endpoints();
    before[1].set_drained(true);
    let same = directory.set("s", &proxy(vec![url("127.0.0.1", 2), url("localhost", 3)], round, None), None);
    let after = set.endpoints();
    assert!(Arc::ptr_eq(&set, &same) && Arc::ptr_eq(&before[1], &after[0]));
    assert!(before[0].is_retired() && after[0].is_drained());
    assert_eq!((after[1].address.to_string().as_str(), after[1].alternates.len()), ("127.0.0.1:3", 1));
    directory.retain(&|_| false);
    assert!(after.iter().all(|it| it.is_retired()) && directory.sets().is_empty());
}

#[test]
fn a_managed_set_keeps_what_its_app_published() {
    let directory = Directory::default();
    let (fixed, hold) = (
        proxy(vec![url("127.0.0.1", 1)], config::Strategy::RoundRobin, None),
        config::Hold { max_requests: 1, timeout: DEADLINE, release_concurrency: 1, on_start: true },
    );
    let set = directory.set("app", &fixed, Some(&hold));
    assert!(set.endpoints().is_empty());
    assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::Wait(Availability::Holding));
    let unready = set.publish(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9))), "app-9".into(), false);
    assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::NoEndpoint, "it has never been ready");
    set.retire(&unready);
    set.set_availability(Availability::Holding);
    assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::Wait(Availability::Holding));
    set.publish(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))), "app-0".into(), true);
    directory.set("app", &fixed, Some(&hold));
    assert_eq!(pick(&set, CLIENT), "app-0");
    set.set_availability(Availability::Paused);
    assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::Wait(Availability::Paused));
}

#[test]
fn the_bound_on_requests_in_flight_holds() {
    let directory = Directory::default();
    let mut bounded = proxy(vec![url("127.0.0.1", 1)], config::Strategy::RoundRobin, None);
    bounded.max_in_flight = Some(1);
    let set = directory.set("s", &bounded, None);
    let first = set.pick(CLIENT, &[]).unwrap();
    assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::NoEndpoint);
    drop(first);
    assert!(set.pick(CLIENT, &[]).is_ok());
}

/// An origin that answers every check with the status in the cell, and counts connections that are open at once.
async fn checked(status: Rc<Cell<u16>>, most: Rc<Cell<usize>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = Rc::new(Cell::new(0));
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (status, most, open) = (status.clone(), most.clone(), open.clone());
            tokio::task::spawn_local(async move {
                open.set(open.get() + 1);
                most.set(most.get().max(open.get()));
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", status.get());
                let _ = stream.write_all(answer.as_bytes()).await;
                open.set(open.get() - 1);
            });
        }
    });
    address
}

#[test]
fn an_endpoint_with_a_check_serves_only_while_the_check_is_good() {
    run(async {
        let (status, most) = (Rc::new(Cell::new(500)), Rc::new(Cell::new(0)));
        let address = checked(status.clone(), most.clone()).await;
        let directory = Directory::default();
        let urls = vec![url("127.0.0.1", address.port())];
        let set = directory.set("s", &proxy(urls, config::Strategy::RoundRobin, Some("/health")), None);
        tokio::spawn(directory.maintain(Events::default(), Metrics::default()));
        until(|| most.get() > 0).await;
        assert_eq!(set.pick(CLIENT, &[]).unwrap_err(), Unavailable::NoEndpoint);
        status.set(204);
        until(|| set.pick(CLIENT, &[]).is_ok()).await;
        status.set(500);
        until(|| set.pick(CLIENT, &[]).is_err()).await;
        assert_eq!(most.get(), 1);
    });
}

#[test]
fn a_suspect_is_left_out_until_it_answers_and_the_last_one_never() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = Directory::default();
        let urls = vec![url("127.0.0.1", listener.local_addr().unwrap().port()), url("127.0.0.1", 1)];
        let set = directory.set("s", &proxy(urls, config::Strategy::RoundRobin, None), None);
        let [good, dead] = &set.endpoints()[..] else { panic!("two endpoints") };
        set.suspect(dead);
        assert!(!dead.is_healthy());
        set.suspect(good);
        assert!(good.is_healthy(), "it was the last one");
        good.set_healthy(false);
        tokio::spawn(directory.maintain(Events::default(), Metrics::default()));
        until(|| good.is_healthy()).await;
        assert!(!dead.is_healthy());
    });
}

#[test]
fn a_name_is_resolved_later_and_one_that_does_not_resolve_harms_nobody() {
    run(async {
        let directory = Directory::default();
        let urls = vec![url("LOCALHOST.", 1), url("nowhere.invalid", 1), url("127.0.0.1", 2)];
        let set = directory.set("s", &proxy(urls, config::Strategy::RoundRobin, None), None);
        assert_eq!(pick(&set, CLIENT), "127.0.0.1:2");
        let name = super::directory::Name { host: "LOCALHOST.".to_owned(), port: 1, secure: false };
        directory.resolved(&set, &name, &["127.0.0.9:1".parse().unwrap(), "127.0.0.8:1".parse().unwrap()]);
        assert_eq!(set.endpoints().len(), 3);
        directory.resolved(&set, &name, &["127.0.0.9:1".parse().unwrap()]);
        let labels: Vec<_> = set.endpoints().iter().map(|it| it.label.clone()).collect();
        assert_eq!(labels, ["127.0.0.1:2", "LOCALHOST.:1 127.0.0.9:1"]);
    });
}

#[test]
fn a_check_says_what_an_operator_needs_to_read() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let unix = Address::Unix(path.clone());
        let look = async |path| probe(&unix, "a.example", path, &[], DEADLINE).await;
        assert_eq!(look(Some("/h")).await, Verdict::Bad("GET /h: no such socket".into()));
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(look(None).await, Verdict::Good);
        let _ = listener.accept().await.unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        };
        let (verdict, request) = tokio::join!(look(Some("/h")), answer);
        assert_eq!(verdict, Verdict::Bad("GET /h: 404".into()));
        assert!(request.starts_with("GET /h HTTP/1.1\r\nHost: a.example\r\nUser-Agent: miwid-health\r\n"), "{request}");
        drop(listener);
        assert_eq!(look(Some("/h")).await, Verdict::Bad("GET /h: connection refused".into()));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(silent.local_addr().unwrap());
        let verdict = probe(&address, "a", Some("/h"), &[], Duration::from_millis(20)).await;
        assert_eq!(verdict, Verdict::Bad("GET /h: timed out after 0.02 s".into()));
    });
}
