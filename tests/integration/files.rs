//! Static files as a client on the wire sees them. The details of conditions, ranges and paths are held by tables in
//! `miwid/src/files`; here is what only a connection can show.

use std::{fs, os::unix::fs::FileExt, time::Duration};

use bytes::Bytes;
use harness::{Daemon, Reply};
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const CONFIG: &str = r#"
[server]
http_port = {port}

[backends."_"]
root = "{dir}/www"
"#;

async fn site(files: &str) -> Daemon {
    let daemon = Daemon::start(&format!("{CONFIG}\n[backends.\"_\".files]\n{files}\n")).await;
    // The root appears after the start, as it may.
    let www = daemon.dir().join("www");
    fs::create_dir_all(www.join("docs")).expect("the root is made");
    fs::write(www.join("hello.txt"), "hello, world").expect("a file is written");
    fs::write(www.join("docs/index.html"), "<p>docs</p>").expect("a file is written");
    daemon
}

async fn ask(daemon: &Daemon, method: Method, path: &str, lines: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    daemon.request(request.body(Bytes::new()).expect("the request is well formed")).await
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.headers.get(name).map_or("", |value| value.to_str().expect("the header is text"))
}

#[tokio::test]
async fn a_file_is_read_again_only_when_it_changed() {
    let daemon = site("cache_control = \"max-age=60\"").await;
    let reply = daemon.get("/hello.txt").await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello, world"[..]));
    assert_eq!(header(&reply, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&reply, "content-length"), "12");
    assert_ne!(header(&reply, "date"), "");
    let etag = header(&reply, "etag");
    let same = ask(&daemon, Method::GET, "/hello.txt", &[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.body.len(), header(&same, "etag")), (304, 0, etag));
    assert_eq!(header(&same, "cache-control"), "max-age=60");
    fs::write(daemon.dir().join("www/hello.txt"), "hello again").expect("the file is written");
    let changed = ask(&daemon, Method::GET, "/hello.txt", &[("if-none-match", etag)]).await;
    assert_eq!((changed.status, &changed.body[..]), (200, &b"hello again"[..]));
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let daemon = site("").await;
    let request = b"HEAD /hello.txt HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = daemon.raw(request).await;
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "{text}");
    assert!(text.contains("\r\ncontent-length: 12\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "nothing follows the head: {text}");
}

#[tokio::test]
async fn refusals_name_their_reason() {
    let daemon = site("").await;
    let check = async |method: Method, path: &str, status: u16, reason: &str| {
        let reply = ask(&daemon, method, path, &[]).await;
        assert_eq!((reply.status, header(&reply, "miwi-reason")), (status, reason), "{path}");
        reply
    };
    check(Method::GET, "/missing", 404, "not-found").await;
    check(Method::GET, "/.env", 404, "not-found").await;
    let refused = check(Method::DELETE, "/hello.txt", 405, "method").await;
    assert_eq!(header(&refused, "allow"), "GET, HEAD");
    let range = ask(&daemon, Method::GET, "/hello.txt", &[("range", "bytes=12-")]).await;
    assert_eq!((range.status, header(&range, "content-range")), (416, "bytes */12"));
}

#[tokio::test]
async fn directories_redirect_to_themselves_and_nowhere_else() {
    let daemon = site("").await;
    let moved = daemon.get("/docs?q=1").await;
    assert_eq!((moved.status, header(&moved, "location")), (301, "/docs/?q=1"));
    assert_eq!(&daemon.get("/docs/").await.body[..], b"<p>docs</p>");
    let answer = daemon.raw(b"GET //docs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(!text.contains("location: //"), "{text}");
}

#[tokio::test]
async fn no_spelling_of_a_path_leaves_the_root() {
    let daemon = site("").await;
    fs::write(daemon.dir().join("secret"), "the secret").expect("a file is written");
    std::os::unix::fs::symlink("../secret", daemon.dir().join("www/link")).expect("a link is made");
    let paths = [
        "/../secret",
        "/docs/../../secret",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/docs/..%5c..%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        "/..%00/secret",
        "//../secret",
        "/link",
    ];
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = daemon.raw(request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 4"), "{path}: {text}");
        assert!(!text.contains("the secret"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_range_beyond_four_gibibytes_is_served() {
    const SIZE: u64 = 5 << 30;
    let daemon = site("").await;
    let file = fs::File::create(daemon.dir().join("www/big.bin")).expect("a file is made");
    file.set_len(SIZE).expect("the file is sparse");
    file.write_all_at(b"the end", SIZE - 7).expect("its end is written");
    let reply = ask(&daemon, Method::GET, "/big.bin", &[("range", "bytes=-7")]).await;
    assert_eq!((reply.status, &reply.body[..]), (206, &b"the end"[..]));
    assert_eq!(header(&reply, "content-range"), format!("bytes {}-{}/{SIZE}", SIZE - 7, SIZE - 1));
}

#[tokio::test]
async fn a_file_truncated_while_it_is_sent_cuts_the_connection() {
    // More than the buffers of both sockets can take, so that the daemon is still sending when the file shrinks.
    const SIZE: u64 = 256 << 20;
    let daemon = site("").await;
    let file = fs::File::create(daemon.dir().join("www/shrinking.bin")).expect("a file is made");
    file.set_len(SIZE).expect("the file is sparse");
    let mut stream = TcpStream::connect(daemon.http()).await.expect("the daemon accepts");
    stream.write_all(b"GET /shrinking.bin HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("the request is sent");
    let mut buffer = vec![0; 64 << 10];
    let mut received = stream.read(&mut buffer).await.expect("the head arrives") as u64;
    assert!(buffer.starts_with(b"HTTP/1.1 200 "));
    file.set_len(1 << 20).expect("the file shrinks");
    // The end of the stream or a reset: either way the client knows. Waiting for ever would be the failure.
    let rest = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            received += read as u64;
        }
    };
    timeout(Duration::from_secs(30), rest).await.expect("the connection is cut, it does not hang");
    assert!(received < SIZE, "{received} bytes of a file that no longer has them");
    assert_eq!(daemon.get("/hello.txt").await.status, 200, "the daemon goes on");
}

#[tokio::test]
async fn a_listing_is_a_page_or_json() {
    let daemon = site("listing = true").await;
    let page = daemon.get("/").await;
    assert_eq!((page.status, header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    let json = ask(&daemon, Method::GET, "/", &[("accept", "application/json")]).await;
    let entries: serde_json::Value = serde_json::from_slice(&json.body).expect("the listing is JSON");
    assert_eq!(entries[0]["name"], "docs");
    assert_eq!(entries[1]["name"], "hello.txt");
}

#[tokio::test]
async fn pages_of_an_application_fall_back_to_it() {
    let daemon = site("spa_fallback = \"docs/index.html\"").await;
    let page = ask(&daemon, Method::GET, "/users/7", &[("accept", "text/html")]).await;
    assert_eq!((page.status, &page.body[..]), (200, &b"<p>docs</p>"[..]));
    let script = ask(&daemon, Method::GET, "/missing.js", &[("accept", "*/*")]).await;
    assert_eq!(script.status, 404);
}
