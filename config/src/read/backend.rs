//! `[backends."HOST"]` and its routes.

use indexmap::IndexMap;

use super::{
    destination::destination,
    policy, process,
    proxy::{self, Upstream},
    tls,
};
use crate::{
    AppType, Backend, Cache, Compression, Process, RestartStrategy, Route, Security, Ssl, Target, check::nearest,
    section::Section, source::At, tree::Value, values,
};

/// The tables that sites and routes inherit from.
#[derive(Clone, Copy)]
pub(super) struct Above<'a> {
    pub(super) ssl: &'a Ssl,
    pub(super) compression: &'a Compression,
    pub(super) cache: &'a Cache,
    pub(super) security: &'a Security,
}

pub(super) fn backends(section: &Section<'_>, above: &Above<'_>) -> IndexMap<String, Backend> {
    let mut backends = IndexMap::new();
    let mut hosts: IndexMap<String, At> = IndexMap::new();
    let mut names: IndexMap<String, At> = IndexMap::new();
    for (key, node) in section.keys() {
        let Value::Table(_) = node.value else { continue };
        let table = section.section(key);
        let host = match values::host(key) {
            Ok(host) => host,
            Err((message, hint)) => {
                table.error(format!("{key:?}: {message}"), Some(hint.into()));
                continue;
            }
        };
        let backend = backend(&table, host.clone(), above);
        let mine = claim(&table, &mut hosts, "host", &host);
        for alias in &backend.aliases {
            claim(&table, &mut hosts, "host", alias);
        }
        // Without a name of its own a second claim to the host would be told twice.
        if mine || table.has("name") {
            claim(&table, &mut names, "name", &backend.name);
        }
        backends.entry(host).or_insert(backend);
    }
    dependencies(section, &backends);
    backends
}

/// Two sites cannot have the same host or name. Whether this one may have it.
fn claim(table: &Section<'_>, taken: &mut IndexMap<String, At>, what: &str, value: &str) -> bool {
    let Some(first) = taken.get(value) else {
        taken.insert(value.to_owned(), table.at);
        return true;
    };
    let message = format!("the {what} `{value}` is already taken at {}", table.name_of_place(*first));
    table.error(message, Some(format!("give every {what} to one backend only")));
    false
}

fn dependencies(section: &Section<'_>, backends: &IndexMap<String, Backend>) {
    let apps: Vec<&str> = backends.values().filter(|it| it.process.is_some()).map(|it| it.name.as_str()).collect();
    for (key, node) in section.keys() {
        let Value::Table(_) = node.value else { continue };
        let process = section.section(key).section("process");
        for name in process.texts("depends_on").unwrap_or_default() {
            if !apps.contains(&name.as_str()) {
                let hint = nearest(&name, apps.iter().copied()).map(|it| format!("did you mean \"{it}\"?"));
                process.error_at("depends_on", format!("there is no app {name:?}"), hint);
            }
        }
        let own =
            backends.values().find(|it| it.host == *key || Some(it.name.clone()) == section.section(key).text("name"));
        if own.is_some_and(|own| reaches(backends, &own.name, &own.name, backends.len())) {
            let hint = "each would wait for the other; take one of them out";
            process.error_at("depends_on", "the app depends on itself, perhaps through others", Some(hint.into()));
        }
    }
}

/// Whether `to` is among what `from` depends on, over at most `steps` apps.
fn reaches(backends: &IndexMap<String, Backend>, from: &str, to: &str, steps: usize) -> bool {
    let process = backends.values().find(|it| it.name == from).and_then(|it| it.process.as_ref());
    let next = process.map(|it| it.depends_on.as_slice()).unwrap_or_default();
    steps > 0 && next.iter().any(|name| name == to || reaches(backends, name, to, steps - 1))
}

fn backend(section: &Section<'_>, host: String, above: &Above<'_>) -> Backend {
    let app_type = app_type(section);
    let process = process_of(section, app_type);
    let own = Above {
        ssl: above.ssl,
        compression: &policy::compression(&section.section("compression"), Some(above.compression)),
        cache: &policy::cache(&section.section("cache"), Some(above.cache)),
        security: &policy::security(&section.section("security"), Some(above.security)),
    };
    let ssl = tls::ssl(&section.section("ssl"), Some(above.ssl));
    let target = target(section, app_type, process.as_ref());
    let routes = routes(section, &target, &own);
    let target = target.unwrap_or_else(|| Target::Respond {
        status: 404,
        body: "not found\n".into(),
        content_type: "text/plain; charset=utf-8".into(),
    });
    let name = section.text("name").unwrap_or_else(|| host.clone());
    if section.has("name") && (name.is_empty() || name.contains(['/', ' ', '"']) || name.starts_with('-')) {
        let hint = "letters, digits, `.`, `-` and `_` are fine";
        section.error_at("name", format!("{name:?} cannot be a name"), Some(hint.into()));
    }
    Backend {
        aliases: section.texts("aliases").unwrap_or_default().iter().filter_map(|it| values::host(it).ok()).collect(),
        app_type,
        origin: section.origin(),
        target,
        routes,
        process,
        ssl: section.section("ssl").present().then_some(ssl),
        compression: section.section("compression").present().then(|| own.compression.clone()),
        cache: section.section("cache").present().then(|| own.cache.clone()),
        security: section.section("security").present().then(|| own.security.clone()),
        host,
        name,
    }
}

fn app_type(section: &Section<'_>) -> AppType {
    use AppType::{Command, Java, Nodejs, Proxy, Python, Static, Tomcat};
    let written = section.choice("app_type", &[Nodejs, Python, Java, Tomcat, Command, Proxy, Static]);
    written.unwrap_or_else(|| {
        // A process makes an app of it even beside a `url`, which is then the app's fixed address.
        if section.has("process") && !section.has("root") {
            Command
        } else if section.has("url") || section.has("urls") {
            Proxy
        } else {
            Static
        }
    })
}

fn runs_program(app_type: AppType) -> bool {
    !matches!(app_type, AppType::Proxy | AppType::Static)
}

/// The table of an app type that can do without `process`.
fn own_table(app_type: AppType) -> Option<&'static str> {
    match app_type {
        AppType::Nodejs => Some("nodejs"),
        AppType::Python => Some("python"),
        AppType::Tomcat => Some("tomcat"),
        _ => None,
    }
}

fn process_of(section: &Section<'_>, app_type: AppType) -> Option<Process> {
    for (table, fits) in [
        ("python", app_type == AppType::Python),
        ("nodejs", app_type == AppType::Nodejs),
        ("tomcat", app_type == AppType::Tomcat),
        ("jvm", matches!(app_type, AppType::Java | AppType::Tomcat)),
    ] {
        if section.has(table) && !fits {
            let wanted = if table == "jvm" { "java" } else { table };
            let hint = format!("write `app_type = \"{wanted}\"`, or take the table out");
            section.section(table).error(format!("`{table}` does not go with this kind of site"), Some(hint));
        }
    }
    if !runs_program(app_type) {
        if section.has("process") {
            let hint = "take `process` out, or choose the `app_type` of the program";
            section.section("process").error("this kind of site runs no program", Some(hint.into()));
        }
        return None;
    }
    let has_own = own_table(app_type).is_some_and(|it| section.has(it));
    if !section.has("process") && !has_own {
        let hint = format!("add [{}.process], or write `app_type = \"proxy\"`", section.path);
        section.error_at("app_type", "an app needs a `process` table", Some(hint));
        return None;
    }
    let process = process::process(section, app_type);
    let unnamed = process.command.is_none() && matches!(app_type, AppType::Command | AppType::Java);
    if unnamed && !section.section("process").has("command") {
        section.section("process").error("`command` is missing", Some("name the program to run".into()));
    }
    Some(process)
}

/// Where `/` leads, if the backend says so itself.
fn target(section: &Section<'_>, app_type: AppType, process: Option<&Process>) -> Option<Target> {
    let upstream = if runs_program(app_type) { Upstream::App } else { Upstream::Elsewhere };
    let found = destination(section, upstream);
    match (app_type, &found) {
        (AppType::Static, Some(Target::Proxy(_))) => {
            let key = if section.has("urls") { "urls" } else { "url" };
            section.error_at(
                key,
                "a static site has no upstream",
                Some("write `app_type = \"proxy\"`, or give `root`".into()),
            );
        }
        (AppType::Static, None) if section.has("app_type") => {
            section.error("`root` is missing", Some("a static site serves the files below its `root`".into()));
        }
        (AppType::Proxy, None) => {
            section.error("`url` is missing", Some("give `url` or `urls`".into()));
        }
        (AppType::Proxy, Some(Target::Files(_) | Target::Redirect { .. } | Target::Respond { .. })) => {
            section.error_at("app_type", "a proxy needs `url` or `urls`", Some("leave `app_type` out".into()));
        }
        (AppType::Static, None) if !section.has("routes") => {
            let hint = "give `url`, `urls`, `root`, `process`, `redirect`, `respond` or `routes`";
            section.error("this backend leads nowhere", Some(hint.into()));
        }
        _ => {}
    }
    if runs_program(app_type) { app_target(section, found, process) } else { found }
}

fn app_target(section: &Section<'_>, found: Option<Target>, process: Option<&Process>) -> Option<Target> {
    match found {
        None => return Some(Target::App(proxy::proxy(section, Upstream::App))),
        Some(Target::App(proxy)) => {
            fixed_address(section, proxy.urls.len(), process);
            return Some(Target::App(proxy));
        }
        Some(_) => {}
    }
    for key in ["root", "redirect", "respond"] {
        if section.has(key) {
            let hint = format!("put `{key}` into a route: [{}.routes.\"/static/\"]", section.path);
            section.error_at(
                key,
                format!("the app already answers for this site, so `{key}` has no place"),
                Some(hint),
            );
        }
    }
    found
}

/// What an app whose address the configuration fixes cannot do.
fn fixed_address(section: &Section<'_>, addresses: usize, process: Option<&Process>) {
    let Some(process) = process else { return };
    let table = section.section("process");
    if addresses > 1 {
        section.error_at("urls", "an app has one fixed address at most", Some("give one `url`, or none".into()));
    }
    if process.instances > 1 {
        let message = format!("{} instances cannot share the fixed address of `url`", process.instances);
        table.error_at("instances", message, Some("take `url` out and let the app listen on $PORT".into()));
    }
    if process.restart_strategy == RestartStrategy::Rolling {
        let message = "a rolling restart needs two instances side by side, and `url` fixes one address";
        table.error_at("restart_strategy", message, Some("take `url` out and let the app listen on $PORT".into()));
    }
}

fn routes(section: &Section<'_>, site: &Option<Target>, above: &Above<'_>) -> Vec<Route> {
    let table = section.section("routes");
    let mut routes: Vec<Route> = Vec::new();
    for (prefix, node) in table.keys() {
        let Value::Table(_) = node.value else { continue };
        let section = table.section(prefix);
        if !prefix.starts_with('/')
            || !prefix.bytes().all(|it| it.is_ascii_graphic())
            || prefix.contains(['?', '#', '*'])
        {
            let hint = "it begins with `/` and matches everything below, without `*`";
            section.error(format!("{prefix:?} is not a path prefix"), Some(hint.into()));
        } else if !decodes(prefix) {
            let hint = "`%` and two hexadecimal digits stand for a byte of UTF-8; a `%` itself is `%25`";
            section.error(format!("{prefix:?} matches no path"), Some(hint.into()));
        }
        let compression = policy::compression(&section.section("compression"), Some(above.compression));
        let cache = policy::cache(&section.section("cache"), Some(above.cache));
        let security = policy::security(&section.section("security"), Some(above.security));
        let target = destination(&section, Upstream::Elsewhere).or_else(|| inherited(&section, site));
        let Some(target) = target else { continue };
        routes.push(Route {
            prefix: prefix.clone(),
            strip_prefix: section.flag("strip_prefix").unwrap_or(false),
            target,
            origin: section.origin(),
            compression: section.has("compression").then_some(compression),
            cache: section.has("cache").then_some(cache),
            security: section.has("security").then_some(security),
        });
    }
    routes.sort_by_key(|it| std::cmp::Reverse(it.prefix.len()));
    routes
}

/// Whether what is written as `%XX` is UTF-8: paths are decoded before they are matched.
fn decodes(prefix: &str) -> bool {
    let mut parts = prefix.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|it| u8::from_str_radix(it, 16).ok()) else { return false };
        decoded.push(byte);
        decoded.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).is_ok()
}

/// A route that names no destination leads where its site leads, with other rules.
fn inherited(section: &Section<'_>, site: &Option<Target>) -> Option<Target> {
    if let Some(key) = proxy::KEYS.iter().find(|it| section.has(it)) {
        section.error_at_key(key, format!("`{key}` goes with a `url` or `urls` of the route"), None);
    }
    if site.is_none() {
        let hint = "give `url`, `urls`, `root`, `redirect` or `respond`";
        section.error("this route leads nowhere", Some(hint.into()));
    }
    site.clone()
}
