//! `compression`, `cache` and `security`: global, of a site, of a route. What one leaves out comes from above.

use indexmap::IndexMap;

use crate::{
    ByteSize, Cache, Compression, Security, SecurityMode,
    section::{Section, text_of},
    values,
};

const COMPRESSIBLE: [&str; 12] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/yaml",
    "application/toml",
    "application/wasm",
    "font/ttf",
    "font/otf",
    "image/x-icon",
];

pub(super) fn compression(section: &Section<'_>, above: Option<&Compression>) -> Compression {
    let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    let above = above.cloned().unwrap_or_else(|| Compression {
        enabled: section.present(),
        algorithms: owned(&["zstd", "br", "gzip"]),
        level: None,
        min_size: ByteSize::kib(1),
        types: owned(&COMPRESSIBLE),
    });
    Compression {
        enabled: section.flag("enabled").unwrap_or(section.present() || above.enabled),
        algorithms: section.texts("algorithms").unwrap_or(above.algorithms),
        level: section.integer("level").or(above.level),
        min_size: section.size("min_size").unwrap_or(above.min_size),
        types: section.texts("types").unwrap_or(above.types),
    }
}

pub(super) fn cache(section: &Section<'_>, above: Option<&Cache>) -> Cache {
    let above = above.cloned().unwrap_or_else(|| Cache {
        enabled: section.present(),
        max_size: ByteSize::mib(64),
        ttl: None,
        ignore_cookies: Vec::new(),
        disk_path: None,
        disk_size: None,
        max_object_size: None,
    });
    if section.has("disk_size") && !section.has("disk_path") && above.disk_path.is_none() {
        section.error_at(
            "disk_size",
            "`disk_size` has no `disk_path`",
            Some("give the directory as `disk_path`".into()),
        );
    }
    Cache {
        enabled: section.flag("enabled").unwrap_or(section.present() || above.enabled),
        max_size: section.size("max_size").unwrap_or(above.max_size),
        ttl: section.duration("ttl").or(above.ttl),
        ignore_cookies: section.texts("ignore_cookies").unwrap_or(above.ignore_cookies),
        disk_path: section.path("disk_path").or(above.disk_path),
        disk_size: section.size("disk_size").or(above.disk_size),
        max_object_size: section.size("max_object_size").or(above.max_object_size),
    }
}

pub(super) fn security(section: &Section<'_>, above: Option<&Security>) -> Security {
    let above = above.cloned().unwrap_or_default();
    let mut headers = above.headers;
    for (name, value) in own_headers(&section.section("headers")) {
        headers.insert(name, value);
    }
    // Either of the two names, or both, replace the list above.
    let allow = match (section.nets("ip_whitelist"), section.nets("allow")) {
        (None, None) => above.allow,
        (a, b) => a.into_iter().chain(b).flatten().collect(),
    };
    let rate_limit_place = if section.has("rate_limit") { section.path.clone() } else { above.rate_limit_place };
    let security = Security {
        place: if section.present() { section.path.clone() } else { above.place },
        enable_cors: section.flag("enable_cors").unwrap_or(above.enable_cors),
        cors_origins: section.texts("cors_origins").unwrap_or(above.cors_origins),
        cors_credentials: section.flag("cors_credentials").unwrap_or(above.cors_credentials),
        enable_csrf: section.flag("enable_csrf").unwrap_or(above.enable_csrf),
        csrf_trusted_origins: section.texts("csrf_trusted_origins").unwrap_or(above.csrf_trusted_origins),
        csrf_exempt_paths: section.texts("csrf_exempt_paths").unwrap_or(above.csrf_exempt_paths),
        rate_limit: section.integer("rate_limit").or(above.rate_limit),
        rate_limit_place,
        rate_limit_exempt: section.nets("rate_limit_exempt").unwrap_or(above.rate_limit_exempt),
        allow,
        deny: section.nets("deny").unwrap_or(above.deny),
        headers,
        mode: section.choice("mode", &[SecurityMode::Enforce, SecurityMode::Report]).unwrap_or(above.mode),
    };
    if section.flag("enable_cors") == Some(true) && security.cors_origins.is_empty() {
        section.error_at("enable_cors", "CORS is on for no origin", Some("give `cors_origins`".into()));
    }
    let is_about_both = section.has("cors_credentials") || section.has("cors_origins");
    if is_about_both && security.cors_credentials && security.cors_origins.iter().any(|it| it == "*") {
        let hint = "name the origins: with cookies, browsers take no `*`, and every site could read what is private";
        section.error_at("cors_credentials", "cookies come along from every origin", Some(hint.into()));
    }
    for key in ["cors_origins", "csrf_trusted_origins"] {
        origins(section, key);
    }
    security
}

fn origins(section: &Section<'_>, key: &str) {
    for origin in section.texts(key).unwrap_or_default() {
        let host = origin.split_once("://").map_or("", |it| it.1);
        if origin != "*" && (host.is_empty() || host.contains('/')) {
            let hint = "write `https://example.com`, without a path and without a `/` at the end";
            section.error_at(key, format!("{origin:?} is not an origin"), Some(hint.into()));
        }
    }
}

/// What a connection lives by.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn own_headers(section: &Section<'_>) -> IndexMap<String, String> {
    let mut headers = IndexMap::new();
    for (key, node) in section.keys() {
        let name = key.replace('_', "-").to_ascii_lowercase();
        if !values::header_name(&name) {
            section.error_at_key(key, format!("{key:?} is not the name of a header"), None);
        } else if FRAMING.contains(&name.as_str()) {
            let hint = "take it out: miwid writes it for each answer, as that answer needs it";
            section.error_at_key(key, format!("`{name}` is not for a configuration to say"), Some(hint.into()));
        }
        if let Some(value) = text_of(node) {
            headers.insert(name, value);
        }
    }
    headers
}
