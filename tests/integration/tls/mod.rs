//! TLS as clients meet it: names, versions, groups, resumption, client certificates, and certificates that change.

mod certificates;
pub(crate) mod client;
mod clients;
mod kernel;
mod scanners;

use std::process::Stdio;

use client::{Authority, Wants, ask, client, connect, status};
use harness::{Builder, Daemon, Output};
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// HTTPS on `{port2}` with the global certificate in `cert.pem`.
fn config(ssl: &str, sites: &str) -> String {
    format!(
        "[server]\nhttps_port = {{port2}}\n[ssl]\ncert = \"{{dir}}/cert.pem\"\nkey = \"{{dir}}/key.pem\"\n{ssl}\n{sites}"
    )
}

fn site(host: &str) -> String {
    format!("[backends.\"{host}\"]\nrespond = {{ status = 200, body = \"{host}\" }}\n")
}

fn with(config: &str, authority: &Authority, names: &[&str]) -> Builder {
    let pair = authority.issue(names);
    Daemon::builder(config).file("cert.pem", &pair.cert).file("key.pem", &pair.key)
}

async fn openssl(daemon: &Daemon, name: &str, args: &[&str]) -> Output {
    let output = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &daemon.address(2).to_string(), "-servername", name])
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(harness::wait::SOON, output).await.expect("openssl ends").expect("openssl runs");
    Output::of(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_offers_only_the_hybrid_group_connects() {
    let authority = Authority::new();
    let daemon = with(&config("", &site("a.test")), &authority, &["a.test"]).start().await;
    let wants = Wants { only_group: Some(NamedGroup::X25519MLKEM768), ..Wants::default() };
    let mut stream = connect(daemon.address(2), "a.test", &client(&authority.pem, &wants)).await.unwrap();
    assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert!(ask(&mut stream, "a.test").await.unwrap().ends_with("a.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tls_1_2_and_1_3_are_spoken_and_1_3_alone_if_so_wished() {
    let authority = Authority::new();
    let strict = "[backends.\"strict.test\"]\nrespond = { status = 200, body = \"x\" }\n[backends.\"strict.test\".ssl]\nmin_version = \"1.3\"\n";
    let sites = format!("{}{strict}", site("a.test"));
    let daemon = with(&config("", &sites), &authority, &["a.test", "strict.test"]).start().await;
    let weak = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    for (name, args, works) in [
        ("a.test", &["-tls1_2"][..], true),
        ("a.test", &["-tls1_3"], true),
        ("a.test", &weak, false),
        ("a.test", &["-tls1_2", "-cipher", "AES128-SHA"], false),
        ("strict.test", &["-tls1_2"], false),
        ("strict.test", &["-tls1_3"], true),
    ] {
        let said = openssl(&daemon, name, args).await;
        assert_eq!(said.status == 0, works, "{name} {args:?}: {said:?}");
    }
    let old = client(&authority.pem, &Wants { only_tls12: true, ..Wants::default() });
    assert_eq!(
        status(daemon.address(2), "a.test", "strict.test", &old).await.unwrap(),
        421,
        "by another name's version"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_negotiated_and_none_is_http_1() {
    let authority = Authority::new();
    let daemon = with(&config("", &site("a.test")), &authority, &["a.test"]).start().await;
    for (offers, chosen) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let config = client(&authority.pem, &Wants { alpn: offers, ..Wants::default() });
        let mut stream = connect(daemon.address(2), "a.test", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offers:?}");
        if chosen != Some("h2") {
            assert!(ask(&mut stream, "a.test").await.unwrap().starts_with("HTTP/1.1 200"));
        }
    }
    let strange = client(&authority.pem, &Wants { alpn: &["spdy/1"], ..Wants::default() });
    assert!(connect(daemon.address(2), "a.test", &strange).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_exact_or_one_level_and_strangers_are_refused() {
    let authority = Authority::new();
    let sites = format!("{}{}", site("a.test"), site("*.w.test"));
    let names = ["a.test", "*.w.test", "stranger.test", "127.0.0.1"];
    let daemon = with(&config("", &sites), &authority, &names).start().await;
    let plain = client(&authority.pem, &Wants::default());
    let at = daemon.address(2);
    assert_eq!(status(at, "A.test", "a.test", &plain).await.unwrap(), 200, "names have no case");
    assert_eq!(status(at, "x.w.test", "x.w.test", &plain).await.unwrap(), 200);
    assert_eq!(status(at, "127.0.0.1", "a.test", &plain).await.unwrap(), 200, "no name gets the global certificate");
    for stranger in ["stranger.test", "x.y.w.test", "w.test"] {
        let refused = connect(at, stranger, &plain).await.unwrap_err().to_string();
        assert!(refused.contains("UnrecognisedName") || refused.contains("UnrecognizedName"), "{refused}");
    }
    let daemon = with(&config("unknown_sni = \"default\"", &sites), &authority, &names).start().await;
    assert_eq!(status(daemon.address(2), "stranger.test", "stranger.test", &plain).await.unwrap(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let authority = Authority::new();
    let other = authority.issue(&["b.test"]);
    let sites = format!(
        "{}{}{}[backends.\"b.test\".ssl]\ncert = \"{{dir}}/b.pem\"\nkey = \"{{dir}}/b.key\"\n",
        site("a.test"),
        site("a2.test"),
        site("b.test")
    );
    let daemon = with(&config("", &sites), &authority, &["a.test", "a2.test"])
        .file("b.pem", &other.cert)
        .file("b.key", &other.key)
        .start()
        .await;
    let plain = client(&authority.pem, &Wants::default());
    let mut stream = connect(daemon.address(2), "a.test", &plain).await.unwrap();
    for (host, expected) in [("a.test", "200"), ("b.test", "421"), ("a2.test", "200"), ("nobody.test", "421")] {
        let answer = ask(&mut stream, host).await.unwrap();
        assert_eq!(&answer[9..12], expected, "{host}: {answer}");
        assert_eq!(answer.contains("miwi-reason: misdirected"), expected == "421", "{answer}");
    }
    assert_eq!(status(daemon.address(2), "b.test", "b.test", &plain).await.unwrap(), 200);
}

/// An end that is not announced could be anybody's (RFC 8446, 6.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_last_answer_is_followed_by_a_goodbye() {
    let authority = Authority::new();
    let daemon = with(&config("", &site("a.test")), &authority, &["a.test"]).start().await;
    let plain = client(&authority.pem, &Wants::default());
    for before in ["", "\r\n"] {
        let mut stream = connect(daemon.address(2), "a.test", &plain).await.unwrap();
        stream.write_all(format!("{before}GET / HTTP/1.1\r\nhost: a b\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(harness::wait::SOON, stream.read_to_end(&mut answer)).await.expect("it ends");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            read.is_ok() && answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"),
            "{read:?} {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_also_after_a_reload() {
    let authority = Authority::new();
    let text = config("", &site("a.test"));
    let daemon = with(&text, &authority, &["a.test"]).start().await;
    for only_tls12 in [false, true] {
        let client = client(&authority.pem, &Wants { only_tls12, ..Wants::default() });
        for (round, expected) in
            [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed].iter().enumerate()
        {
            let mut stream = connect(daemon.address(2), "a.test", &client).await.unwrap();
            ask(&mut stream, "a.test").await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind().as_ref(), Some(expected), "1.2: {only_tls12}, {round}");
            if round == 1 {
                daemon.rewrite_config(&format!("{text}{}", site(if only_tls12 { "b.test" } else { "c.test" })));
                daemon.ctl_ok(&["reload"]).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_ends_is_cut_and_disturbs_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new();
    let config = config("", &site("a.test")).replace("[server]", "[server]\nrequest_timeout = \"2s\"\nworkers = 1");
    let daemon = with(&config, &authority, &["a.test"]).start().await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = tokio::net::TcpStream::connect(daemon.address(2)).await.unwrap();
        stream.write_all(&[22, 3, 1, 2]).await.unwrap();
        slow.push(stream);
    }
    let plain = client(&authority.pem, &Wants::default());
    assert_eq!(status(daemon.address(2), "a.test", "a.test", &plain).await.unwrap(), 200);
    for mut stream in slow {
        let end = tokio::time::timeout(harness::wait::SOON, stream.read(&mut [0; 64])).await.expect("it is cut");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_setting_that_moves_it() {
    let text = "[server]\nhttps_port = {port2}\nenable_https = true\n[ssl]\nissuer = \"local\"\n";
    for kind in ["tcp", "udp"] {
        let builder = Daemon::builder(&format!("{text}{}", site("a.test")));
        let address = ("127.0.0.1", builder.port(2));
        let _tcp = (kind == "tcp").then(|| std::net::TcpListener::bind(address).unwrap());
        let _udp = (kind == "udp").then(|| std::net::UdpSocket::bind(address).unwrap());
        let refusal = builder.refusal().await;
        assert_eq!(refusal.code, Some(8), "{kind}: {refusal:?}");
        assert!(refusal.stderr.contains("hint: choose another port: miwid --set server.https_port="), "{refusal:?}");
    }
}
