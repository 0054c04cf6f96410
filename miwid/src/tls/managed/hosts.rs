//! Host names as certificates of public and private authorities take them. Pure.

use std::net::IpAddr;

/// One certificate of Origin CA holds no more.
pub(super) const HOSTS_MAX: usize = 200;

/// In lower case, without a final dot, sorted, each once; or the first that will not do, and why.
pub(super) fn judged<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, String> {
    let mut judged = Vec::new();
    for host in hosts {
        judged.push(one(host).map_err(|why| format!("`{host}` cannot be in a certificate: {why}"))?);
    }
    judged.sort();
    judged.dedup();
    match judged.len() {
        0 => Err("no host is named".to_owned()),
        1..=HOSTS_MAX => Ok(judged),
        many => Err(format!("{many} hosts are more than the {HOSTS_MAX} that a certificate holds")),
    }
}

fn one(host: &str) -> Result<String, &'static str> {
    let lower = host.trim().strip_suffix('.').unwrap_or(host.trim()).to_ascii_lowercase();
    let bare = lower.strip_prefix("*.").unwrap_or(&lower);
    if !bare.is_ascii() {
        return Err("write it in its ASCII form, which begins with xn--");
    }
    if bare.parse::<IpAddr>().is_ok() {
        return Err("it is an address");
    }
    if bare.contains('*') {
        return Err("a wildcard stands for the first label, whole, and only once");
    }
    if !bare.contains('.') {
        return Err("it has only one label");
    }
    let is_label = |it: &str| {
        let within = it.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        within && (1..=63).contains(&it.len()) && !it.starts_with('-') && !it.ends_with('-')
    };
    if lower.len() > 253 || !bare.split('.').all(is_label) {
        return Err("it is no host name");
    }
    Ok(lower)
}

/// Whether it makes sense to ask an authority for it without being told to.
pub(super) fn is_public(host: &str) -> bool {
    one(host).is_ok() && !host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_one_way_and_bad_ones_are_refused_before_anybody_is_asked() {
        let good = judged(["B.Example.com.", "a.example.com", "b.example.com", "*.example.com", "xn--bcher-kva.test"]);
        let expected = ["*.example.com", "a.example.com", "b.example.com", "xn--bcher-kva.test"];
        assert_eq!(good.as_deref(), Ok(&expected.map(str::to_owned)[..]));
        for bad in [
            "*.com",
            "*.*.example.com",
            "www.*.example.com",
            "w*.example.com",
            "*",
            "192.0.2.1",
            "::1",
            "localhost",
            "bücher.test",
            "a_b.test",
            "-a.test",
            "a..test",
            "",
            "a b.test",
            "https://a.test",
            "a.test:443",
        ] {
            assert!(judged([bad]).is_err(), "{bad}");
        }
        assert!(judged(["a".repeat(64) + ".test"].iter().map(String::as_str)).is_err());
        assert!(judged([]).is_err());
    }

    #[test]
    fn a_certificate_holds_200_names() {
        let names: Vec<String> = (0..201).map(|it| format!("h{it}.example.com")).collect();
        assert_eq!(judged(names.iter().take(200).map(String::as_str)).map(|it| it.len()), Ok(200));
        assert!(judged(names.iter().map(String::as_str)).is_err_and(|it| it.contains("201")));
    }

    #[test]
    fn hosts_of_this_machine_are_nobody_elses_business() {
        for (host, expected) in [
            ("shop.example.com", true),
            ("*.example.com", true),
            ("app.localhost", false),
            ("localhost", false),
            ("127.0.0.1", false),
            ("_", false),
        ] {
            assert_eq!(is_public(host), expected, "{host}");
        }
    }
}
