//! Client certificates: who is let in, and that there is no way around.

use harness::{Builder, Daemon};
use rustls::HandshakeKind;

use super::{Authority, Wants, ask, client, config, connect, site, status, with};

fn asking(host: &str, how: &str) -> String {
    format!("{}[backends.\"{host}\".ssl]\nclient_auth = \"{how}\"\nclient_ca = \"{{dir}}/clients.pem\"\n", site(host))
}

const HOSTS: [&str; 3] = ["open.test", "request.test", "require.test"];

/// One site of each kind, all under one certificate.
fn daemon(servers: &Authority, clients: &Authority) -> Builder {
    let sites = format!("{}{}{}", site(HOSTS[0]), asking(HOSTS[1], "request"), asking(HOSTS[2], "require"));
    with(&config("", &sites), servers, &HOSTS).file("clients.pem", &clients.pem)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_per_site() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let daemon = daemon(&servers, &clients).start().await;
    let (good, bad) = (clients.issue(&["me"]), servers.issue(&["me"]));
    for (host, shows, let_in) in [
        ("open.test", None, true),
        ("open.test", Some(&good), true),
        ("request.test", None, true),
        ("request.test", Some(&good), true),
        ("request.test", Some(&bad), false),
        ("require.test", None, false),
        ("require.test", Some(&good), true),
        ("require.test", Some(&bad), false),
    ] {
        for only_tls12 in [false, true] {
            let config = client(&servers.pem, &Wants { shows, only_tls12, ..Wants::default() });
            let answered = status(daemon.address(2), host, host, &config).await;
            assert_eq!(answered.is_ok_and(|it| it == 200), let_in, "{host} {} {only_tls12}", shows.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_host_leads_to_a_site_that_requires_a_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let daemon = daemon(&servers, &clients).start().await;
    let good = clients.issue(&["me"]);
    for shows in [None, Some(&good)] {
        let config = client(&servers.pem, &Wants { shows, ..Wants::default() });
        for name in ["open.test", "request.test"] {
            assert_eq!(status(daemon.address(2), name, "require.test", &config).await.unwrap(), 421, "{name}");
        }
    }
    let plain = daemon.get_host("require.test", "/").await;
    assert_eq!((plain.status, plain.header("miwi-reason")), (403, "client-certificate"), "nor does plain HTTP");
    assert_eq!(daemon.get_host("open.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_lax_site_opens_no_strict_one() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let daemon = daemon(&servers, &clients).start().await;
    for only_tls12 in [false, true] {
        for lax in ["open.test", "request.test"] {
            // Its store offers the session of the first site to the second.
            let config = client(&servers.pem, &Wants { only_tls12, ..Wants::default() });
            assert_eq!(status(daemon.address(2), lax, lax, &config).await.unwrap(), 200);
            let strict = status(daemon.address(2), "require.test", "require.test", &config).await;
            assert!(strict.is_err(), "{lax}: {strict:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_before_certificates_were_required_is_worth_nothing() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let lax = config("", &site("a.test"));
    let daemon: Daemon = with(&lax, &servers, &["a.test"]).file("clients.pem", &clients.pem).start().await;
    let plain = client(&servers.pem, &Wants::default());
    let mut before = connect(daemon.address(2), "a.test", &plain).await.unwrap();
    assert!(ask(&mut before, "a.test").await.unwrap().starts_with("HTTP/1.1 200"));
    let mut again = connect(daemon.address(2), "a.test", &plain).await.unwrap();
    assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "there is a session to misuse");
    assert!(ask(&mut again, "a.test").await.is_ok());
    daemon.rewrite_config(&config("", &asking("a.test", "require")));
    daemon.ctl_ok(&["reload"]).await;
    let answer = ask(&mut before, "a.test").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "an open connection made no promise: {answer}");
    assert!(status(daemon.address(2), "a.test", "a.test", &plain).await.is_err());
    let mine = clients.issue(&["me"]);
    let known = client(&servers.pem, &Wants { shows: Some(&mine), ..Wants::default() });
    assert_eq!(status(daemon.address(2), "a.test", "a.test", &known).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn required_certificates_without_https_are_refused() {
    let text = format!("[server]\nenable_https = false\n{}", asking("a.test", "require"));
    let refusal = Daemon::builder(&text).file("clients.pem", &Authority::new().pem).refusal().await;
    assert_eq!(refusal.code, Some(6), "{refusal:?}");
    assert!(refusal.stderr.contains("client certificates are required, but HTTPS is off"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_is_not_offered_where_client_certificates_are_asked_for() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let daemon = daemon(&servers, &clients).start().await;
    let anybody = client(&servers.pem, &Wants::default());
    for (host, offered) in [("open.test", true), ("request.test", false)] {
        let mut stream = connect(daemon.address(2), host, &anybody).await.unwrap();
        let answer = ask(&mut stream, host).await.unwrap().to_ascii_lowercase();
        assert_eq!(answer.contains("\r\nalt-svc: h3="), offered, "{answer}");
    }
}
