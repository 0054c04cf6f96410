//! What this version cannot do yet. The configuration crate knows every key; a key listed here is refused, because a key
//! that is silently ignored is worse than one that does not exist, above all when it is about security.
//!
//! One table: an issue that builds a feature takes its lines out.

use config::Capabilities;

const NOT_YET: &str = "not available in this version";

/// Dotted keys; `*` stands for one segment, `**` for all that follow. `key=value` refuses only that value.
const UNAVAILABLE: &[&str] = &[
    "server.enable_https=true",
    "server.redirect_https=true",
    "server.proxy_protocol=true",
    "server.user",
    "server.group",
    "server.io_backend=io_uring",
    "control.acl.**",
    "ssl.**",
    "cloudflare.**",
    "acme.**",
    "compression.**",
    "cache.**",
    "security.**",
    "tracing.**",
    "metrics.per_site=true",
    "backends.*.app_type=java",
    "backends.*.app_type=tomcat",
    "backends.*.strategy=random_two",
    "backends.*.strategy=least_time",
    "backends.*.upstream_http=2",
    "backends.*.sticky",
    "backends.*.tls_ca",
    "backends.*.tls_client_cert",
    "backends.*.ssl.**",
    "backends.*.compression.**",
    "backends.*.cache.**",
    "backends.*.security.**",
    "backends.*.routes.*.ssl.**",
    "backends.*.routes.*.compression.**",
    "backends.*.routes.*.cache.**",
    "backends.*.routes.*.security.**",
    "backends.*.files.precompressed=true",
    "backends.*.process.memory_limit",
    "backends.*.process.memory_restart",
    "backends.*.process.cpu_limit",
    "backends.*.process.pids_limit",
    "backends.*.process.max_requests",
    "backends.*.process.max_lifetime",
    "backends.*.process.restart_schedule",
    "backends.*.process.idle_timeout",
    "backends.*.process.depends_on",
    "backends.*.process.pre_deploy",
    "backends.*.process.watch=true",
    "backends.*.process.probes.**",
    "backends.*.tomcat.**",
    "backends.*.jvm.**",
];

/// What this binary can run.
pub fn capabilities() -> Capabilities {
    let mut unavailable: Vec<(&'static str, String)> =
        UNAVAILABLE.iter().map(|key| (*key, NOT_YET.to_owned())).collect();
    if !cfg!(feature = "metrics") {
        unavailable.push(("metrics.**", "built without metrics".to_owned()));
    }
    if !cfg!(feature = "cloudflare") {
        unavailable.insert(0, ("cloudflare.**", "built without cloudflare".to_owned()));
    }
    let http3 = if cfg!(feature = "http3") { NOT_YET } else { "built without http3" };
    unavailable.push(("server.http3=true", http3.to_owned()));
    Capabilities { unavailable }
}
