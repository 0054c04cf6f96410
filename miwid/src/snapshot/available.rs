//! What this version cannot do yet. The configuration crate knows every key; a key listed here is refused, because a key
//! that is silently ignored is worse than one that does not exist, above all when it is about security.
//!
//! One table: an issue that builds a feature takes its lines out.

use config::Capabilities;

const NOT_YET: &str = "not available in this version";

/// Dotted keys; `*` stands for one segment, `**` for all that follow. `key=value` refuses only that value.
const UNAVAILABLE: &[&str] = &[
    "server.io_backend=io_uring",
    "cache.**",
    "tracing.**",
    "metrics.per_site=true",
    "backends.*.strategy=random_two",
    "backends.*.strategy=least_time",
    "backends.*.sticky",
    "backends.*.cache.**",
    "backends.*.routes.*.ssl.**",
    "backends.*.routes.*.cache.**",
];

/// What this binary can run.
pub fn capabilities() -> Capabilities {
    let mut unavailable: Vec<(&'static str, String)> =
        UNAVAILABLE.iter().map(|key| (*key, NOT_YET.to_owned())).collect();
    if !cfg!(feature = "metrics") {
        unavailable.push(("metrics.**", "built without metrics".to_owned()));
    }
    if !cfg!(feature = "cloudflare") {
        for key in ["backends.*.ssl.issuer=cloudflare-origin", "ssl.issuer=cloudflare-origin", "cloudflare.**"] {
            unavailable.insert(0, (key, "built without cloudflare".to_owned()));
        }
    }
    if !cfg!(feature = "http3") {
        unavailable.push(("server.http3=true", "built without http3".to_owned()));
    }
    Capabilities { unavailable }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The keys of `text` that this version refuses.
    fn refused(text: &str) -> Vec<String> {
        match config::load_text(Path::new("config.toml"), text, &[], &capabilities()) {
            Ok(_) => Vec::new(),
            Err(problems) => {
                let told = |it: &config::Problem| it.message.contains(NOT_YET) || it.message.contains("built without");
                assert!(problems.iter().all(told), "nothing else is wrong: {problems:#?}");
                problems.into_iter().map(|it| it.key).collect()
            }
        }
    }

    #[test]
    fn the_blocks_of_the_readme_are_refused_exactly_where_a_feature_is_missing() {
        let basic = include_str!("../../../config/tests/readme/basic.toml");
        let cloudflare =
            if cfg!(feature = "cloudflare") { vec![] } else { vec!["cloudflare.api_token", "cloudflare.zone_id"] };
        assert_eq!(refused(basic), cloudflare);
        let performance = include_str!("../../../config/tests/readme/tuning.toml");
        assert_eq!(refused(performance), ["cache.enabled", "cache.max_size", "cache.ttl"]);
        let security = include_str!("../../../config/tests/readme/security.toml");
        assert_eq!(refused(security), [""; 0]);
        for table in ["cache", "backends.a.cache", "backends.a.routes.\"/x\".cache"] {
            let text =
                format!("[backends.a]\nurl = \"http://a\"\nsecurity.headers.x_a = \"b\"\n[{table}]\nenabled = true\n");
            assert_eq!(refused(&text).len(), 1, "{table}");
        }
        let balancing = include_str!("../../../config/tests/readme/balancing.toml");
        assert_eq!(refused(balancing), [""; 0]);
    }

    // The annotated default switches metrics on in so many words, and one example is about Cloudflare.
    #[cfg(all(feature = "metrics", feature = "cloudflare"))]
    #[test]
    fn the_shipped_configurations_run_in_this_version() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        let examples =
            std::fs::read_dir(directory.join("examples")).expect("the examples").flatten().map(|it| it.path());
        for path in examples.chain([directory.join("miwid.toml")]) {
            let loaded = config::load(&path, &[], &capabilities());
            assert!(loaded.is_ok(), "{}: {:#?}", path.display(), loaded.err());
        }
    }

    #[test]
    fn the_built_in_default_runs_in_this_version() {
        let text = config::builtin(Path::new("/usr/bin/miwid"));
        assert_eq!(refused(&text), [""; 0]);
    }

    #[test]
    fn a_key_whose_feature_is_off_says_so() {
        let told = |text: &str| {
            let loaded = config::load_text(Path::new("m.toml"), text, &[], &capabilities());
            loaded.err().map(|problems| problems[0].message.clone()).unwrap_or_default()
        };
        let expect = |text: &str, on: bool, off_says: &str, on_says: &str| {
            let (said, expected) = (told(text), if on { on_says } else { off_says });
            assert!(said.contains(expected) && (!expected.is_empty() || said.is_empty()), "{text}: {said}");
        };
        let (http3, cloudflare, metrics) =
            (cfg!(feature = "http3"), cfg!(feature = "cloudflare"), cfg!(feature = "metrics"));
        expect("[server]\nhttp3 = true\n", http3, "built without http3", "");
        expect("[cloudflare]\ntrust = true\n", cloudflare, "built without cloudflare", "");
        expect("[metrics]\nenabled = true\n", metrics, "built without metrics", "");
    }
}
