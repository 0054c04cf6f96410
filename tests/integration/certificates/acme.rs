//! ACME with Pebble, the authority that Let's Encrypt tests with: http-01, in front of redirects, with its refused nonces.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use harness::{Builder, Daemon, cloudflare::Cloudflare, free_port, request, skip, wait};
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::world::{DAY, Leaf, connect, handshake};

/// Pebble and the name server that it asks; both end with this.
struct Pebble {
    dir: TempDir,
    port: u16,
    names: u16,
    _servers: [Child; 2],
}

impl Pebble {
    /// For a daemon with this builder's ports; `None` where Pebble is not installed.
    async fn start(builder: &Builder, extra: serde_json::Value) -> Option<Self> {
        Self::asking(builder, extra, None).await
    }

    /// With another name server.
    async fn asking(builder: &Builder, extra: serde_json::Value, resolver: Option<SocketAddr>) -> Option<Self> {
        let found = |it: &str| Path::new("/usr/bin").join(it).exists();
        if !found("pebble") || !found("pebble-challtestsrv") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (port, management, dns, names) = (free_port(), free_port(), free_port(), free_port());
        own_certificate(dir.path());
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.path().join("cert.pem"),
            "privateKey": dir.path().join("key.pem"),
            "httpPort": builder.port(1),
            "tlsPort": builder.port(2),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        });
        config.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
        std::fs::write(dir.path().join("pebble.json"), json!({ "pebble": config }).to_string()).unwrap();
        let own = format!("127.0.0.1:{dns}");
        let resolver = resolver.map_or_else(|| own.clone(), |it| it.to_string());
        let dns = server("pebble-challtestsrv", &dir)
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &own, "-management", &format!("127.0.0.1:{names}")])
            .spawn()
            .unwrap();
        let pebble = server("pebble", &dir)
            .args(["-config", "pebble.json", "-dnsserver", &resolver])
            // One nonce of twenty is refused, which is what Pebble does unasked.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "0")])
            .spawn()
            .unwrap();
        for port in [port, names] {
            wait::until(wait::SOON, "it listens", async || harness::listening_on(port)).await;
        }
        Some(Self { dir, port, names, _servers: [dns, pebble] })
    }

    fn acme(&self) -> String {
        let ca = self.dir.path().join("ca.pem");
        format!(
            "[acme]\ndirectory = \"https://127.0.0.1:{}/dir\"\ncontact = [\"admin@example.com\"]\nca_file = \"{}\"\n",
            self.port,
            ca.display()
        )
    }

    /// Where the authority looks for this name.
    async fn point(&self, host: &str, address: &str) {
        let body = json!({ "host": host, "addresses": [address] }).to_string();
        let asked = Request::post("/add-a").header("host", "localhost").body(Bytes::from(body)).unwrap();
        let answered = request(([127, 0, 0, 1], self.names).into(), asked).await.unwrap();
        assert_eq!(answered.status, 200);
    }
}

fn server(name: &str, dir: &TempDir) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = Command::new(PathBuf::from("/usr/bin").join(name));
    command
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    command
}

/// For Pebble's own interface.
fn own_certificate(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

const SITES: &str = "[backends.\"a.example.com\"]\nrespond = { status = 200, body = \"a\" }\n";

fn config(storage: &Path) -> String {
    format!(
        "include = [\"acme.toml\"]\n[server]\nhttps_port = {{port2}}\nredirect_https = true\n[ssl]\nauto_cert = true\n\
         domains = [\"a.example.com\", \"b.example.com\"]\nstorage = \"{}/store\"\n{SITES}",
        storage.display()
    )
}

/// The builder first: Pebble must know the daemon's port.
fn builder(storage: &Path) -> Builder {
    Daemon::builder(&config(storage)).env("MIWID_TEST_CLOCK", storage.join("clock")).env("RUST_LOG", "debug")
}

async fn shown(daemon: &Daemon, host: &str) -> Leaf {
    let stream = handshake(daemon, host).await.unwrap();
    Leaf::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

async fn shows_another(daemon: &Daemon, host: &str, old: Option<&Leaf>) -> Leaf {
    let is_new = |it: &Leaf| it.issuer.contains("Pebble") && Some(it) != old;
    wait::for_value(wait::LATER, "the certificate is there", || shown(daemon, host), is_new).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_comes_by_http_01_and_is_renewed_by_the_same_account() {
    let storage = tempfile::tempdir().unwrap();
    let builder = builder(storage.path());
    let five_days = json!({ "certificateValidityPeriod": 432_000 });
    let Some(pebble) = Pebble::start(&builder, five_days).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &pebble.acme()).start().await;
    let first = shows_another(&daemon, "a.example.com", None).await;
    assert_eq!(shown(&daemon, "b.example.com").await, first);
    let stream = handshake(&daemon, "a.example.com").await.unwrap();
    assert!(stream.get_ref().1.peer_certificates().unwrap().len() >= 2, "clients get the chain");
    let listed = daemon.ctl_json(&["cert", "show", "default"]).await;
    assert_eq!((&listed["issuer"], &listed["state"]), (&"acme".into(), &"ready".into()), "{listed:#}");
    let unknown = daemon.get_host("a.example.com", "/.well-known/acme-challenge/nobody-asked").await;
    assert_eq!((unknown.status, unknown.text()), (200.try_into().unwrap(), "a".to_owned()), "the site's business");
    assert_eq!(daemon.get_host("a.example.com", "/").await.status, 308);

    // Who is served nothing else still gets to see the proof.
    daemon.rewrite_config(&format!("{}[security]\ndeny = [\"0.0.0.0/0\"]\n", config(storage.path())));
    assert_eq!(daemon.reload().await.status, 0);
    assert_eq!(daemon.get_host("a.example.com", "/").await.status, 403);
    std::fs::write(storage.path().join("clock"), (DAY * 3).as_secs().to_string()).unwrap();
    shows_another(&daemon, "a.example.com", Some(&first)).await;
    let accounts: Vec<_> = std::fs::read_dir(storage.path().join("store/accounts")).unwrap().collect();
    assert_eq!(accounts.len(), 1);
    let log = std::fs::read_to_string(pebble.dir.path().join("log")).unwrap();
    assert!(log.contains("There are now 1 accounts") && !log.contains("There are now 2 accounts"), "{log}");
    assert!(!daemon.log().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_authority_could_not_find_is_told_with_its_words() {
    let storage = tempfile::tempdir().unwrap();
    let builder = builder(storage.path());
    let Some(pebble) = Pebble::start(&builder, json!({})).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &pebble.acme()).start().await;
    pebble.point("lost.example.com", "127.0.0.9").await;
    let said = daemon.ctl_json(&["cert", "request", "lost.example.com"]).await["error"].clone();
    assert_eq!((&said["code"], &said["exit"]), (&"config".into(), &6.into()), "{said:#}");
    assert!(said["message"].as_str().unwrap().contains("127.0.0.9"), "{said:#}");
    assert!(said["hint"].as_str().unwrap().contains("port 80"), "{said:#}");
    let said = daemon.ctl_json(&["cert", "request", "*.example.com"]).await["error"].clone();
    assert!(said["message"].as_str().unwrap().contains("dns-01"), "{said:#}");
    assert_eq!(daemon.ctl(&["cert", "request", "c.example.com"]).await.status, 0);
    assert!(shown(&daemon, "c.example.com").await.issuer.contains("Pebble"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_elsewhere_is_bound() {
    let storage = tempfile::tempdir().unwrap();
    let builder = builder(storage.path());
    let key = "c2VjcmV0LWtleS1vZi1hLXRlc3QtdGhhdC1pcy1sb25nLWVub3VnaA";
    let bound = json!({ "externalAccountBindingRequired": true, "externalAccountMACKeys": { "kid-1": key } });
    let Some(pebble) = Pebble::start(&builder, bound).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &pebble.acme()).start().await;
    wait::until(wait::LATER, "the authority wants more", async || {
        daemon.ctl_json(&["cert", "show", "default"]).await["last_error"]
            .to_string()
            .contains("externalAccountRequired")
    })
    .await;
    daemon.write("acme.toml", &format!("{}[acme.eab]\nkey_id = \"kid-1\"\nhmac_key = \"{key}\"\n", pebble.acme()));
    assert_eq!(daemon.reload().await.status, 0);
    std::fs::write(storage.path().join("clock"), Duration::from_secs(3600).as_secs().to_string()).unwrap();
    shows_another(&daemon, "a.example.com", None).await;
    let said = format!("{}{}", daemon.log(), daemon.ctl(&["config", "show"]).await.all());
    assert!(!said.contains(key), "the key is a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_comes_by_tls_alpn_01_and_only_authorities_see_the_proof() {
    let storage = tempfile::tempdir().unwrap();
    let builder = builder(storage.path());
    // The authority finds nothing over HTTP.
    let Some(pebble) = Pebble::start(&builder, json!({ "httpPort": free_port() })).await else {
        skip!("pebble is not installed")
    };
    let acme = format!("{}challenge = \"tls-alpn-01\"\n", pebble.acme());
    let daemon = builder.file("acme.toml", &acme).start().await;
    let leaf = shows_another(&daemon, "a.example.com", None).await;
    assert_eq!(shown(&daemon, "b.example.com").await, leaf);
    let refused = connect(&daemon, "a.example.com", &["acme-tls/1"]).await;
    assert!(refused.is_err(), "nobody has asked for a proof now");
    let said = daemon.ctl_json(&["cert", "request", "*.example.com"]).await["error"].clone();
    assert_eq!(said["code"], "config", "{said:#}");
}

// F46
#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_comes_by_dns_01_and_leaves_no_record_behind() {
    let storage = tempfile::tempdir().unwrap();
    let double = Cloudflare::start().await;
    let names = double.nameserver().await;
    let cloudflare = format!("[cloudflare]\napi_token = \"{}\"\napi_base = \"{}\"\n", Cloudflare::TOKEN, double.base());
    std::fs::write(storage.path().join("api-ca.pem"), double.ca()).unwrap();
    let builder = builder(storage.path()).env("SSL_CERT_FILE", storage.path().join("api-ca.pem"));
    let Some(pebble) = Pebble::asking(&builder, json!({}), Some(names)).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &format!("{}{cloudflare}", pebble.acme())).start().await;
    let ask = async || daemon.ctl(&["cert", "request", "--issuer", "acme", "*.example.net", "example.net"]).await;
    let said = ask().await;
    assert_eq!(said.status, 0, "{said:?}\n{}", daemon.log());
    assert!(shown(&daemon, "any.example.net").await.issuer.contains("Pebble"));
    assert!(shown(&daemon, "example.net").await.issuer.contains("Pebble"));
    assert_eq!((double.records(), double.count("POST", "/zones")), (vec![], 2));
    assert_eq!(double.violations(), [""; 0]);
}

// F46
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_authority_never_sees_is_taken_away_again() {
    let storage = tempfile::tempdir().unwrap();
    let double = Cloudflare::start().await;
    let cloudflare = format!("[cloudflare]\napi_token = \"{}\"\napi_base = \"{}\"\n", Cloudflare::TOKEN, double.base());
    std::fs::write(storage.path().join("api-ca.pem"), double.ca()).unwrap();
    let builder = builder(storage.path()).env("SSL_CERT_FILE", storage.path().join("api-ca.pem"));
    // It asks name servers that know nothing of the zone.
    let Some(pebble) = Pebble::start(&builder, json!({})).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &format!("{}{cloudflare}", pebble.acme())).start().await;
    let said = daemon.ctl(&["cert", "request", "--issuer", "acme", "*.example.net"]).await;
    assert_eq!(said.status, 6, "{said:?}\n{}", daemon.log());
    assert_eq!((double.records(), double.count("POST", "/zones")), (vec![], 1), "{}", daemon.log());
    assert_eq!(double.violations(), [""; 0]);
}

// F46
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_there_already_is_as_good_and_stays_with_whom_it_belongs_to() {
    let storage = tempfile::tempdir().unwrap();
    let double = Cloudflare::start().await;
    let names = double.nameserver().await;
    let cloudflare = format!("[cloudflare]\napi_token = \"{}\"\napi_base = \"{}\"\n", Cloudflare::TOKEN, double.base());
    std::fs::write(storage.path().join("api-ca.pem"), double.ca()).unwrap();
    let builder = builder(storage.path()).env("SSL_CERT_FILE", storage.path().join("api-ca.pem"));
    let Some(pebble) = Pebble::asking(&builder, json!({}), Some(names)).await else { skip!("pebble is not installed") };
    let daemon = builder.file("acme.toml", &format!("{}{cloudflare}", pebble.acme())).start().await;
    let mut theirs = Vec::new();
    // Identical (81058), or with another lifetime (81057); nobody's, somebody else's, and one of ours that was left behind.
    for (host, comment, ttl) in [
        ("*.a.example.net", None, 120),
        ("*.b.example.net", Some("terraform"), 3600),
        ("*.c.example.net", Some("miwid"), 120),
    ] {
        double.forestall(comment, ttl);
        let said = daemon.ctl(&["cert", "request", "--issuer", "acme", host]).await;
        assert_eq!(said.status, 0, "{host}: {said:?}\n{}", daemon.log());
        assert!(shown(&daemon, &host.replace('*', "any")).await.issuer.contains("Pebble"), "{host}");
        if comment != Some("miwid") {
            theirs.push(host.replace('*', "_acme-challenge"));
        }
        let mut left = double.records();
        left.sort();
        assert_eq!(left, theirs, "{host}");
    }
    assert_eq!((double.count("POST", "/zones"), double.count("DELETE", "/zones")), (3, 1));
    assert_eq!(double.violations(), [""; 0]);
}
