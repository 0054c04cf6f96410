//! Web archives and JARs for the tests, built from the sources in `tests/apps` with the machine's own compiler. Each is
//! built once for a run; another version of the same app differs in what its `version.txt` says.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use crate::binaries::{profile_directory, repository};

const TOMCAT: &str = "/usr/share/tomcat10";

/// What these tests need and this machine lacks.
pub fn missing() -> Option<&'static str> {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    if !runs("javac") || !runs("jar") {
        return Some("a JDK is not installed");
    }
    (!Path::new(TOMCAT).join("lib/servlet-api.jar").exists())
        .then_some("tomcat10 is not installed; tests/run installs it")
}

/// The archive of the app `name` in `tests/apps/tomcat`.
pub fn war(name: &str, version: &str) -> PathBuf {
    built(&format!("{name}-{version}.war"), |out| {
        let source = repository().join("tests/apps/tomcat").join(name);
        let classes = out.join("WEB-INF/classes");
        let api = format!("{TOMCAT}/lib/servlet-api.jar");
        run(Command::new("javac")
            .args(["--release", "17", "-cp", &api, "-sourcepath"])
            .arg(&source)
            .arg("-d")
            .arg(&classes)
            .arg(main_source(&source)));
        // What was only there for the compiler.
        let _ = fs::remove_dir_all(classes.join("javax"));
        fs::write(classes.join("version.txt"), version).expect("writes the version");
        vec![".".to_owned()]
    })
}

/// The program of `tests/apps/jar`.
pub fn jar() -> PathBuf {
    built("server.jar", |out| {
        let source = repository().join("tests/apps/jar/Server.java");
        run(Command::new("javac").args(["--release", "17", "-d"]).arg(out).arg(source));
        vec![".".to_owned()]
    })
}

/// A copy of `war` whose classes are for another version of Java.
pub fn recompiled(war: &Path, name: &str, class_version: u8) -> PathBuf {
    built(&format!("{name}.war"), |out| {
        run(Command::new("jar").arg("--extract").arg("--file").arg(war).current_dir(out));
        for class in classes(out) {
            let mut bytes = fs::read(&class).expect("reads the class");
            bytes[7] = class_version;
            fs::write(&class, bytes).expect("writes the class");
        }
        vec![".".to_owned()]
    })
}

fn classes(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|it| it.is_dir());
    let own = files.into_iter().filter(|it| it.extension().is_some_and(|it| it == "class"));
    own.chain(directories.iter().flat_map(|it| classes(it))).collect()
}

fn main_source(directory: &Path) -> PathBuf {
    let mut sources = fs::read_dir(directory).expect("reads the app").flatten().map(|it| it.path());
    sources.find(|it| it.extension().is_some_and(|it| it == "java")).expect("a source")
}

/// Fills a directory and packs what `fill` says of it.
fn built(name: &str, fill: impl FnOnce(&Path) -> Vec<String>) -> PathBuf {
    static DONE: OnceLock<Mutex<BTreeMap<String, PathBuf>>> = OnceLock::new();
    let mut done = DONE.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = done.get(name) {
        return path.clone();
    }
    let directory = profile_directory().join("java");
    fs::create_dir_all(&directory).expect("makes the directory");
    let out = tempfile::tempdir_in(&directory).expect("a directory");
    let path = directory.join(name);
    let content = fill(out.path());
    let mut jar = Command::new("jar");
    jar.arg("--create").arg("--file").arg(&path);
    if name == "server.jar" {
        jar.args(["--main-class", "Server"]);
    }
    run(jar.arg("-C").arg(out.path()).args(content));
    done.insert(name.to_owned(), path.clone());
    path
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
