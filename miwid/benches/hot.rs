//! What a request costs in pure time, piece by piece: route, locate, answer a file, write its access line.
//!
//! `cargo bench -p miwid` compares with the run before; a change of the hot path brings its numbers from here. Whole
//! requests over sockets are `tests/bench/run`'s business.

use std::{
    fs,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use config::{Capabilities, Config};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use miwid::{
    files::{Cache, Root, Sought, fuzzing::locate},
    routing::{Hosts, Route, Site, Target, host_of, normalized, plan},
    telemetry::{AccessLog, Logs, Metrics, Record},
};

criterion_group!(hot, routes, paths, answers, access_lines);
criterion_main!(hot);

/// Host to site to route, with few sites and with many: the cost must not grow.
fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for count in [1, 100, 10_000] {
        let hosts = hosts(count);
        let host = format!("site{}.example", count / 2);
        group.bench_function(BenchmarkId::new("sites", count), |bencher| {
            bencher.iter(|| plan(black_box(&hosts), black_box(&host), black_box("/static/app.js")).is_ok());
        });
    }
    group.finish();
}

fn paths(criterion: &mut Criterion) {
    criterion.bench_function("host_of", |bencher| bencher.iter(|| host_of(black_box("shop.example.com:8443"))));
    let mut group = criterion.benchmark_group("path");
    for (name, path) in [("plain", "/assets/img/logo.svg"), ("escaped", "/assets/%69mg//./logo%20big.svg")] {
        group.bench_function(BenchmarkId::new("normalized", name), |bencher| {
            bencher.iter(|| normalized(black_box(path)).is_some());
        });
        group.bench_function(BenchmarkId::new("locate", name), |bencher| {
            bencher.iter(|| locate(black_box(path)).is_ok());
        });
    }
    group.finish();
}

/// A file found, its conditions judged and its response's head built; the body is not sent.
fn answers(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("page.html"), vec![b'x'; 1024]).expect("a file");
    let root = Root::new(&files(directory.path()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let uri = Uri::from_static("/page.html");
    let cache = Cache::default();
    let ask = |headers: &HeaderMap| {
        let sought = Sought { method: &Method::GET, uri: &uri, path: "/page.html", headers };
        runtime.block_on(root.serve(&cache, &mut None, sought)).unwrap_or_else(|_| panic!("an answer"))
    };
    let plain = HeaderMap::new();
    let tag = ask(&plain).headers().get(header::ETAG).cloned().unwrap_or(HeaderValue::from_static("*"));
    let conditional = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
    assert_eq!(ask(&conditional).status(), StatusCode::NOT_MODIFIED);

    let mut group = criterion.benchmark_group("answer");
    group.bench_function("file of 1 KB", |bencher| bencher.iter(|| ask(black_box(&plain))));
    group.bench_function("not modified", |bencher| bencher.iter(|| ask(black_box(&conditional))));
    group.finish();
}

/// One line in each format, handed to the writer in blocks as in a worker.
fn access_lines(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("access line");
    group.throughput(Throughput::Elements(1));
    for format in ["common", "combined", "json"] {
        let path = directory.path().join(format);
        let text = format!("[logging.access_log]\npath = {path:?}\nformat = \"{format}\"\non_full = \"drop\"\n");
        let log = AccessLog::open(&loaded(&text).logging, &Logs::default(), &Metrics::default()).expect("a log");
        let mut buffer = log.buffer();
        let record = record();
        group.bench_function(format, |bencher| bencher.iter(|| buffer.record(black_box(&record))));
        log.close(Duration::from_secs(5));
    }
    group.finish();
}

// --- what they work on -------------------------------------------------------------------------------------------------

fn hosts(count: usize) -> Hosts {
    let mut hosts = Hosts::default();
    for number in 0..count {
        let name = format!("site{number}.example");
        let route = |prefix: &str| Route {
            compression: None,
            extra: None,
            guard: None,
            prefix: prefix.into(),
            strip_prefix: false,
            target: Target::Redirect { to: "/".into(), status: StatusCode::FOUND },
        };
        let routes = vec![route("/static/"), route("/api/"), route("/")];
        hosts.insert(&name, &Arc::new(Site { name: name.as_str().into(), routes }));
    }
    hosts
}

fn files(root: &Path) -> config::Files {
    let text = format!("[backends.\"_\"]\nroot = {root:?}\n");
    let config = loaded(&text);
    match config.backends.values().next().map(|backend| &backend.target) {
        Some(config::Target::Files(files)) => files.clone(),
        _ => panic!("a root leads to files"),
    }
}

fn loaded(text: &str) -> Config {
    let everything = Capabilities { unavailable: Vec::new() };
    config::load_text(Path::new("miwid.toml"), text, &[], &everything).expect("a configuration without problems").config
}

fn record() -> Record<'static> {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 17));
    Record {
        started: SystemTime::now(),
        duration: Duration::from_micros(117),
        client_ip: address,
        peer_ip: address,
        method: "GET",
        target: "/assets/img/logo.svg?v=12",
        protocol: "HTTP/1.1",
        scheme: "https",
        host: "shop.example.com",
        status: 200,
        bytes_sent: 1024,
        bytes_received: 0,
        referer: b"https://shop.example.com/",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/130.0",
        request_id: "",
        site: "shop",
        upstream: "",
        upstream_duration: None,
        reason: "",
        ray: "",
        aborted: false,
    }
}
