//! The configuration that runs when there is no file: this machine only, and one app to look at.

use std::path::Path;

/// TOML text for `load_text`. `exe` is the daemon's own program, whose hidden `demo-app` role is the app.
///
/// `_` is left out on purpose: the daemon answers there with its welcome page.
pub fn builtin(exe: &Path) -> String {
    // `$` begins a variable in strings, so one in a path has to be escaped; a path that is not UTF-8 cannot be written.
    let command = toml::Value::String(exe.to_string_lossy().replace("${", "$${"));
    format!(
        r#"[server]
bind = ["127.0.0.1", "::1"]
http_port = 8080
https_port = 8443
enable_https = true

[ssl]
issuer = "local"
unknown_sni = "default"

[admin]
listen = "127.0.0.1:9180"

[backends."app.localhost"]
name = "demo"
app_type = "command"
health_check = "/"

[backends."app.localhost".process]
command = {command}
args = ["demo-app"]
"#
    )
}
