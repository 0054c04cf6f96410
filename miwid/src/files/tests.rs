//! `Root::serve` over temporary directories: what a client sees of files, without a connection.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use config::{Files, Symlinks};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use tempfile::TempDir;

use super::{Cache, Root, Sought};
use crate::exchange::{Body, Failure};

struct Site {
    dir: TempDir,
    config: Files,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    async fn of(answer: Result<Response<Body>, Failure>, headers: &HeaderMap) -> Self {
        let (head, body) = answer.unwrap_or_else(|failure| failure.response(headers)).into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hello.txt"), "hello, world").unwrap();
        fs::create_dir_all(dir.path().join("docs/empty")).unwrap();
        fs::write(dir.path().join("docs/index.html"), "<p>docs</p>").unwrap();
        let config = Files {
            root: dir.path().to_owned(),
            index: vec!["index.html".to_owned()],
            listing: false,
            spa_fallback: None,
            precompressed: false,
            hidden: Vec::new(),
            cache_control: None,
            symlinks: Symlinks::Inside,
        };
        Self { dir, config }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn ask(&self, method: Method, uri: &str, lines: &[(&str, &str)]) -> Reply {
        let uri: Uri = uri.parse().unwrap();
        let path = uri.path().to_owned();
        self.ask_below(method, &uri, &path, lines).await
    }

    async fn ask_below(&self, method: Method, uri: &Uri, path: &str, lines: &[(&str, &str)]) -> Reply {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let root = Root::new(&self.config);
        let cache = Cache::eager();
        let asked = Sought { method: &method, uri, path, headers: &headers };
        let first = Reply::of(root.serve(&cache, &mut None, asked).await, &headers).await;
        // Found, then known, then known and read: the answer is the same, but for the boundary of several ranges.
        for _ in 0..2 {
            let again = Reply::of(root.serve(&cache, &mut None, asked).await, &headers).await;
            let several = first.status == 206 && first.header("content-type").starts_with("multipart/");
            assert_eq!(again.status, first.status);
            assert!(several || again.headers == first.headers, "{:?} {:?}", again.headers, first.headers);
            assert!(several || again.body == first.body);
        }
        first
    }

    async fn get(&self, uri: &str) -> Reply {
        self.ask(Method::GET, uri, &[]).await
    }

    async fn status(&self, uri: &str) -> u16 {
        self.get(uri).await.status
    }
}

#[tokio::test]
async fn a_file_is_served_with_its_validators() {
    let mut site = Site::new();
    site.config.cache_control = Some("max-age=60".to_owned());
    let reply = site.get("/hello.txt").await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello, world"[..]));
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(reply.header("content-length"), "12");
    assert_eq!(reply.header("accept-ranges"), "bytes");
    assert_eq!(reply.header("cache-control"), "max-age=60");
    let etag = reply.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert!(httpdate::parse_http_date(reply.header("last-modified")).is_ok());

    let head = site.ask(Method::HEAD, "/hello.txt", &[("range", "bytes=0-1")]).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "12"));
    assert_eq!(head.header("etag"), etag);

    let same = site.ask(Method::GET, "/hello.txt", &[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), etag);
    assert_eq!(same.header("last-modified"), reply.header("last-modified"));
    assert_eq!(same.header("cache-control"), "max-age=60");
    assert_eq!(same.header("content-length"), "");

    let failed = site.ask(Method::GET, "/hello.txt", &[("if-match", "\"other\"")]).await;
    assert_eq!((failed.status, failed.header("miwi-reason")), (412, "precondition"));
}

#[tokio::test]
async fn a_file_that_was_replaced_has_another_etag() {
    let site = Site::new();
    let before = site.get("/hello.txt").await.header("etag").to_owned();
    let modified = fs::metadata(site.path().join("hello.txt")).unwrap().modified().unwrap();
    fs::write(site.path().join("new"), "HELLO, WORLD").unwrap();
    // The same size and the same date, as a reproducible build would write it.
    fs::File::options().write(true).open(site.path().join("new")).unwrap().set_modified(modified).unwrap();
    fs::rename(site.path().join("new"), site.path().join("hello.txt")).unwrap();
    assert_ne!(site.get("/hello.txt").await.header("etag"), before);
}

#[tokio::test]
async fn ranges_are_answered_in_part() {
    let site = Site::new();
    let ask = async |range: &str| site.ask(Method::GET, "/hello.txt", &[("range", range)]).await;
    let one = ask("bytes=7-").await;
    assert_eq!((one.status, &one.body[..]), (206, &b"world"[..]));
    assert_eq!((one.header("content-range"), one.header("content-length")), ("bytes 7-11/12", "5"));
    let none = ask("bytes=12-").await;
    assert_eq!((none.status, none.header("content-range"), none.header("miwi-reason")), (416, "bytes */12", "range"));
    assert_eq!(ask("bytes=x").await.status, 200);
    let stale = site.ask(Method::GET, "/hello.txt", &[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await;
    assert_eq!((stale.status, stale.body.len()), (200, 12));
    let twice = site.ask(Method::GET, "/hello.txt", &[("range", "bytes=0-1"), ("range", "bytes=2-3")]).await;
    assert_eq!(twice.status, 200);

    fs::write(site.path().join("long"), vec![b'x'; 1000]).unwrap();
    let several = site.ask(Method::GET, "/long", &[("range", "bytes=0-1,-2")]).await;
    assert_eq!(several.status, 206);
    assert!(several.header("content-type").starts_with("multipart/byteranges; boundary="));
    assert_eq!(several.header("content-length"), several.body.len().to_string());
    let text = String::from_utf8_lossy(&several.body);
    assert!(text.contains("Content-Range: bytes 0-1/1000\r\n\r\nxx\r\n"), "{text}");
    assert!(text.contains("Content-Range: bytes 998-999/1000\r\n\r\nxx\r\n"), "{text}");
}

#[tokio::test]
async fn a_file_over_four_gibibytes_is_served_to_its_last_byte() {
    const SIZE: u64 = 5 << 30;
    let site = Site::new();
    let file = fs::File::create(site.path().join("big.bin")).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(b"the end", SIZE - 7).unwrap();
    let head = site.ask(Method::HEAD, "/big.bin", &[]).await;
    assert_eq!(head.header("content-length"), SIZE.to_string());
    let tail = site.ask(Method::GET, "/big.bin", &[("range", "bytes=-7")]).await;
    assert_eq!((tail.status, &tail.body[..]), (206, &b"the end"[..]));
    assert_eq!(tail.header("content-range"), format!("bytes {}-{}/{SIZE}", SIZE - 7, SIZE - 1));
    let late = site.ask(Method::GET, "/big.bin", &[("range", "bytes=5368509120-")]).await;
    assert_eq!((late.status, late.body.len()), (206, 200_000));
    let uri = Uri::from_static("/big.bin");
    let asked = Sought { method: &Method::GET, uri: &uri, path: "/big.bin", headers: &HeaderMap::new() };
    let response = Root::new(&site.config).serve(&Cache::default(), &mut None, asked).await;
    let whole = response.unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(matches!(whole.body(), Body::Stream(_)));
    assert_eq!(whole.body().size_hint().exact(), Some(SIZE));
}

#[tokio::test]
async fn other_methods_are_told_what_is_allowed() {
    let site = Site::new();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let reply = site.ask(method, "/hello.txt", &[]).await;
        assert_eq!((reply.status, reply.header("allow"), reply.header("miwi-reason")), (405, "GET, HEAD", "method"));
    }
    let options = site.ask(Method::OPTIONS, "/hello.txt", &[]).await;
    assert_eq!((options.status, options.header("allow"), options.body.len()), (204, "GET, HEAD", 0));
}

#[tokio::test]
async fn directories_lead_to_their_index() {
    let site = Site::new();
    let reply = site.get("/docs/").await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"<p>docs</p>"[..]));
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    let moved = async |uri: &str| {
        let reply = site.get(uri).await;
        (reply.status, reply.header("location").to_owned())
    };
    assert_eq!(moved("/docs?a=1&b=//x").await, (301, "/docs/?a=1&b=//x".to_owned()));
    // Not `//docs/`, which a browser takes for the host `docs`.
    assert_eq!(moved("//docs").await, (301, "/docs/".to_owned()));
    assert_eq!(moved("///docs?q").await, (301, "/docs/?q".to_owned()));
    // Below a route with `strip_prefix` the client must still be sent to its own path.
    let uri = Uri::from_static("/help/docs?x");
    let below = site.ask_below(Method::GET, &uri, "/docs", &[]).await;
    assert_eq!((below.status, below.header("location")), (301, "/help/docs/?x"));
    let uri = Uri::from_static("/help");
    let bare = site.ask_below(Method::GET, &uri, "/", &[]).await;
    assert_eq!((bare.status, bare.header("location")), (301, "/help/"));
    assert_eq!(site.status("/docs/empty/").await, 403);
    assert_eq!(site.status("/hello.txt/").await, 404);
    assert_eq!(site.status("/missing").await, 404);
    assert_eq!(site.status("/hello.txt/below").await, 404);
}

#[tokio::test]
async fn nothing_outside_or_hidden_is_served() {
    let mut site = Site::new();
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outer.path().join("secret"), site.path().join("link")).unwrap();
    fs::create_dir_all(site.path().join(".well-known")).unwrap();
    fs::write(site.path().join(".well-known/security.txt"), "contact").unwrap();
    fs::write(site.path().join(".env"), "KEY=1").unwrap();
    fs::write(site.path().join("dump.sql"), "rows").unwrap();
    site.config.hidden = vec!["*.sql".to_owned()];
    for uri in ["/link", "/.env", "/dump.sql", "/%2e%2e/etc/passwd", "/docs/..%2fhello.txt", "/docs%5c..%5chello.txt"] {
        assert_eq!(site.status(uri).await, 404, "{uri}");
    }
    assert_eq!(site.status("/.well-known/security.txt").await, 200);
    // Nor does the fallback answer for a name that is hidden: it would look as if there were something.
    site.config.spa_fallback = Some("docs/index.html".to_owned());
    let page = [("accept", "text/html")];
    assert_eq!(site.ask(Method::GET, "/.env", &page).await.status, 404);
    assert_eq!(site.ask(Method::GET, "/dump.sql", &page).await.status, 404);
    for uri in ["/hello.txt%00.html", "/%zz", "/%"] {
        assert_eq!(site.status(uri).await, 400, "{uri}");
    }
}

#[tokio::test]
async fn an_unreadable_file_is_forbidden() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    let path = site.path().join("hello.txt");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    assert_eq!(site.status("/hello.txt").await, 403);
}

#[tokio::test]
async fn a_page_that_is_not_there_falls_back_to_the_application() {
    let mut site = Site::new();
    site.config.spa_fallback = Some("/docs/index.html".to_owned());
    let check = async |uri: &str, accept: &str, expected: u16| {
        let reply = site.ask(Method::GET, uri, &[("accept", accept)]).await;
        assert_eq!(reply.status, expected, "{uri} {accept}");
        if expected == 200 {
            assert_eq!(&reply.body[..], b"<p>docs</p>", "{uri} {accept}");
            assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
            assert_eq!(reply.header("vary"), "accept");
        }
    };
    check("/users/7", "text/html,*/*;q=0.8", 200).await;
    check("/users/john.doe", "text/html,*/*;q=0.8", 200).await;
    check("/users/7", "*/*", 200).await;
    check("/", "text/html", 200).await;
    check("/app.js", "*/*", 404).await;
    check("/api/users", "application/json", 404).await;
    check("/users/%zz", "text/html", 400).await;
    assert_eq!(site.ask(Method::POST, "/users/7", &[("accept", "text/html")]).await.status, 405);
    assert_eq!(site.ask(Method::HEAD, "/users/7", &[("accept", "text/html")]).await.status, 200);
}

#[tokio::test]
async fn a_listing_shows_what_may_be_asked_for() {
    let mut site = Site::new();
    site.config.listing = true;
    site.config.hidden = vec!["*.sql".to_owned()];
    fs::create_dir(site.path().join("zoo")).unwrap();
    for name in [".env", "dump.sql", "a b.txt"] {
        fs::write(site.path().join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", site.path().join("outside")).unwrap();
    std::os::unix::fs::symlink("hello.txt", site.path().join("inside")).unwrap();
    let json = site.ask(Method::GET, "/", &[("accept", "application/json")]).await;
    assert_eq!((json.status, json.header("content-type")), (200, "application/json; charset=utf-8"));
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&json.body).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["docs", "zoo", "a b.txt", "hello.txt", "inside"]);
    let page = site.get("/").await;
    assert_eq!((page.status, page.header("vary")), (200, "accept"));
    assert!(String::from_utf8_lossy(&page.body).contains("href=\"./a%20b.txt\""));
    let head = site.ask(Method::HEAD, "/", &[]).await;
    assert_eq!((head.body.len(), head.header("content-length")), (0, page.header("content-length")));
    assert_eq!(&site.get("/docs/").await.body[..], b"<p>docs</p>");
}

#[tokio::test]
async fn empty_and_streamed_files_have_their_exact_length() {
    let site = Site::new();
    fs::write(site.path().join("empty.txt"), "").unwrap();
    let empty = site.get("/empty.txt").await;
    assert_eq!((empty.status, empty.header("content-length"), empty.body.len()), (200, "0", 0));
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(site.path().join("large.bin"), &bytes).unwrap();
    let large = site.get("/large.bin").await;
    assert_eq!(large.header("content-length"), "1000000");
    assert!(large.body == bytes, "the bytes of the file arrive as they are");
}
