//! What the proxy speaks with its upstreams: TLS, HTTP/2, the PROXY protocol. The servers at the other end are nginx and
//! nghttpd, which were written by others.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use harness::{Daemon, Origin, free_port, skip, wait};
use http::{Request, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An authority, a server's certificate for 127.0.0.1 and `origin.test`, and a client's, made for one test.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let names = "subjectAltName=DNS:origin.test,IP:127.0.0.1";
        fs::write(dir.path().join("server.ext"), names).expect("writes");
        fs::write(dir.path().join("client.ext"), "extendedKeyUsage=clientAuth").expect("writes");
        let openssl = |args: &str| {
            let done = Command::new("openssl")
                .args(args.split(' '))
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(done.expect("openssl runs").success(), "openssl {args}");
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for ca in ["ca", "other"] {
            openssl(&format!("req -x509 {key} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"));
        }
        for leaf in ["server", "client"] {
            openssl(&format!("req {key} -keyout {leaf}.key -out {leaf}.csr -subj /CN={leaf}"));
            openssl(&format!(
                "x509 -req -in {leaf}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {leaf}.pem -days 2 -extfile {leaf}.ext"
            ));
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("openssl wrote it");
        fs::write(dir.path().join("both.pem"), format!("{}{}", read("client.pem"), read("client.key")))
            .expect("writes");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// nginx with one server block; `{port}` in it is the port that is returned.
struct Nginx {
    process: std::process::Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Nginx {
    async fn start(server: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;\n\
             uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\nserver {{\n{}\n}}\n}}\n",
            server.replace("{port}", &port.to_string()),
            dir = dir.path().display()
        );
        fs::write(dir.path().join("nginx.conf"), config).expect("writes");
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs");
        let nginx = Self { process, port, _dir: dir };
        wait::until(wait::SOON, "nginx listens", || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
            .await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn site(url: &str, lines: &str) -> String {
    format!("[backends.\"a.test\"]\nurl = \"{url}\"\n{lines}\n")
}

/// A server that tells what it saw of the connection.
fn secure(certificates: &Certificates, extra: &str) -> String {
    format!(
        "listen 127.0.0.1:{{port}} ssl http2; ssl_certificate {}; ssl_certificate_key {};\n{extra}\n\
         location / {{ return 200 \"$server_protocol sni=$ssl_server_name client=$ssl_client_verify host=$host reused=$ssl_session_reused\"; }}",
        certificates.path("server.pem"),
        certificates.path("server.key"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_verified_and_shown_a_certificate() {
    if !has("nginx") || !has("openssl") {
        skip!("nginx or openssl is missing");
    }
    let certificates = Certificates::make();
    let ask_client = format!("ssl_verify_client on; ssl_client_certificate {};", certificates.path("ca.pem"));
    let nginx = Nginx::start(&secure(&certificates, &ask_client)).await;
    let url = format!("https://127.0.0.1:{}", nginx.port);
    let (ca, both) = (certificates.path("ca.pem"), certificates.path("both.pem"));
    for (version, protocol) in [("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")] {
        let keys = format!("tls_ca = \"{ca}\"\ntls_client_cert = \"{both}\"\nupstream_http = \"{version}\"");
        let daemon = Daemon::start(&site(&url, &keys)).await;
        let reply = daemon.get_host("a.test", "/").await;
        assert_eq!(reply.status, 200, "{}", daemon.log());
        assert!(reply.text().starts_with(protocol) && reply.text().contains("client=SUCCESS"), "{}", reply.text());
        assert!(reply.text().contains("host=127.0.0.1"), "{}", reply.text());
    }
    // Without a certificate of its own the server refuses it.
    let daemon = Daemon::start(&site(&url, &format!("tls_ca = \"{ca}\""))).await;
    assert_eq!(daemon.get_host("a.test", "/").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_somebody_else_gets_no_request() {
    if !has("nginx") || !has("openssl") {
        skip!("nginx or openssl is missing");
    }
    let certificates = Certificates::make();
    let nginx = Nginx::start(&secure(&certificates, "")).await;
    let ca = certificates.path("ca.pem");
    let in_use = certificates.path("in-use.pem");
    fs::copy(certificates.path("other.pem"), &in_use).unwrap();
    let url = format!("https://127.0.0.1:{}", nginx.port);
    // The wrong authority, the system's, and the right one for a name that the certificate is not for.
    for (url, keys) in [
        (url.clone(), format!("tls_ca = \"{in_use}\"")),
        (url.clone(), String::new()),
        (format!("https://localhost:{}", nginx.port), format!("tls_ca = \"{ca}\"")),
    ] {
        let daemon = Daemon::start(&site(&url, &keys)).await;
        let reply = daemon.get_host("a.test", "/").await;
        assert_eq!((reply.status, reply.header("miwi-reason")), (502, "upstream-tls"), "{url} {keys}");
        assert!(daemon.log().contains("invalid peer certificate"), "the log says why: {}", daemon.log());
    }
    // The file changes, the configuration does not: a reload reads it again.
    let daemon = Daemon::start(&site(&url, &format!("tls_ca = \"{in_use}\""))).await;
    assert_eq!(daemon.get_host("a.test", "/").await.status, 502);
    fs::copy(&ca, &in_use).unwrap();
    assert_eq!(daemon.reload().await.status, 0);
    assert_eq!(daemon.get_host("a.test", "/").await.status, 200, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_authorities_are_asked_when_no_other_is_named() {
    if !has("nginx") || !has("openssl") {
        skip!("nginx or openssl is missing");
    }
    let certificates = Certificates::make();
    let nginx = Nginx::start(&secure(&certificates, "location /health { return 204; }")).await;
    let url = format!("https://127.0.0.1:{}", nginx.port);
    let builder = Daemon::builder(&site(&url, "health_check = \"/health\"\nhealth_expect = [204]"));
    let daemon = builder.env("SSL_CERT_FILE", certificates.path("ca.pem")).start().await;
    // Served at all only once its check, over TLS too, was good.
    let serves = || async { daemon.get_host("a.test", "/").await.status == 200 };
    wait::until(wait::SOON, "the check over TLS is good", serves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_certificates_are_judged_when_the_configuration_is_loaded() {
    for (content, complaint) in [
        (None, "cannot read"),
        (Some("nothing"), "there is no certificate in"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "ca.pem"),
    ] {
        let mut builder = Daemon::builder(&site("https://127.0.0.1:1", "tls_ca = \"ca.pem\""));
        if let Some(content) = content {
            builder = builder.file("ca.pem", content);
        }
        let told = builder.check(&[]).await;
        assert_ne!(told.status, 0, "{content:?}");
        assert!(told.all().contains(complaint) && told.all().contains("tls_ca"), "{}", told.all());
        assert!(told.all().contains("help: "), "{}", told.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_in_cleartext_carries_bodies_both_ways_over_few_connections() {
    if !has("nghttpd") {
        skip!("nghttpd is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big"), vec![b'b'; 5 << 20]).unwrap();
    let port = free_port();
    let mut nghttpd = nghttpd(dir.path(), port);
    wait::until(wait::SOON, "nghttpd listens", || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
        .await;
    let daemon = Daemon::start(&site(&format!("http://127.0.0.1:{port}"), "upstream_http = \"2\"")).await;
    let all = (0..40).map(|_| daemon.get_host("a.test", "/big"));
    for reply in futures_util::future::join_all(all).await {
        assert_eq!((reply.status, reply.body.len()), (200, 5 << 20));
    }
    let body = Bytes::from(vec![b'z'; 3 << 20]);
    let post = Request::post("/echo").header(header::HOST, "a.test").body(body.clone()).unwrap();
    assert_eq!(daemon.request(post).await.body, body);
    // The server goes and comes back: its connection is found dead, and a request costs nothing.
    let _ = (nghttpd.kill(), nghttpd.wait());
    let mut again = self::nghttpd(dir.path(), port);
    let answers = || async { daemon.get_host("a.test", "/big").await.status == 200 };
    wait::until(wait::SOON, "it is connected anew", answers).await;
    let _ = (again.kill(), again.wait());
}

fn nghttpd(dir: &Path, port: u16) -> std::process::Child {
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--echo-upload", "-a", "127.0.0.1", "-d"]).arg(dir).arg(port.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nghttpd runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_learns_the_client_by_the_proxy_protocol() {
    if !has("nginx") {
        skip!("nginx is missing");
    }
    let server =
        "listen 127.0.0.1:{port} proxy_protocol; location / { return 200 \"$proxy_protocol_addr $connection\"; }";
    let nginx = Nginx::start(server).await;
    for version in ["v1", "v2"] {
        let keys = format!("proxy_protocol = \"{version}\"\nhealth_check = \"/\"");
        let config = format!(
            "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{}",
            site(&format!("http://127.0.0.1:{}", nginx.port), &keys)
        );
        let daemon = Daemon::start(&config).await;
        let from = |client: &'static str| {
            let ask = Request::get("/").header(header::HOST, "a.test").header("x-forwarded-for", client);
            daemon.request(ask.body(Bytes::new()).unwrap())
        };
        wait::until(wait::SOON, "its check is good", || async { from("203.0.113.7").await.status == 200 }).await;
        let (first, second) = (from("203.0.113.7").await.text(), from("2001:db8::9").await.text());
        assert!(first.starts_with("203.0.113.7 ") && second.starts_with("2001:db8::9 "), "{first} {second}");
        assert_ne!(first.split(' ').nth(1), second.split(' ').nth(1), "no connection serves two clients");
    }
}

async fn spoken(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(daemon.http()).await.unwrap();
    let _ = client.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(wait::SOON, client.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_balancer_introduces_clients_and_nobody_else_does() {
    let origin = Origin::start("origin").await;
    let config = |trusted: &str| {
        format!("[server]\nproxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]\n{}", site(&origin.url(), ""))
    };
    let daemon = Daemon::start(&config("127.0.0.1")).await;
    let v1 = format!("PROXY TCP4 203.0.113.7 192.0.2.1 5555 80\r\n{GET}");
    assert!(spoken(&daemon, v1.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(origin.last().header("x-forwarded-for"), "203.0.113.7");
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 8, 192, 0, 2, 1, 0, 80, 0, 80]);
    v2.extend(GET.as_bytes());
    assert!(spoken(&daemon, &v2).await.starts_with("HTTP/1.1 200"));
    assert_eq!(origin.last().header("x-forwarded-for"), "203.0.113.8");
    assert!(spoken(&daemon, format!("PROXY UNKNOWN\r\n{GET}").as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(origin.last().header("x-forwarded-for"), "127.0.0.1");
    let before = origin.requests();
    assert_eq!(spoken(&daemon, GET.as_bytes()).await, "", "a trusted peer must introduce its client");
    assert_eq!(spoken(&daemon, format!("PROXY TCP4 x y 1 2\r\n{GET}").as_bytes()).await, "");
    assert_eq!(origin.requests(), before);
    // Somebody who is not trusted is served as ever, and cannot pretend.
    let daemon = Daemon::start(&config("192.0.2.9")).await;
    assert!(spoken(&daemon, GET.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let before = origin.requests();
    assert!(!spoken(&daemon, v1.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(origin.requests(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_trusted_is_nobody_to_send_a_proxy_header() {
    let told = Daemon::builder("[server]\nproxy_protocol = true\n").check(&[]).await;
    assert_ne!(told.status, 0);
    assert!(told.all().contains("trusted_proxies"), "{}", told.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_leads_to_itself_is_a_loop() {
    let lines = "preserve_host = true";
    for version in ["1.1", "2"] {
        let lines = format!("{lines}\nupstream_http = \"{version}\"");
        let daemon = Daemon::start(&site("http://127.0.0.1:{port}", &lines)).await;
        let reply = daemon.get_host("a.test", "/").await;
        assert_eq!((reply.status, reply.header("miwi-reason")), (508, "loop"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_knows_no_http2_is_an_error_and_not_a_hang() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    let daemon = Daemon::start(&site(&format!("http://127.0.0.1:{port}"), "upstream_http = \"2\"")).await;
    assert_eq!(daemon.get_host("a.test", "/").await.status, 502);
}

/// An origin over HTTP/2 that never tells the end of its content, but how long it is.
async fn without_end() -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let origin = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = http::Response::builder().header("content-length", "5").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        while connection.accept().await.is_some() {}
    });
    (port, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_whole_when_all_that_its_head_tells_of_has_come() {
    let logging =
        "\n[logging.access_log]\nenabled = true\npath = \"{dir}/access.log\"\nformat = \"json\"\nbuffer_size = 1\n";
    for fields in ["", "range: bytes=0-9\r\n"] {
        let (port, origin) = without_end().await;
        let config = format!("{}{logging}", site(&format!("http://127.0.0.1:{port}"), "upstream_http = \"2\""));
        let daemon = Daemon::start(&config).await;
        let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let read = tokio::time::timeout(wait::SOON, stream.read_buf(&mut answer)).await;
            assert_ne!(read.expect("in time").expect("an answer"), 0);
        }
        let record = wait::for_some(wait::SOON, "the record", async || {
            daemon.read("access.log").lines().next().map(str::to_owned)
        })
        .await;
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!((&record["status"], &record["aborted"]), (&200.into(), &false.into()), "{record}");
        drop(stream);
        drop(daemon);
        origin.abort();
    }
}
