//! One thing wrong at a time.

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn day(days: u64) -> SystemTime {
    now() + Duration::from_secs(days * 86_400)
}

fn here() -> Here {
    let shown = Shown { not_after: day(90), covers: true, is_local: false };
    Here {
        sites: vec![Site { host: "shop.example.com".to_owned(), shown: Some(shown) }],
        trust: true,
        origin_pulls: true,
        asks_origin_ca: true,
        by_tls_alpn: false,
        http_port: Some(80),
        https_port: Some(443),
        request_timeout: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(65),
        header_bytes_max: 32 << 10,
    }
}

fn there() -> There {
    let settings = [("ssl", "strict"), ("tls_client_auth", "on"), ("min_tls_version", "1.2")];
    let zone = Zone {
        name: "example.com".to_owned(),
        status: "active".to_owned(),
        settings: settings.map(|(name, value)| (name, value.to_owned())).into(),
        ..Zone::default()
    };
    let host = "shop.example.com".to_owned();
    There {
        token: Some(Ok(Token { status: "active".to_owned(), ends: None })),
        places: [(host.clone(), Ok("z".to_owned()))].into(),
        zones: [("z".to_owned(), zone)].into(),
        records: [(host, Ok(vec![true]))].into(),
    }
}

fn refused(class: Class) -> Error {
    Error::new(class, "no", None)
}

#[track_caller]
fn check(expected: &[(&str, &str)], change: impl FnOnce(&mut Here, &mut There)) {
    let (mut here, mut there) = (here(), there());
    change(&mut here, &mut there);
    let found = judge(&here, &there, now());
    let codes: Vec<_> = found.iter().map(|it| (it.code, it.visitors)).collect();
    assert_eq!(codes, expected);
    assert!(found.iter().all(|it| !it.hint.is_empty() && !it.message.is_empty() && !it.subject.is_empty()));
}

fn zone(there: &mut There) -> &mut Zone {
    there.zones.get_mut("z").expect("the zone")
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    check(&[], |_, _| {});
}

#[test]
fn a_token_is_judged_by_its_state() {
    check(&[("token-missing", "")], |_, there| there.token = None);
    check(&[("token-invalid", "")], |_, there| there.token = Some(Err(refused(Class::Auth))));
    check(&[("token-unknown", "")], |_, there| there.token = Some(Err(refused(Class::Transient))));
    let token = |status: &str, ends| Some(Ok(Token { status: status.to_owned(), ends }));
    check(&[("token-disabled", "")], |_, there| there.token = token("disabled", None));
    check(&[("token-expired", "")], |_, there| there.token = token("expired", None));
    check(&[("token-expired", "")], |_, there| there.token = token("active", Some(now())));
    check(&[("token-expiring", "")], |_, there| there.token = token("active", Some(day(7))));
    check(&[], |_, there| there.token = token("active", Some(day(31))));
}

#[test]
fn a_zone_is_judged_by_what_it_does() {
    let set = |there: &mut There, name, value: &str| drop(zone(there).settings.insert(name, value.to_owned()));
    check(&[("zone-paused", "")], |_, there| zone(there).is_paused = true);
    check(&[("zone-inactive", "")], |_, there| zone(there).status = "pending".to_owned());
    check(&[("zone-unreadable", "")], |_, there| zone(there).unreadable = Some(refused(Class::Auth)));
    check(&[("rights-ssl", "")], |_, there| zone(there).certificates = Some(refused(Class::Auth)));
    check(&[], |here, there| {
        here.asks_origin_ca = false;
        zone(there).certificates = Some(refused(Class::Auth));
    });
    check(&[("ssl-off", "")], |_, there| set(there, "ssl", "off"));
    check(&[("ssl-flexible", "")], |_, there| set(there, "ssl", "flexible"));
    check(&[("ssl-full", "")], |_, there| set(there, "ssl", "full"));
    check(&[("origin-pulls-off", "400")], |_, there| set(there, "tls_client_auth", "off"));
    check(&[("origin-pulls-unused", "")], |here, _| here.origin_pulls = false);
    check(&[("min-tls", "")], |_, there| set(there, "min_tls_version", "1.0"));
}

#[test]
fn a_site_is_judged_by_how_visitors_get_there() {
    const HOST: &str = "shop.example.com";
    let place = |there: &mut There, it| drop(there.places.insert(HOST.to_owned(), it));
    check(&[("rights-zone", "")], |_, there| place(there, Err(refused(Class::Auth))));
    check(&[("zone-missing", "")], |_, there| place(there, Err(refused(Class::Config))));
    check(&[("zone-missing", "")], |_, there| zone(there).name = "op.example.com".to_owned());
    let records = |there: &mut There, it| drop(there.records.insert(HOST.to_owned(), it));
    check(&[("dns-missing", "NXDOMAIN")], |_, there| records(there, Ok(vec![])));
    check(&[("dns-grey", "")], |_, there| records(there, Ok(vec![true, false])));
    check(&[("dns-unknown", "")], |_, there| records(there, Err(refused(Class::Auth))));
    check(&[("certificate-none", "525")], |here, _| here.sites[0].shown = None);
    let spoil = |expected: &[(&str, &str)], mode: &str, change: fn(&mut Shown)| {
        check(expected, |here, there| {
            here.sites[0].shown.iter_mut().for_each(change);
            zone(there).settings.insert("ssl", mode.to_owned());
        });
    };
    spoil(&[("certificate-expired", "526")], "strict", |it| it.not_after = now());
    spoil(&[("certificate-other", "526")], "strict", |it| it.covers = false);
    spoil(&[("certificate-local", "526")], "strict", |it| it.is_local = true);
    spoil(&[("certificate-local", ""), ("ssl-full", "")], "full", |it| it.is_local = true);
    spoil(&[("ssl-flexible", "")], "flexible", |it| it.is_local = true);
}

#[test]
fn this_side_is_judged_without_asking_anybody() {
    check(&[("port", "522"), ("port", "522")], |here, _| (here.http_port, here.https_port) = (Some(81), Some(444)));
    check(&[], |here, _| (here.http_port, here.https_port) = (None, Some(8443)));
    check(&[("timeout", "524")], |here, _| here.request_timeout = Duration::from_secs(101));
    check(&[("header-size", "431")], |here, _| here.header_bytes_max = 8 << 10);
    check(&[("tls-alpn", "")], |here, _| here.by_tls_alpn = true);
    check(&[("trust-off", ""), ("keepalive", "520")], |here, _| here.trust = false);
    check(&[("trust-off", "")], |here, _| (here.trust, here.keepalive_timeout) = (false, REUSE));
}
