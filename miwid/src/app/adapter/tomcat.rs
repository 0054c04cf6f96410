//! A web archive in a Tomcat of its own: one machine and one generated `CATALINA_BASE` for each instance, so that an
//! instance is replaced as a whole and the packaged Tomcat stays untouched.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{KillMode, Listen, Process, Secret};

use super::super::{
    archive::Archive,
    environment,
    spec::{AddressPlan, Base, Gate},
};
use super::{
    Obstacle, Recipe,
    jvm::{self, Java},
    war,
};

/// Answers 200 once every container is up, and 503 when one of them failed: the connector opens after both.
const HEALTH: &str = "/.miwi/health";
/// Where packages put it, newest first.
const HOMES: [&str; 3] = ["/usr/share/tomcat11", "/usr/share/tomcat10", "/usr/share/tomcat9"];
/// Since this version of Java a connector can listen on a unix socket.
const UNIX_SINCE: u32 = 16;
const LOGGING: &str = "handlers = java.util.logging.ConsoleHandler\n.handlers = java.util.logging.ConsoleHandler\n\
    java.util.logging.ConsoleHandler.level = FINE\n\
    java.util.logging.ConsoleHandler.formatter = org.apache.juli.OneLineFormatter\n";

struct Tomcat {
    home: PathBuf,
    version: (u32, u32),
}

pub(super) fn recipe(process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let mut keep = |obstacle| obstacles.push(obstacle);
    let java = Java::find(process, env).map_err(&mut keep).ok();
    let tomcat = Tomcat::find(process, env).map_err(&mut keep).ok();
    let war = archive(process).map_err(&mut keep).ok();
    let options = jvm::options(process).map_err(&mut keep).ok();
    let (Some(java), Some(tomcat), Some(war), Some((options, notices))) = (java, tomcat, war, options) else {
        return Err(obstacles);
    };
    tomcat.suits(&java).and_then(|()| war::check(&war, tomcat.version, &java)).map_err(|it| vec![it])?;
    let unix = process.listen == Listen::Unix || (process.listen == Listen::Auto && java.version >= UNIX_SINCE);
    if unix && java.version < UNIX_SINCE {
        let message = format!("Java {} cannot listen on a unix socket", java.version);
        let hint = format!("set listen = \"tcp\", or use Java {UNIX_SINCE} or newer");
        return Err(vec![Obstacle::new("app-java-version", "listen", message, hint)]);
    }
    let context = process.tomcat.context.as_deref().unwrap_or("/").trim_end_matches('/');
    Ok(Recipe {
        argv: line(&java, &tomcat.home, options, process),
        env: vec![
            ("JAVA_HOME".to_owned(), java.home.display().to_string()),
            ("CATALINA_HOME".to_owned(), tomcat.home.display().to_string()),
            ("CATALINA_BASE".to_owned(), "{base}".to_owned()),
        ],
        address: if unix { AddressPlan::Unix } else { AddressPlan::Tcp },
        kill_mode: process.kill_mode.unwrap_or(KillMode::Mixed),
        upstream_idle: Duration::from_secs(60),
        notices,
        base: Some(base(process, &tomcat.home, &war, context, unix)),
        gates: vec![
            Gate::Decisive { path: HEALTH.to_owned(), hint: "the web archive did not start" },
            // A Tomcat without any archive calls itself healthy.
            Gate::Present { path: format!("{context}/") },
        ],
    })
}

fn archive(process: &Process) -> Result<PathBuf, Obstacle> {
    process.tomcat.war.clone().ok_or_else(|| {
        let hint = "set tomcat.war = \"/path/to/shop.war\", or deploy one: miwictl app deploy NAME shop.war".to_owned();
        Obstacle::new("app-war-missing", "tomcat.war", "no web archive is named".to_owned(), hint)
    })
}

fn line(java: &Java, home: &Path, options: Vec<String>, process: &Process) -> Vec<String> {
    let home = home.display();
    let mut argv = vec![java.program()];
    argv.extend(options);
    argv.extend([
        "-Djava.util.logging.config.file={base}/conf/logging.properties".to_owned(),
        "-Djava.util.logging.manager=org.apache.juli.ClassLoaderLogManager".to_owned(),
        // Or it stays alive without a listener.
        "-Dorg.apache.catalina.startup.EXIT_ON_INIT_FAILURE=true".to_owned(),
        format!("-Dcatalina.home={home}"),
        "-Dcatalina.base={base}".to_owned(),
        "-Djava.io.tmpdir={base}/temp".to_owned(),
        "-cp".to_owned(),
        format!("{home}/bin/bootstrap.jar:{home}/bin/tomcat-juli.jar"),
    ]);
    argv.push("org.apache.catalina.startup.Bootstrap".to_owned());
    argv.extend(process.args.iter().cloned());
    argv.push("start".to_owned());
    argv
}

fn base(process: &Process, home: &Path, war: &Path, context: &str, unix: bool) -> Base {
    let conf = conf(home);
    let name = if context.is_empty() { "ROOT".to_owned() } else { context.trim_matches('/').replace('/', "#") };
    let mut copies = Vec::new();
    for file in ["web.xml", "context.xml", "catalina.properties"] {
        copies
            .extend(conf.iter().map(|dir| (Path::new("conf").join(file), dir.join(file))).filter(|it| it.1.is_file()));
    }
    let template = process.tomcat.base_template.clone();
    let own = |name: &str| template.as_ref().and_then(|dir| fs::read_to_string(dir.join(name)).ok());
    let texts = [("conf/server.xml", server(process, unix)), ("conf/logging.properties", LOGGING.to_owned())]
        .map(|(name, text)| (PathBuf::from(name), own(name).unwrap_or(text)))
        .to_vec();
    Base {
        directories: ["conf", "lib", "logs", "temp", "webapps", "work"].map(PathBuf::from).to_vec(),
        copies,
        archive: Some((PathBuf::from(format!("webapps/{name}.war")), war.to_owned())),
        texts,
        template,
    }
}

/// Debian keeps the pristine files in `etc`, everybody else in `conf`.
fn conf(home: &Path) -> Option<PathBuf> {
    ["etc", "conf"].map(|name| home.join(name)).into_iter().find(|dir| dir.join("web.xml").is_file())
}

/// No shutdown port, no AJP, no manager. A connector that binds only on start is one that can be stopped gracefully.
fn server(process: &Process, unix: bool) -> String {
    let patience = process.stop_timeout.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1)).as_millis();
    let place = if unix {
        "unixDomainSocketPath=\"{socket}\" unixDomainSocketPathPermissions=\"rw-rw----\""
    } else {
        "address=\"{host}\" port=\"{port}\""
    };
    let threads = 200;
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Server port="-1" shutdown="SHUTDOWN">
  <Service name="Catalina" gracefulStopAwaitMillis="{patience}">
    <Connector protocol="org.apache.coyote.http11.Http11NioProtocol" bindOnInit="false"
               {place}
               maxThreads="{threads}" acceptCount="256" connectionTimeout="20000" keepAliveTimeout="75000"
               maxKeepAliveRequests="-1"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Valve className="org.apache.catalina.valves.RemoteIpValve" protocolHeader="x-forwarded-proto"/>
      <Valve className="org.apache.catalina.valves.HealthCheckValve" path="{HEALTH}"/>
      <Host name="localhost" appBase="webapps" unpackWARs="true" autoDeploy="false" deployOnStartup="true"
            failCtxIfServletStartFails="true"/>
    </Engine>
  </Service>
</Server>
"#
    )
}

// === impl Tomcat ===

impl Tomcat {
    fn find(process: &Process, env: &[(String, Secret)]) -> Result<Self, Obstacle> {
        let named = process.tomcat.home.clone();
        let named = named.or_else(|| environment::value(env, "CATALINA_HOME").map(PathBuf::from));
        let candidates = match &named {
            Some(home) => vec![home.clone()],
            None => HOMES.iter().map(PathBuf::from).chain(unpacked()).collect(),
        };
        let complete =
            |home: &&PathBuf| home.join("bin/bootstrap.jar").is_file() && home.join("lib/catalina.jar").is_file();
        let Some(home) = candidates.iter().find(complete).cloned() else {
            let places = candidates.iter().map(|it| it.display().to_string()).collect::<Vec<_>>().join(", ");
            let message = format!("no Tomcat (bin/bootstrap.jar, lib/catalina.jar) in {places}");
            let hint = "install one (apt-get install tomcat10), or set tomcat.home".to_owned();
            return Err(Obstacle::new("app-tomcat-missing", "tomcat.home", message, hint));
        };
        let version = version(&home).ok_or_else(|| {
            let message = format!("{}/lib/catalina.jar does not tell its version", home.display());
            Obstacle::new("app-tomcat-missing", "tomcat.home", message, "install it anew".to_owned())
        })?;
        Ok(Self { home, version })
    }

    fn suits(&self, java: &Java) -> Result<(), Obstacle> {
        let needed = match self.version {
            (0..=9, _) | (10, 0) => 8,
            (10, _) => 11,
            _ => 17,
        };
        if java.version >= needed {
            return Ok(());
        }
        let (major, minor) = self.version;
        let message =
            format!("Tomcat {major}.{minor} needs Java {needed}, and {} is Java {}", java.home.display(), java.version);
        Err(Obstacle::new(
            "app-java-version",
            "jvm.java_home",
            message,
            format!("set jvm.java_home to a Java {needed} or newer"),
        ))
    }
}

/// `/opt/tomcat`, `/opt/tomcat-10.1.60`: the newest name first.
fn unpacked() -> Vec<PathBuf> {
    let entries = fs::read_dir("/opt").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().to_lowercase().contains("tomcat"))
        .map(|entry| entry.path())
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

fn version(home: &Path) -> Option<(u32, u32)> {
    let archive = Archive::open(&home.join("lib/catalina.jar")).ok()?;
    let entry = archive.find("org/apache/catalina/util/ServerInfo.properties")?;
    let text = String::from_utf8(archive.read(entry, 16 << 10).ok()?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("server.number="))?;
    let mut numbers = line.trim().split('.').filter_map(|it| it.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
