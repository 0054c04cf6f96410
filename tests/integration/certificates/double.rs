//! The double itself: it does what Cloudflare does, and refuses what a sloppy client would get away with elsewhere.

use std::time::Duration;

use harness::cloudflare::{Cloudflare, Mutation, Right, Rule, Status, Then, Token, TokenKind, Zone};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::plain::{JSON, ask, bearer, call, creation, csr, signing_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lives_from_creation_to_revocation() {
    let double = Cloudflare::start().await;
    let (status, made) =
        ask(&double, "POST", "/certificates", Some(&creation(&["example.com", "*.example.com"]))).await;
    assert_eq!((status, &made["success"]), (200, &json!(true)), "{made:#}");
    let (id, pem) = (made["result"]["id"].as_str().unwrap(), made["result"]["certificate"].as_str().unwrap());
    assert!(id.len() >= 40 && id.bytes().all(|b| b.is_ascii_digit()), "a decimal serial number: {id}");
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let leaf = parsed.parse_x509().unwrap();
    assert_eq!(leaf.tbs_certificate.serial.to_string(), id);
    let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
    assert_eq!(days, 90);

    let zone = Zone::new("example.com").id;
    let (_, listed) = ask(&double, "GET", &format!("/certificates?zone_id={zone}"), None).await;
    assert_eq!((&listed["result"][0]["id"], &listed["result"][0]["csr"]), (&json!(id), &Value::Null));
    let (_, shown) = ask(&double, "GET", &format!("/certificates/{id}"), None).await;
    assert_eq!(shown["result"]["revoked_at"], Value::Null);
    let (_, revoked) = ask(&double, "DELETE", &format!("/certificates/{id}"), None).await;
    assert_eq!(revoked["result"]["id"], id);
    let (status, shown) = ask(&double, "GET", &format!("/certificates/{id}"), None).await;
    assert_eq!((status, &shown["result"]["revoked_at"]), (200, &revoked["result"]["revoked_at"]));
    let (_, again) = ask(&double, "DELETE", &format!("/certificates/{id}"), None).await;
    assert_eq!(again["result"]["revoked_at"], revoked["result"]["revoked_at"]);
    assert_eq!(ask(&double, "GET", "/certificates/77", None).await.0, 404);
    assert_eq!(double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let double = Cloudflare::start().await;
    let token = bearer(Cloudflare::TOKEN);
    let good = creation(&["example.com"]).to_string();
    let headers = [(token.0, &*token.1), JSON];
    assert_eq!(call(&double, "POST", "/certificates", &headers, good.as_bytes()).await.0, 200, "the pattern is good");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = creation(&["example.com"]);
        change(&mut body);
        body.to_string()
    };
    let set = |key: &str, value: Value| changed(&|it| it[key] = value.clone());
    let names = |names: &[&str]| set("hostnames", json!(names));
    let without = |key: &str| changed(&|it| drop(it.as_object_mut().unwrap().remove(key)));
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let broken = csr().replacen('M', "N", 2);
    let mut forged: Vec<char> = csr().chars().collect();
    // Within the signature, which is the end.
    let at = forged.len() - 60;
    forged[at] = if forged[at] == 'A' { 'B' } else { 'A' };
    let forged: String = forged.into_iter().collect();
    let long = format!("{}.example.com", "a".repeat(64));
    let longer = format!("{}example.com", "abcdefghi.".repeat(25));
    let many: Vec<String> = (0..201).map(|it| format!("h{it}.example.com")).collect();
    let bodies: Vec<(&str, String)> = vec![
        ("no body", String::new()),
        ("not JSON", "{".into()),
        ("an array", "[]".into()),
        ("a text", "\"csr\"".into()),
        ("two documents", format!("{good}{good}")),
        ("a key twice", good.replacen('{', "{\"request_type\":\"origin-ecc\",", 1)),
        ("a strange key", set("hostname", json!("example.com"))),
        ("no csr", without("csr")),
        ("csr is null", set("csr", Value::Null)),
        ("csr is no PEM", set("csr", json!("MIIB"))),
        ("csr without newlines", set("csr", json!(csr().replace('\n', "")))),
        ("csr with CR LF", set("csr", json!(csr().replace('\n', "\r\n")))),
        ("csr of another label", set("csr", json!(csr().replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")))),
        ("csr twice", set("csr", json!(format!("{}{}", csr(), csr())))),
        ("csr with words before it", set("csr", json!(format!("words\n{}", csr())))),
        ("csr that is no request", set("csr", json!(broken))),
        ("csr whose signature is wrong", set("csr", json!(forged))),
        ("an RSA key for ECC", set("csr", json!(signing_request(&rsa)))),
        ("an Edwards key", set("csr", json!(signing_request(&edwards)))),
        ("an ECC key for RSA", set("request_type", json!("origin-rsa"))),
        ("no request_type", without("request_type")),
        ("another request_type", set("request_type", json!("origin-dsa"))),
        ("request_type in upper case", set("request_type", json!("ORIGIN-ECC"))),
        ("no hostnames", without("hostnames")),
        ("hostnames is a text", set("hostnames", json!("example.com"))),
        ("hostnames is empty", names(&[])),
        ("a number for a name", set("hostnames", json!([7]))),
        ("an empty name", names(&[""])),
        ("201 names", set("hostnames", json!(many))),
        ("a name twice", names(&["example.com", "example.com"])),
        ("a name twice in another case", names(&["example.com", "EXAMPLE.com"])),
        ("an IPv4 address", names(&["192.0.2.1"])),
        ("an IPv6 address", names(&["2001:db8::1"])),
        ("a wildcard of a top-level domain", names(&["*.com"])),
        ("two wildcards", names(&["*.*.example.com"])),
        ("a wildcard within", names(&["www.*.example.com"])),
        ("half a wildcard", names(&["w*.example.com"])),
        ("a final dot", names(&["example.com."])),
        ("an empty label", names(&["www..example.com"])),
        ("an underscore", names(&["a_b.example.com"])),
        ("a leading hyphen", names(&["-a.example.com"])),
        ("a blank", names(&["www example.com"])),
        ("a URL", names(&["https://example.com"])),
        ("a port", names(&["example.com:443"])),
        ("a label of 64", names(&[&long])),
        ("a name of 261", names(&[&longer])),
        ("a name of somebody else's", names(&["example.org"])),
        ("a name that only ends alike", names(&["notexample.com"])),
        ("one of two is somebody else's", names(&["example.com", "example.org"])),
        ("a validity of 0", set("requested_validity", json!(0))),
        ("a validity of 91", set("requested_validity", json!(91))),
        ("a negative validity", set("requested_validity", json!(-90))),
        ("a validity as text", set("requested_validity", json!("90"))),
        ("a validity of null", set("requested_validity", Value::Null)),
    ];
    assert!(bodies.len() >= 40);
    for (what, body) in &bodies {
        let (status, said) = call(&double, "POST", "/certificates", &headers, body.as_bytes()).await;
        assert_eq!((status, &said["success"]), (400, &json!(false)), "{what}: {said:#}");
        assert!(said["errors"][0]["code"].is_u64() && said["errors"][0]["message"].is_string(), "{what}");
    }
    assert_eq!(double.certificates().len(), 1, "nothing of this was signed");
}

/// What it is, its headers, and the status and code of the answer.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16, u64);

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_good_headers_are_refused() {
    let double = Cloudflare::start().await;
    let mut weak = Token::user("cfut_weak");
    weak.rights = [("*".to_owned(), Right::ZoneRead)].into();
    double.add_token(weak);
    let mut ended = Token::user("cfut_ended");
    ended.status = Status::Expired;
    double.add_token(ended);
    let body = creation(&["example.com"]).to_string();
    let good = format!("Bearer {}", Cloudflare::TOKEN);
    let auth = |value: &'static str| vec![("authorization", value), JSON];
    let cases: Vec<Case<'_>> = vec![
        ("no authorization", vec![JSON], 400, 10000),
        ("another scheme", auth("Basic dTpw"), 400, 6003),
        ("no scheme", auth("cfut_good"), 400, 6003),
        ("the scheme in lower case", auth("bearer cfut_good"), 400, 6003),
        ("two tokens", auth("Bearer a b"), 400, 6003),
        ("an empty token", auth("Bearer "), 400, 6003),
        ("an unknown token", auth("Bearer cfut_unknown"), 400, 10000),
        ("a token without the right", auth("Bearer cfut_weak"), 403, 1016),
        ("an expired token", auth("Bearer cfut_ended"), 403, 9109),
        ("the dead service key", vec![("x-auth-user-service-key", "v1.0-abc"), JSON], 400, 10000),
        ("token and key", vec![("authorization", &good), ("x-auth-key", "k"), JSON], 400, 6003),
        ("no content type", vec![("authorization", &good)], 400, 6003),
        ("another content type", vec![("authorization", &good), ("content-type", "text/plain")], 400, 6003),
        ("authorization twice", vec![("authorization", &good), ("authorization", &good), JSON], 400, 6003),
    ];
    for (what, headers, status, code) in &cases {
        let (got, said) = call(&double, "POST", "/certificates", headers, body.as_bytes()).await;
        assert_eq!((got, said["errors"][0]["code"].as_u64()), (*status, Some(*code)), "{what}: {said:#}");
    }
    let (status, said) = ask(&double, "GET", "/certificates", None).await;
    assert_eq!(status, 400, "the zone is needed: {said:#}");
    assert_eq!(ask(&double, "GET", "/certificates?zone_id=0", None).await.0, 403);
    for (method, path) in [("PUT", "/certificates"), ("GET", "/nothing"), ("GET", "/zones/x/settings")] {
        assert_eq!(ask(&double, method, path, None).await.0, 404, "{method} {path}");
    }
    assert_eq!(double.certificates().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_that_nobody_should_ask_for_are_refused() {
    let double = Cloudflare::start().await;
    let path = format!("/zones/{}/purge_cache", Zone::new("example.com").id);
    let many: Vec<String> = (0..31).map(|it| format!("https://example.com/{it}")).collect();
    for body in [
        json!({}),
        json!([]),
        json!({ "purge_everything": false }),
        json!({ "purge_everything": "true" }),
        json!({ "everything": true }),
        json!({ "files": [] }),
        json!({ "files": "https://example.com/" }),
        json!({ "files": [7] }),
        json!({ "files": [""] }),
        json!({ "files": ["/a"] }),
        json!({ "files": many }),
        json!({ "tags": ["a b"] }),
        json!({ "tags": ["a,b"] }),
        json!({ "hosts": ["https://example.com"] }),
        json!({ "files": ["https://example.com/"], "tags": ["a"] }),
    ] {
        let (status, said) = ask(&double, "POST", &path, Some(&body)).await;
        assert_eq!((status, &said["success"]), (400, &json!(false)), "{body}: {said:#}");
    }
    assert_eq!(double.purged("example.com"), [Value::Null; 0]);
    let (status, _) = ask(&double, "POST", &path, Some(&json!({ "purge_everything": true }))).await;
    assert_eq!((status, double.purged("example.com").len()), (200, 1));
    assert_eq!(ask(&double, "POST", "/zones/0/purge_cache", Some(&json!({ "purge_everything": true }))).await.0, 403);
    assert_eq!(ask(&double, "GET", &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_tell_about_themselves_where_they_belong() {
    let double = Cloudflare::start().await;
    let mut account = Token::user("cfat_account");
    account.kind = TokenKind::Account;
    let path = format!("/accounts/{}/tokens/verify", account.account);
    double.add_token(account);
    for (token, path, status) in [
        (Cloudflare::TOKEN, "/user/tokens/verify", 200),
        (Cloudflare::TOKEN, &*path, 401),
        ("cfat_account", "/user/tokens/verify", 401),
        ("cfat_account", &path, 200),
    ] {
        let token = bearer(token);
        assert_eq!(call(&double, "GET", path, &[(token.0, &token.1)], b"").await.0, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manners_are_written_down() {
    let double = Cloudflare::start().await;
    let token = bearer(Cloudflare::TOKEN);
    let mut body = creation(&["EXAMPLE.com"]);
    body.as_object_mut().unwrap().remove("requested_validity");
    let (status, _) =
        call(&double, "POST", "/certificates", &[(token.0, &token.1), JSON], body.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    let said = double.violations().join("\n");
    for word in ["User-Agent", "Accept", "fifteen years", "upper case"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_do_what_they_say_as_often_as_they_say() {
    let double = Cloudflare::start().await;
    let body = creation(&["example.com"]);
    double.rule(Rule::on_create(Then::Refuse { status: 400, code: 1100, message: "no".into() }).times(2));
    for expected in [400, 400, 200] {
        assert_eq!(ask(&double, "POST", "/certificates", Some(&body)).await.0, expected);
    }
    for (mutation, names) in [(Mutation::WrongName, 1), (Mutation::DropName, 1)] {
        double.rule(Rule::on_create(Then::Mutate(mutation.clone())).once());
        let body = creation(&["example.com", "www.example.com"]);
        let (_, made) = ask(&double, "POST", "/certificates", Some(&body)).await;
        let pem = made["result"]["certificate"].as_str().unwrap().to_owned();
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let leaf = parsed.parse_x509().unwrap();
        let held = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(held, names, "{mutation:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_answered_with_429_until_the_window_is_over() {
    let double = Cloudflare::start().await;
    let ask = async || ask(&double, "GET", "/user/tokens/verify", None).await.0;
    double.limit(3);
    assert_eq!([ask().await, ask().await, ask().await, ask().await], [200, 200, 200, 429]);
    double.advance(Duration::from_secs(301));
    assert_eq!(ask().await, 200);
}
