//! Files: encoded as they are sent, siblings that were encoded before, variants that are made in the background.

use std::{
    fs::{self, File},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use harness::{Daemon, Reply, wait};
use http::Method;

use super::{CODINGS, ask, decoded, get, plain, text, told};

const CONFIG: &str = "[compression]\n[backends.\"a.test\"]\nroot = \"{dir}/www\"\n";
const PREPARED: &str = "[backends.\"a.test\"]\nroot = \"{dir}/www\"\nfiles = { precompressed = true }\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_coding_brings_the_same_bytes() {
    let builder = Daemon::builder(CONFIG);
    let daemon = builder.file("www/small.css", &text(3000)).file("www/large.html", &text(5 << 20)).start().await;
    for (path, size) in [("/small.css", 3000), ("/large.html", 5 << 20)] {
        let as_it_is = get(&daemon, path, "identity").await;
        assert_eq!((as_it_is.header("accept-ranges"), as_it_is.header("vary")), ("bytes", "accept-encoding"));
        for coding in CODINGS {
            let reply = get(&daemon, path, coding).await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, coding));
            assert!(plain(&reply) == text(size), "{path} {coding}");
            assert_eq!(reply.header("vary"), "accept-encoding");
            assert_eq!(reply.header("accept-ranges"), "");
            assert_eq!(reply.header("etag"), format!("W/{}", as_it_is.header("etag")));
            assert_eq!(reply.header("last-modified"), as_it_is.header("last-modified"));
            let head = ask(&daemon, Method::HEAD, path, &[("accept-encoding", coding)]).await;
            assert_eq!(told(&head.headers), told(&reply.headers), "{path} {coding}");
            assert!(head.body.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_holds_is_not_sent_again() {
    let daemon = Daemon::builder(CONFIG).file("www/a.txt", &text(3000)).start().await;
    for accept in ["gzip", "identity"] {
        let held = get(&daemon, "/a.txt", accept).await;
        let lines = [("accept-encoding", accept), ("if-none-match", held.header("etag"))];
        for method in [Method::GET, Method::HEAD] {
            let reply = ask(&daemon, method, "/a.txt", &lines).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{accept}");
            assert_eq!(reply.header("etag"), held.header("etag"), "{accept}");
            assert_eq!(reply.header("vary"), "accept-encoding", "{accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_of_the_file_as_it_is() {
    let daemon = Daemon::builder(CONFIG).file("www/a.txt", &text(3000)).start().await;
    let lines = [("accept-encoding", "gzip"), ("range", "bytes=100-199")];
    let reply = ask(&daemon, Method::GET, "/a.txt", &lines).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (206, ""));
    assert_eq!(reply.text(), text(3000)[100..200]);
    assert_eq!(reply.header("vary"), "accept-encoding");
    assert!(reply.header("etag").starts_with('"'), "a strong tag, or the client could not go on");
}

/// A file beside its siblings, each of which decodes to a text of its own.
async fn prepared(config: &str) -> Daemon {
    let daemon = Daemon::builder(config).file("www/app.js", "original").file("www/alone.js", "alone").start().await;
    let www = daemon.dir().join("www");
    for (coding, suffix) in [("zstd", "zst"), ("br", "br"), ("gzip", "gz")] {
        fs::write(www.join(format!("app.js.{suffix}")), encoded(coding, &format!("from the {coding} sibling")))
            .unwrap();
    }
    daemon
}

fn encoded(coding: &str, text: &str) -> Vec<u8> {
    use std::io::Write;
    match coding {
        "zstd" => zstd::stream::encode_all(text.as_bytes(), 3).unwrap(),
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(text.as_bytes()).unwrap();
            out
        }
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn age(file: &std::path::Path, by: Duration) {
    File::options().write(true).open(file).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_are_served_by_weight() {
    let daemon = prepared(PREPARED).await;
    for (accept, coding, expected) in [
        ("gzip", "gzip", "from the gzip sibling"),
        ("gzip, deflate, br, zstd", "br", "from the br sibling"),
        ("zstd, gzip", "zstd", "from the zstd sibling"),
        ("br;q=0.5, gzip", "gzip", "from the gzip sibling"),
        ("br;q=0, *", "zstd", "from the zstd sibling"),
        ("deflate", "", "original"),
        ("identity, br;q=0.5", "", "original"),
        ("", "", "original"),
    ] {
        let reply = get(&daemon, "/app.js", accept).await;
        assert_eq!((reply.header("content-encoding"), plain(&reply).as_str()), (coding, expected), "{accept}");
        assert_eq!(reply.header("content-type"), "text/javascript; charset=utf-8", "{accept}");
        assert_eq!(reply.header("content-length"), reply.body.len().to_string(), "{accept}");
        assert_eq!((reply.header("vary"), reply.header("accept-ranges")), ("accept-encoding", "bytes"), "{accept}");
        let head = ask(&daemon, Method::HEAD, "/app.js", &[("accept-encoding", accept)]).await;
        assert_eq!(told(&head.headers), told(&reply.headers), "{accept}");
        assert_eq!(head.header("content-length"), reply.header("content-length"), "{accept}");
    }
    assert_eq!(get(&daemon, "/alone.js", "br").await.header("vary"), "accept-encoding", "one may appear");
    // Asked for by its own name it is a file as any other.
    let direct = get(&daemon, "/app.js.gz", "gzip").await;
    assert_eq!((direct.header("content-encoding"), direct.header("content-type")), ("", "application/gzip"));
    assert_eq!(decoded("gzip", &direct.body), b"from the gzip sibling");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_has_tags_and_ranges_of_its_own() {
    let daemon = prepared(PREPARED).await;
    let tag = async |accept: &str| get(&daemon, "/app.js", accept).await.header("etag").to_owned();
    let (own, original) = (tag("br").await, tag("identity").await);
    assert!(own.starts_with('"') && own != original);
    let whole = get(&daemon, "/app.js", "br").await.body;
    let part = |range: &'static str| [("accept-encoding", "br"), ("range", range)];
    let reply = ask(&daemon, Method::GET, "/app.js", &part("bytes=2-5")).await;
    assert_eq!((reply.status, reply.header("content-encoding"), reply.header("etag")), (206, "br", own.as_str()));
    assert_eq!(reply.body, whole[2..6]);
    assert_eq!(reply.header("content-range"), format!("bytes 2-5/{}", whole.len()));
    let held = async |accept: &str, tag: &str| -> Reply {
        ask(&daemon, Method::GET, "/app.js", &[("accept-encoding", accept), ("if-none-match", tag)]).await
    };
    let same = held("br", &own).await;
    assert_eq!((same.status, same.header("vary"), same.header("etag")), (304, "accept-encoding", own.as_str()));
    assert_eq!(held("gzip", &own).await.status, 200);
    assert_eq!(held("identity", &own).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_older_than_its_original_is_not_used() {
    let daemon = prepared(PREPARED).await;
    age(&daemon.dir().join("www/app.js.br"), Duration::from_secs(100));
    let reply = get(&daemon, "/app.js", "br, gzip;q=0.5").await;
    assert_eq!((reply.header("content-encoding"), plain(&reply).as_str()), ("gzip", "from the gzip sibling"));
    assert_eq!(get(&daemon, "/app.js", "br").await.text(), "original");
    age(&daemon.dir().join("www/app.js"), Duration::from_secs(200));
    assert_eq!(plain(&get(&daemon, "/app.js", "br").await), "from the br sibling");
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_win_over_encoding_and_hide_from_it() {
    let daemon = prepared(&PREPARED.replace("[backends", "[compression]\nmin_size = \"1B\"\n[backends")).await;
    let reply = get(&daemon, "/app.js", "gzip, br").await;
    assert_eq!((reply.header("content-encoding"), plain(&reply).as_str()), ("br", "from the br sibling"));
    let reply = get(&daemon, "/alone.js", "gzip").await;
    assert_eq!((reply.header("content-encoding"), plain(&reply).as_str()), ("gzip", "alone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_siblings_are_files_like_others() {
    let daemon = prepared("[backends.\"a.test\"]\nroot = \"{dir}/www\"\n").await;
    let reply = get(&daemon, "/app.js", "br").await;
    assert_eq!((reply.text().as_str(), reply.header("vary")), ("original", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_variant_appears_and_goes_with_the_file() {
    let daemon = Daemon::builder(CONFIG).file("www/a.txt", &text(200_000)).start().await;
    for coding in CODINGS {
        let first = get(&daemon, "/a.txt", coding).await;
        assert!(plain(&first) == text(200_000), "{coding}");
        // What is encoded on the way has no length.
        assert_eq!(first.header("content-length"), "", "{coding}");
        let better = wait::for_value(
            wait::LATER,
            "a variant",
            || get(&daemon, "/a.txt", coding),
            |it| !it.header("content-length").is_empty(),
        )
        .await;
        assert_eq!(better.header("content-encoding"), coding);
        assert!(plain(&better) == text(200_000), "{coding}");
        assert!(better.body.len() <= first.body.len(), "{coding}: {} {}", better.body.len(), first.body.len());
        assert_eq!(told(&better.headers), told(&first.headers), "{coding}");
        let head = ask(&daemon, Method::HEAD, "/a.txt", &[("accept-encoding", coding)]).await;
        assert_eq!(head.header("content-length"), better.body.len().to_string(), "{coding}");
        let lines = [("accept-encoding", coding), ("range", "bytes=0-9")];
        let part = ask(&daemon, Method::GET, "/a.txt", &lines).await;
        assert_eq!((part.status, part.header("content-encoding"), part.body.len()), (206, "", 10), "{coding}");
    }
    daemon.write("www/a.txt", &text(100_000));
    for coding in CODINGS {
        // A file that is known may not be looked at again for a moment; what is never served is a mixture.
        let seen = || async { plain(&get(&daemon, "/a.txt", coding).await) };
        let changed = wait::for_value(wait::SOON, "the file is another", seen, |it| *it != text(200_000)).await;
        assert!(changed == text(100_000), "{coding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_do_not_hold_up_small_ones() {
    const CLIENTS: usize = 20;
    const BYTES: usize = 50 << 20;
    let config = format!("[server]\nworkers = 1\n{CONFIG}").replace("[compression]\n", "[compression]\nlevel = 1\n");
    let large = text(BYTES);
    let daemon = Daemon::builder(&config).file("www/large.txt", &large).file("www/small.txt", "small").start().await;
    let (daemon, large) = (Arc::new(daemon), Arc::new(large));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (daemon, large, done) = (daemon.clone(), large.clone(), done.clone());
            tokio::spawn(async move {
                let reply = get(&daemon, "/large.txt", CODINGS[number % 2 * 2]).await;
                done.fetch_add(1, Ordering::SeqCst);
                let coding = reply.header("content-encoding").to_owned();
                let same = tokio::task::spawn_blocking(move || decoded(&coding, &reply.body) == large.as_bytes());
                assert!(same.await.unwrap(), "client {number}");
            })
        })
        .collect();
    let mut served = 0;
    while served < 20 {
        let reply = get(&daemon, "/small.txt", "gzip").await;
        assert_eq!(reply.text(), "small");
        served += 1;
    }
    assert!(done.load(Ordering::SeqCst) < CLIENTS, "all the large ones were sent before {served} small ones");
    for client in clients {
        client.await.unwrap();
    }
}
