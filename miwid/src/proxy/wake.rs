//! Which requests wake an app that sleeps (pure). Scanners ask for whatever they know of other servers, and an app would never
//! sleep if it rose for that.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::tls::CHALLENGES;

/// What `wake_on` says. The default: everything wakes.
#[derive(Debug, Default)]
pub struct WakeRules {
    methods: Box<[Box<str>]>,
    paths: Box<[Pattern]>,
}

#[derive(Debug)]
enum Pattern {
    Whole(Box<str>),
    /// All that begin so.
    Beginning(Box<str>),
}

// === impl WakeRules ===

impl WakeRules {
    pub fn new(wake_on: &config::WakeOn) -> Self {
        Self {
            methods: wake_on.methods.iter().map(|it| it.as_str().into()).collect(),
            paths: wake_on.paths.iter().map(|it| Pattern::new(it)).collect(),
        }
    }

    /// Whether there is no rule.
    pub(super) fn is_anything(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }
}

impl Pattern {
    fn new(written: &str) -> Self {
        // As paths are when they are matched.
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into();
        match written.strip_suffix('*') {
            Some(beginning) => Self::Beginning(decoded(beginning)),
            None => Self::Whole(decoded(written)),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Whole(whole) => **whole == *path,
            Self::Beginning(beginning) => path.starts_with(&**beginning),
        }
    }
}

/// `path` as routes see it.
pub(super) fn may_wake(rules: &WakeRules, method: &Method, path: &str) -> bool {
    // A token that nobody here has asked for, and an app that has asked for one is awake.
    if path.starts_with(CHALLENGES) {
        return false;
    }
    let methods = rules.methods.is_empty() || rules.methods.iter().any(|it| **it == *method.as_str());
    methods && (rules.paths.is_empty() || rules.paths.iter().any(|it| it.matches(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(methods: &[&str], paths: &[&str], method: Method, path: &str, expected: bool) {
        let texts = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        let rules = WakeRules::new(&config::WakeOn { methods: texts(methods), paths: texts(paths) });
        assert_eq!(may_wake(&rules, &method, path), expected, "{methods:?} {paths:?}: {method} {path}");
    }

    #[test]
    fn without_rules_everything_wakes_but_challenges() {
        check(&[], &[], Method::GET, "/", true);
        check(&[], &[], Method::POST, "/wp-login.php", true);
        check(&[], &[], Method::GET, "/.well-known/acme-challenge/x", false);
        check(&[], &["/*"], Method::GET, "/.well-known/acme-challenge/x", false);
    }

    #[test]
    fn a_path_is_meant_whole_unless_a_star_ends_it() {
        let paths = ["/", "/shop/*", "/feed.xml", "/caf%C3%A9*"];
        let get = |path, expected| check(&[], &paths, Method::GET, path, expected);
        get("/", true);
        get("/wp-login.php", false);
        get("/shop", false);
        get("/shop/", true);
        get("/shop/cart/1", true);
        get("/shopping", false);
        get("/Shop/", false);
        get("/feed.xml", true);
        get("/feed.xml.bak", false);
        get("/café", true);
        get("/cafés/1", true);
    }

    #[test]
    fn both_the_method_and_the_path_have_to_be_named() {
        let check = |method, path, expected| check(&["GET", "PROPFIND"], &["/a"], method, path, expected);
        check(Method::GET, "/a", true);
        check(Method::GET, "/b", false);
        check(Method::HEAD, "/a", false);
        let method = |text: &[u8]| Method::from_bytes(text).expect("a token");
        check(method(b"PROPFIND"), "/a", true);
        check(method(b"get"), "/a", false);
    }

    #[test]
    fn a_star_that_was_written_encoded_is_a_star() {
        check(&[], &["/a%2A"], Method::GET, "/a*", true);
        check(&[], &["/a%2A"], Method::GET, "/ab", false);
    }
}
