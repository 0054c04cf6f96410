//! A program in a JAR. What it is built with is read from its manifest, and told its address in the words that it knows.

use std::{path::Path, time::Duration};

use config::{KillMode, Process, Secret};

use super::super::archive::Archive;
use super::{
    Obstacle, Recipe, command,
    jvm::{self, Java},
    tcp_unless_unix, war,
};

const MANIFEST_BYTES_MAX: u64 = 64 << 10;

pub(super) fn recipe(process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Vec<Obstacle>> {
    let Some(jar) = process.command.as_deref().filter(|it| it.ends_with(".jar")) else {
        // A program of the operator's choice, perhaps `java` itself with a line of its own.
        let mut own = command::recipe(process, env).map_err(|obstacle| vec![obstacle])?;
        own.env = settings(process);
        return Ok(own);
    };
    let mut obstacles = Vec::new();
    let mut keep = |obstacle| obstacles.push(obstacle);
    let java = Java::find(process, env).map_err(&mut keep).ok();
    let options = jvm::options(process).map_err(&mut keep).ok();
    let (Some(java), Some((options, notices))) = (java, options) else { return Err(obstacles) };
    let jar = process.working_dir.join(jar);
    check(&jar, &java).map_err(|obstacle| vec![obstacle])?;
    let mut argv = vec![java.program()];
    argv.extend(options);
    argv.extend(["-jar".to_owned(), jar.display().to_string()]);
    argv.extend(process.args.iter().cloned());
    let mut env = settings(process);
    env.push(("JAVA_HOME".to_owned(), java.home.display().to_string()));
    Ok(Recipe {
        argv,
        env,
        address: tcp_unless_unix(process.listen),
        kill_mode: process.kill_mode.unwrap_or(KillMode::Mixed),
        // Spring's and Quarkus' servers keep a connection for 20 seconds and more.
        upstream_idle: Duration::from_secs(10),
        notices,
        base: None,
        gates: Vec::new(),
    })
}

/// Spring Boot, Quarkus and Micronaut read these; whoever does not is not bothered by them.
fn settings(process: &Process) -> Vec<(String, String)> {
    let grace = process.stop_timeout.as_secs().saturating_sub(2).max(1);
    [
        ("SERVER_PORT", "{port}".to_owned()),
        ("SERVER_ADDRESS", "{host}".to_owned()),
        ("SERVER_SHUTDOWN", "graceful".to_owned()),
        ("SPRING_LIFECYCLE_TIMEOUT_PER_SHUTDOWN_PHASE", format!("{grace}s")),
        ("MANAGEMENT_ENDPOINT_HEALTH_PROBES_ENABLED", "true".to_owned()),
        ("QUARKUS_HTTP_PORT", "{port}".to_owned()),
        ("QUARKUS_HTTP_HOST", "{host}".to_owned()),
        ("MICRONAUT_SERVER_PORT", "{port}".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn fail(code: &'static str, message: String, hint: impl Into<Option<String>>) -> Obstacle {
    Obstacle::new(code, "command", message, hint)
}

fn check(jar: &Path, java: &Java) -> Result<(), Obstacle> {
    if !jar.is_file() {
        return Err(fail("app-jar-missing", format!("{} does not exist", jar.display()), None));
    }
    let archive =
        Archive::open(jar).map_err(|why| fail("app-jar-broken", format!("{}: {why}", jar.display()), None))?;
    let manifest = archive.find("META-INF/MANIFEST.MF").and_then(|it| archive.read(it, MANIFEST_BYTES_MAX).ok());
    let manifest = String::from_utf8_lossy(&manifest.unwrap_or_default()).into_owned();
    let Some(main) = attribute(&manifest, "Main-Class") else {
        let message = format!("{} has no Main-Class in its manifest: it is no program", jar.display());
        return Err(fail(
            "app-jar-no-main",
            message,
            "build an executable JAR, or use command = \"java\" with args".to_owned(),
        ));
    };
    // Spring Boot's own starter is in Main-Class; the program's class is elsewhere.
    let start = attribute(&manifest, "Start-Class");
    let class = start.as_ref().unwrap_or(&main).replace('.', "/");
    let places = [format!("BOOT-INF/classes/{class}.class"), format!("{class}.class")];
    let Some(entry) = places.iter().find_map(|name| archive.find(name)) else { return Ok(()) };
    let version = archive.read(entry, 8).ok().and_then(|bytes| war::class_version(&bytes));
    match version {
        Some(version) if version > java.class_version() => Err(war::too_new(&entry.name, version, java, "command")),
        _ => Ok(()),
    }
}

/// A manifest breaks its lines after 72 bytes and goes on after a blank.
fn attribute(manifest: &str, name: &str) -> Option<String> {
    let whole = manifest.replace("\r\n ", "").replace("\n ", "");
    let value = whole.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::app::archive::tests::zip;

    #[test]
    fn a_jar_must_have_a_main_class_that_this_java_can_read() {
        let java = Java { home: PathBuf::from("/usr/lib/jvm/17"), version: 17 };
        let class = |version: u8| [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, version];
        let judged = |manifest: &str, class: &[u8]| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            let files = [("META-INF/MANIFEST.MF", manifest.as_bytes()), ("BOOT-INF/classes/a/Shop.class", class)];
            std::fs::write(file.path(), zip(b"#!/bin/sh\n", &files)).expect("written");
            check(file.path(), &java).map_err(|obstacle| obstacle.code)
        };
        let boot = "Main-Class: org.springframework.boot.loader.Jar\r\n Launcher\r\nStart-Class: a.Shop\r\n";
        assert_eq!(judged(boot, &class(61)), Ok(()));
        assert_eq!(judged(boot, &class(65)), Err("app-java-class-version"));
        assert_eq!(judged("Manifest-Version: 1.0\n", &class(61)), Err("app-jar-no-main"));
        assert_eq!(attribute(boot, "Main-Class").as_deref(), Some("org.springframework.boot.loader.JarLauncher"));
    }
}
