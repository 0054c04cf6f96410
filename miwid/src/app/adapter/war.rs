//! What can be seen of a web archive before a Tomcat is started with it: an archive for the wrong Tomcat or the wrong Java
//! would come up as a server that answers 404 for ever.

use std::path::Path;

use super::super::archive::{Archive, Entry};
use super::{Obstacle, jvm::Java};

/// So many classes are looked into; what is wrong with one is wrong with most.
const CLASSES_MAX: usize = 500;
/// The names that a class refers to lie at its beginning.
const CLASS_BYTES_MAX: u64 = 256 << 10;
const CLASS_MAGIC: &[u8] = &[0xca, 0xfe, 0xba, 0xbe];

/// Which Servlet API a class refers to, and the version it was compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Class {
    version: u32,
    javax: bool,
    jakarta: bool,
}

fn fail(code: &'static str, message: String, hint: impl Into<Option<String>>) -> Obstacle {
    Obstacle::new(code, "tomcat.war", message, hint)
}

/// Judges the archive for a Tomcat of the version `tomcat` on `java`.
pub(super) fn check(war: &Path, tomcat: (u32, u32), java: &Java) -> Result<(), Obstacle> {
    if !war.is_file() {
        return Err(fail("app-war-missing", format!("{} does not exist", war.display()), None));
    }
    let archive =
        Archive::open(war).map_err(|why| fail("app-war-broken", format!("{}: {why}", war.display()), None))?;
    if !archive.entries.iter().any(|entry| entry.name.starts_with("WEB-INF/")) {
        let message = format!("{} has no WEB-INF/: it is no web archive", war.display());
        return Err(fail("app-war-broken", message, "for a JAR use app_type = \"java\"".to_owned()));
    }
    let own = |entry: &&Entry| {
        entry.name.starts_with("WEB-INF/classes/")
            && entry.name.ends_with(".class")
            && !entry.name.contains("META-INF/versions/")
            && !entry.name.ends_with("module-info.class")
    };
    let mut old = None;
    let mut modern = false;
    for entry in archive.entries.iter().filter(own).take(CLASSES_MAX) {
        let bytes = archive.read(entry, CLASS_BYTES_MAX).unwrap_or_default();
        let Some(class) = read(&bytes) else { continue };
        version(&class, entry, java)?;
        modern |= class.jakarta;
        if class.javax {
            old.get_or_insert_with(|| entry.name.clone());
        }
    }
    match old {
        Some(class) if tomcat.0 >= 10 && !modern => {
            let message =
                format!("this WAR is Java EE ({class} uses javax.servlet), and Tomcat {} needs Jakarta", tomcat.0);
            let hint = "set tomcat.home to a Tomcat 9, or convert the WAR with Tomcat's migration tool".to_owned();
            Err(fail("app-war-javax", message, hint))
        }
        _ if modern && tomcat.0 < 10 => {
            let message = format!("this WAR is Jakarta EE (jakarta.servlet), and Tomcat {} knows javax only", tomcat.0);
            Err(fail("app-war-jakarta", message, "set tomcat.home to a Tomcat 10 or newer".to_owned()))
        }
        _ => Ok(()),
    }
}

fn version(class: &Class, entry: &Entry, java: &Java) -> Result<(), Obstacle> {
    if class.version <= java.class_version() {
        return Ok(());
    }
    Err(too_new(&entry.name, class.version, java, "tomcat.war"))
}

/// A class that this machine cannot read; both versions are named.
pub(super) fn too_new(name: &str, version: u32, java: &Java, key: &'static str) -> Obstacle {
    let wanted = version.saturating_sub(44);
    let message = format!("{name} is for Java {wanted}, and {} is Java {}", java.home.display(), java.version);
    let hint = format!("set jvm.java_home to a Java {wanted}, or compile for {}", java.version);
    Obstacle::new("app-java-class-version", key, message, hint)
}

/// The major version of a class file; `None` when it is none.
pub(super) fn class_version(bytes: &[u8]) -> Option<u32> {
    let is_class = bytes.starts_with(CLASS_MAGIC);
    bytes.get(6..8).filter(|_| is_class).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
}

fn read(bytes: &[u8]) -> Option<Class> {
    let names = |package: &[u8]| memchr::memmem::find(bytes, package).is_some();
    Some(Class { version: class_version(bytes)?, javax: names(b"javax/servlet/"), jakarta: names(b"jakarta/servlet/") })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::app::archive::tests::zip;

    fn class(version: u16, text: &str) -> Vec<u8> {
        [CLASS_MAGIC, &[0, 0], &version.to_be_bytes(), text.as_bytes()].concat()
    }

    fn judged(tomcat: (u32, u32), files: &[(&str, &[u8])]) -> Result<(), &'static str> {
        let java = Java { home: PathBuf::from("/usr/lib/jvm/17"), version: 17 };
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), zip(b"", files)).expect("written");
        check(file.path(), tomcat, &java).map_err(|obstacle| obstacle.code)
    }

    #[test]
    fn an_archive_must_fit_the_tomcat_and_the_java() {
        const NAME: &str = "WEB-INF/classes/a/Hello.class";
        let (javax, jakarta) = (class(55, "Ljavax/servlet/http/HttpServlet;"), class(61, "jakarta/servlet/Filter"));
        let newer = class(65, "jakarta/servlet/Filter");
        for (tomcat, name, content, expected) in [
            ((10, 1), NAME, &jakarta, Ok(())),
            ((9, 0), NAME, &javax, Ok(())),
            ((10, 1), NAME, &javax, Err("app-war-javax")),
            ((9, 0), NAME, &jakarta, Err("app-war-jakarta")),
            ((10, 1), NAME, &newer, Err("app-java-class-version")),
            // Other classes are the business of who packed them.
            ((10, 1), "WEB-INF/classes/META-INF/versions/21/a/Hello.class", &newer, Ok(())),
            ((10, 1), "index.html", &jakarta, Err("app-war-broken")),
        ] {
            assert_eq!(judged(tomcat, &[(name, content)]), expected, "{tomcat:?} {name}");
        }
    }
}
