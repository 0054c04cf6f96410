//! The configuration as understood: every default filled in, every value with its proper type.
//!
//! Nothing here can be half right: `load` either returns a whole `Config` or a list of problems. Paths are absolute
//! (resolved against the directory of the file that wrote them), secrets are `Secret`, durations are `Duration`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use indexmap::IndexMap;
use ipnet::IpNet;
use serde::Serialize;

use crate::{Account, ByteSize, Grant, Schedule, Secret};

/// Where a value was written. `line` and `column` count from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The main file; `None` for the built-in default.
    pub path: Option<PathBuf>,
    /// Every file that was read: the main file, includes, secret files. An `env_file` is read at each start of its app
    /// and only named there.
    pub files: Vec<PathBuf>,
    pub server: Server,
    pub admin: Admin,
    pub control: Control,
    pub ssl: Ssl,
    pub cloudflare: Cloudflare,
    pub acme: Option<Acme>,
    pub compression: Compression,
    pub cache: Cache,
    pub security: Security,
    pub logging: Logging,
    pub tracing: Tracing,
    pub metrics: Metrics,
    /// By host as written: exact, `*.example.com` or `_`.
    pub backends: IndexMap<String, Backend>,
}

impl Config {
    /// Whether anything is served over TLS: as written, else when a certificate or `auto_cert` is configured.
    pub fn https(&self) -> bool {
        let asked = |ssl: &Ssl| ssl.auto_cert || ssl.cert.is_some();
        let sites = self.backends.values().filter_map(|it| it.ssl.as_ref());
        let wanted = self.server.enable_https.unwrap_or_else(|| asked(&self.ssl) || sites.into_iter().any(asked));
        wanted && self.server.https_port != 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Addresses that every port below is bound on. Default `0.0.0.0` and `[::]`.
    pub bind: Vec<IpAddr>,
    /// 0 = off.
    pub http_port: u16,
    pub https_port: u16,
    /// `None` = on when a certificate or `auto_cert` is configured.
    pub enable_https: Option<bool>,
    pub http3: bool,
    pub redirect_https: bool,
    /// `None` (or 0 as written) = one per CPU that this process may use.
    pub workers: Option<usize>,
    pub max_connections: Option<usize>,
    pub keepalive_timeout: Duration,
    pub request_timeout: Duration,
    pub stream_idle_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub state_dir: Option<PathBuf>,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub h2c: bool,
    pub server_header: bool,
    pub request_id_header: bool,
    pub user: Option<String>,
    pub group: Option<String>,
    pub io_backend: IoBackend,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IoBackend {
    #[default]
    Auto,
    Epoll,
    IoUring,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub max_request_size: ByteSize,
    pub max_header_size: ByteSize,
    /// Bytes of the request target.
    pub max_uri_length: usize,
    /// Number of header fields.
    pub max_headers: usize,
    pub underscore_headers: UnderscoreHeaders,
}

/// What becomes of a request header whose name has an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnderscoreHeaders {
    #[default]
    Drop,
    Reject,
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// `None` = `"off"`.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Control {
    pub socket: Option<PathBuf>,
    pub group: Option<String>,
    /// `None`: whoever can open the socket may do everything.
    pub acl: Option<BTreeMap<Account, Grant>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ssl {
    pub auto_cert: bool,
    pub domains: Vec<String>,
    pub issuer: Issuer,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub min_version: Option<String>,
    pub client_auth: Option<String>,
    pub client_ca: Option<PathBuf>,
    pub unknown_sni: UnknownSni,
    /// HTTP/3 only.
    pub early_data: bool,
    pub ktls: bool,
    pub storage: Option<PathBuf>,
    /// Where the files were named.
    #[serde(skip)]
    pub places: SslPlaces,
}

/// Where the keys of an `[ssl]` table were written. Not part of what the table means: any two are equal.
#[derive(Clone, Debug, Default)]
pub struct SslPlaces {
    pub cert: Origin,
    pub key: Origin,
    pub client_auth: Origin,
    pub client_ca: Origin,
    pub issuer: Origin,
    pub ktls: Origin,
}

impl PartialEq for SslPlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Issuer {
    #[default]
    Auto,
    CloudflareOrigin,
    Acme,
    Local,
    File,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownSni {
    #[default]
    Reject,
    Default,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cloudflare {
    pub api_token: Option<Secret>,
    /// Where the token was read; it may be another one later.
    pub api_token_file: Option<PathBuf>,
    pub zone_id: Option<String>,
    pub account_id: Option<String>,
    pub api_base: Option<String>,
    pub trust: bool,
    pub only: bool,
    /// Who is served with `only` although it comes from elsewhere.
    pub only_exempt: Vec<IpNet>,
    pub only_refusal: OnlyRefusal,
    pub origin_pulls: bool,
    pub origin_ca_validity_days: Option<u32>,
    pub origin_ca_roots: Option<PathBuf>,
}

/// What those get who do not come through Cloudflare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlyRefusal {
    #[default]
    Close,
    Answer,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Acme {
    pub directory: Option<String>,
    pub contact: Vec<String>,
    pub challenge: Option<String>,
    pub http_port_public: Option<u16>,
    pub profile: Option<String>,
    pub eab: Option<Eab>,
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eab {
    pub key_id: String,
    pub hmac_key: Secret,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compression {
    pub enabled: bool,
    pub algorithms: Vec<String>,
    pub level: Option<u32>,
    pub min_size: ByteSize,
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cache {
    pub enabled: bool,
    pub max_size: ByteSize,
    pub ttl: Option<Duration>,
    pub ignore_cookies: Vec<String>,
    pub disk_path: Option<PathBuf>,
    pub disk_size: Option<ByteSize>,
    pub max_object_size: Option<ByteSize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Security {
    /// The name of the table.
    #[serde(skip)]
    pub place: String,
    pub enable_cors: bool,
    pub cors_origins: Vec<String>,
    pub cors_credentials: bool,
    pub enable_csrf: bool,
    pub csrf_trusted_origins: Vec<String>,
    pub csrf_exempt_paths: Vec<String>,
    /// Requests per minute and client.
    pub rate_limit: Option<u32>,
    /// The table that set it: all who take it over from there count together.
    #[serde(skip)]
    pub rate_limit_place: String,
    pub rate_limit_exempt: Vec<IpNet>,
    /// `ip_whitelist` and `allow` together.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    /// Header name (with `-`) to value; an empty value removes.
    pub headers: IndexMap<String, String>,
    pub mode: SecurityMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    #[default]
    Enforce,
    Report,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Logging {
    /// A tracing filter: `info`, `miwid=debug`. `RUST_LOG` wins.
    pub level: String,
    pub format: LogFormat,
    /// `None` = standard error.
    pub path: Option<PathBuf>,
    pub access_log: AccessLog,
    pub rotation: Rotation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessLog {
    pub enabled: bool,
    pub path: PathBuf,
    pub format: AccessFormat,
    /// Lines held before a write.
    pub buffer_size: usize,
    pub on_full: OnFull,
    /// JSON fields to write, in this order; empty = all.
    pub fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    Common,
    #[default]
    Combined,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    #[default]
    Drop,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    pub enabled: bool,
    pub max_size: ByteSize,
    pub max_backups: usize,
    pub compress: bool,
    pub max_age: Option<Duration>,
    pub max_total: Option<ByteSize>,
    pub naming: BackupNaming,
}

/// How rotated files are called: `access.log.1` or `access.log.20261124-101532`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupNaming {
    #[default]
    Numbered,
    Timed,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tracing {
    pub otlp_endpoint: Option<String>,
    pub sample_ratio: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    pub enabled: bool,
    pub per_site: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// The key as written, lower-cased.
    pub host: String,
    /// The short name, else the host.
    pub name: String,
    pub aliases: Vec<String>,
    pub app_type: AppType,
    pub origin: Origin,
    /// What the path `/` leads to.
    pub target: Target,
    /// Longest prefix first.
    pub routes: Vec<Route>,
    pub process: Option<Process>,
    /// Tables set for this site alone; `None` = the global one.
    pub ssl: Option<Ssl>,
    pub compression: Option<Compression>,
    pub cache: Option<Cache>,
    pub security: Option<Security>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AppType {
    Nodejs,
    Python,
    Java,
    Tomcat,
    Command,
    Proxy,
    Static,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    /// Begins with `/`. Matches the path and everything below it (`/api` matches `/api` and `/api/x`, not `/apix`;
    /// `/api/` matches `/api/x` only).
    pub prefix: String,
    pub strip_prefix: bool,
    pub target: Target,
    pub origin: Origin,
    pub compression: Option<Compression>,
    pub cache: Option<Cache>,
    pub security: Option<Security>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Files(Files),
    Proxy(Proxy),
    /// The app of this backend's `process`.
    App(Proxy),
    Redirect {
        to: String,
        status: u16,
    },
    Respond {
        status: u16,
        body: String,
        content_type: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Files {
    pub root: PathBuf,
    pub index: Vec<String>,
    pub listing: bool,
    /// File served for a GET of HTML that finds nothing, relative to the root.
    pub spa_fallback: Option<String>,
    pub precompressed: bool,
    /// Globs of names that are never served, beside dotfiles (except `.well-known`).
    pub hidden: Vec<String>,
    pub cache_control: Option<String>,
    pub symlinks: Symlinks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Followed as long as they stay below the root.
    #[default]
    Inside,
    Follow,
    Never,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proxy {
    /// Empty for a managed app: miwid assigns its addresses.
    pub urls: Vec<UpstreamUrl>,
    pub strategy: Strategy,
    pub health: Health,
    pub preserve_host: bool,
    pub upstream_http: UpstreamHttp,
    pub connect_timeout: Duration,
    pub retries: u32,
    pub sticky: Option<String>,
    pub max_in_flight: Option<usize>,
    /// What connections to the upstream begin with.
    pub proxy_protocol: Option<ProxyProtocol>,
    pub tls_ca: Option<PemFile>,
    /// Certificate chain and key.
    pub tls_client_cert: Option<PemFile>,
}

/// A file of certificates. Its content counts as part of the configuration: a file that was exchanged is a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PemFile {
    pub path: PathBuf,
    #[serde(skip)]
    pub digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// `http://host:port`, `https://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamUrl {
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix { path: PathBuf },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    #[default]
    RoundRobin,
    LeastConn,
    IpHash,
    RandomTwo,
    LeastTime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum UpstreamHttp {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Health {
    /// Path of an HTTP check; `None` = none configured.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Status codes that count as healthy; empty = 200 to 299.
    pub expect: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    pub origin: Origin,
    /// As written; adapters find one when it is absent.
    pub command: Option<String>,
    pub args: Vec<String>,
    pub shell: bool,
    /// Default: the directory of the configuration file.
    pub working_dir: PathBuf,
    pub working_dir_origin: Origin,
    pub auto_restart: AutoRestart,
    pub success_codes: Vec<i32>,
    pub fatal_exit_codes: Vec<i32>,
    pub env: IndexMap<String, Secret>,
    pub env_file: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub allow_root: bool,
    pub instances: u32,
    pub listen: Listen,
    pub start_timeout: Duration,
    /// `None` = 1 s for restart and reload, 10 s for deploy.
    pub settle_time: Option<Duration>,
    pub drain_timeout: Duration,
    pub stop_timeout: Duration,
    /// `SIGTERM`, `TERM` or `15` as written, normalised to the number.
    pub stop_signal: i32,
    pub kill_mode: Option<KillMode>,
    pub restart_strategy: RestartStrategy,
    pub hold: Hold,
    pub on_failure: OnFailure,
    pub memory_limit: Option<ByteSize>,
    /// A percentage has become the size by now.
    pub memory_restart: Option<ByteSize>,
    pub cpu_limit: Option<f64>,
    pub pids_limit: Option<u32>,
    pub max_requests: Option<u64>,
    pub max_lifetime: Option<Duration>,
    pub restart_schedule: Option<Schedule>,
    pub idle_timeout: Option<Duration>,
    pub wake_on: WakeOn,
    pub depends_on: Vec<String>,
    pub pre_deploy: Option<String>,
    pub watch: bool,
    pub logs: AppLogs,
    pub stream_drain: StreamDrain,
    pub on_all_unready: OnAllUnready,
    pub probes: Probes,
    pub python: Python,
    pub nodejs: Nodejs,
    pub tomcat: Tomcat,
    pub jvm: Jvm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoRestart {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    #[default]
    Auto,
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KillMode {
    Mixed,
    Group,
    Process,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartStrategy {
    #[default]
    Auto,
    Rolling,
    Hold,
    Recreate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Rollback,
    Halt,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Hold {
    pub max_requests: usize,
    pub timeout: Duration,
    pub release_concurrency: usize,
    pub on_start: bool,
}

/// Requests that wake an app that sleeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WakeOn {
    /// Empty = all.
    pub methods: Vec<String>,
    /// Whole paths; a `*` at the end stands for whatever follows. Empty = all.
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AppLogs {
    /// `None` = `logs/NAME.log` beside the access log.
    pub path: Option<PathBuf>,
    pub format: LogFormat,
    pub max_size: Option<ByteSize>,
    pub max_backups: Option<usize>,
    /// Bytes per second that one app may write; `None` = 20 MB.
    pub rate_limit: Option<ByteSize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamDrain {
    Wait,
    Now,
    CloseAfter(Duration),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAllUnready {
    #[default]
    Serve,
    Refuse,
    Hold,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Probes {
    pub startup: Option<Probe>,
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    pub kind: ProbeKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub failures: u32,
    pub successes: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    Http { path: String, expect: Vec<u16> },
    Tcp,
    Exec { command: Vec<String> },
    Log { pattern: String },
    Notify,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Python {
    pub app: Option<String>,
    pub interface: Interface,
    pub server: Option<String>,
    pub venv: Option<PathBuf>,
    pub workers: Option<u32>,
    pub threads: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    #[default]
    Auto,
    Wsgi,
    Asgi,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nodejs {
    pub script: Option<String>,
    pub package_manager: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tomcat {
    pub war: Option<PathBuf>,
    pub context: Option<String>,
    pub home: Option<PathBuf>,
    pub base_template: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Jvm {
    pub java_home: Option<PathBuf>,
    pub heap: Option<ByteSize>,
    pub gc: Option<String>,
    pub options: Vec<String>,
    pub profile: Option<String>,
}
