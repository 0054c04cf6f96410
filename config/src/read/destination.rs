//! Where a site or a route leads: files, upstreams, a redirect or a fixed answer. Exactly one of them.

use super::proxy::{self, Upstream};
use crate::{Files, Symlinks, Target, section::Section, values};

const DESTINATIONS: [&str; 5] = ["url", "urls", "root", "redirect", "respond"];

/// What the keys of `section` lead to; `None` when they name no destination. `process` counts for nothing here.
pub(super) fn destination(section: &Section<'_>, upstream: Upstream) -> Option<Target> {
    let given: Vec<&str> = DESTINATIONS.into_iter().filter(|it| section.has(it)).collect();
    if let [first, second, ..] = given[..] {
        let message = format!("`{first}` and `{second}` are both given");
        section.error_at(second, message, Some(format!("keep one of `{first}` and `{second}`")));
    }
    if section.has("files") && !section.has("root") {
        let files = section.section("files");
        files.error("`files` has no `root`", Some("give the directory as `root`".into()));
    }
    let target = match *given.first()? {
        "root" => Target::Files(files(section)),
        "redirect" => redirect(section),
        "respond" => respond(section),
        _ => proxied(section, upstream),
    };
    if !matches!(target, Target::Proxy(_) | Target::App(_)) {
        misplaced(section, given[0]);
    }
    Some(target)
}

fn misplaced(section: &Section<'_>, destination: &str) {
    for key in proxy::KEYS.iter().filter(|it| section.has(it)) {
        let message = format!("`{key}` means nothing here: `{destination}` forwards no requests");
        section.error_at_key(key, message, Some("take it out".into()));
    }
}

fn proxied(section: &Section<'_>, upstream: Upstream) -> Target {
    let proxy = proxy::proxy(section, upstream);
    if section.has("urls") && section.list("urls", |_| Some(())).is_some_and(|it| it.is_empty()) {
        section.error_at("urls", "`urls` is empty", Some("give at least one address".into()));
    }
    match upstream {
        Upstream::Elsewhere => Target::Proxy(proxy),
        Upstream::App => Target::App(proxy),
    }
}

fn files(section: &Section<'_>) -> Files {
    let root = section.path("root").unwrap_or_default();
    let files = section.section("files");
    let spa_fallback = files.text("spa_fallback");
    if spa_fallback.as_deref().is_some_and(|it| it.split('/').any(|part| part == "..")) {
        files.error_at("spa_fallback", "the file has to lie below the root", None);
    }
    Files {
        root,
        index: files.texts("index").unwrap_or_else(|| vec!["index.html".into()]),
        listing: files.flag("listing").unwrap_or(false),
        spa_fallback: spa_fallback.map(|it| it.trim_start_matches('/').to_owned()),
        precompressed: files.flag("precompressed").unwrap_or(false),
        hidden: files.texts("hidden").unwrap_or_default(),
        cache_control: files.text("cache_control"),
        symlinks: files.choice("symlinks", &[Symlinks::Inside, Symlinks::Follow, Symlinks::Never]).unwrap_or_default(),
    }
}

fn redirect(section: &Section<'_>) -> Target {
    let table = section.section("redirect");
    let to = section.text("redirect").or_else(|| table.text("to")).unwrap_or_default();
    if table.present() && !table.has("to") {
        table.error("`to` is missing", Some("give the address as `to`".into()));
    }
    let given = section.text("redirect").is_some() || table.text("to").is_some();
    let absolute = to.starts_with('/') || to.starts_with("https://") || to.starts_with("http://");
    if given && (!absolute || !values::header_value(&to)) {
        let hint = "write `https://example.com/` or `/path`";
        section.error_at("redirect", format!("{to:?} is not an address to redirect to"), Some(hint.into()));
    }
    Target::Redirect { to, status: table.integer("status").unwrap_or(302) }
}

fn respond(section: &Section<'_>) -> Target {
    let table = section.section("respond");
    Target::Respond {
        status: table.integer("status").unwrap_or(200),
        body: section.text("respond").or_else(|| table.text("body")).unwrap_or_default(),
        content_type: table.text("content_type").unwrap_or_else(|| "text/plain; charset=utf-8".into()),
    }
}
