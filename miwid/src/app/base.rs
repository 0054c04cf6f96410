//! The directory that an attempt has for itself: made before its start, gone after its end. What an instance writes there
//! (unpacked archives, work files, its temporary files) must not meet its successor. Blocking.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    launcher::LaunchError,
    preflight, releases,
    spec::{Base, User},
};

/// An app's directories, `STATE/apps/NAME/i`: only what runs now has one there.
pub(super) fn place(state_dir: &Path, app: &str, instance: &str) -> PathBuf {
    state_dir.join("apps").join(app).join("i").join(instance)
}

/// `build`, and whether the app's user can get there.
pub(super) fn make(at: &Path, base: &Base, user: Option<&User>) -> Result<(), LaunchError> {
    let failed = |error: io::Error| LaunchError {
        step: format!("make the instance's directory ({error})"),
        errno: error.raw_os_error().unwrap_or(0),
    };
    build(at, base, user).map_err(failed)?;
    preflight::directory(at, user).map_err(|obstacle| LaunchError { step: obstacle.message, errno: nix::libc::EACCES })
}

/// Makes the directory at `at` and gives all of it to `user`.
pub(super) fn build(at: &Path, base: &Base, user: Option<&User>) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    DirBuilder::new().mode(0o750).create(at)?;
    if let Some(template) = &base.template {
        copy_tree(template, at)?;
    }
    for directory in &base.directories {
        DirBuilder::new().recursive(true).mode(0o750).create(at.join(directory))?;
    }
    for (name, source) in &base.copies {
        let target = at.join(name);
        if !target.exists() {
            fs::copy(source, &target).map_err(|error| named(source, &error))?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o640))?;
        }
    }
    for (name, text) in &base.texts {
        let target = at.join(name);
        fs::write(&target, text)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640))?;
    }
    if let Some((name, source)) = &base.archive {
        copy_readable(source, &at.join(name), user)?;
    }
    // The outermost last: until then nobody but us reaches what is inside.
    user.map_or(Ok(()), |user| releases::give_tree(at, user))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Follows no symbolic link.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from).map_err(|error| named(from, &error))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            DirBuilder::new().mode(0o750).create(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(|error| named(&source, &error))?;
        }
    }
    Ok(())
}

/// A file that the app brings along, read by us in its stead: only what its user may read anyway.
fn copy_readable(source: &Path, target: &Path, user: Option<&User>) -> io::Result<()> {
    let mut from = fs::File::open(source).map_err(|error| named(source, &error))?;
    let found = from.metadata()?;
    let readable = user.is_none_or(|user| {
        let bit = match () {
            () if user.uid == found.uid() => 0o400,
            () if user.gid == found.gid() || user.groups.contains(&found.gid()) => 0o040,
            () => 0o004,
        };
        user.uid == 0 || found.mode() & bit != 0
    });
    if !found.is_file() || !readable {
        let name = user.map(|user| user.name.as_str()).unwrap_or_default();
        let why = format!("{} is no file that user {name:?} may read", source.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(target)?;
    io::copy(&mut from, &mut to).map(|_| ())
}

/// What a daemon that was killed left behind; `running` are instances that outlived their engine.
pub(super) fn sweep(state_dir: &Path, running: &HashSet<String>) {
    for app in fs::read_dir(state_dir.join("apps")).into_iter().flatten().flatten() {
        for instance in fs::read_dir(app.path().join("i")).into_iter().flatten().flatten() {
            if !instance.file_name().to_str().is_some_and(|name| running.contains(name)) {
                let _ = fs::remove_dir_all(instance.path());
            }
        }
        for release in fs::read_dir(app.path().join("releases")).into_iter().flatten().flatten() {
            if release.file_name().to_string_lossy().ends_with(".new") {
                let _ = fs::remove_dir_all(release.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_the_template_and_what_it_lacks() {
        let directory = tempfile::tempdir().expect("a directory");
        let template = directory.path().join("template");
        fs::create_dir_all(template.join("conf")).expect("made");
        fs::write(template.join("conf/own.xml"), "own").expect("written");
        fs::write(template.join("source"), "copied").expect("written");
        let base = Base {
            template: Some(template.clone()),
            directories: vec!["conf".into(), "work".into()],
            copies: vec![("work/file".into(), template.join("source"))],
            texts: vec![("conf/other.xml".into(), "text".into())],
            archive: Some(("work/app.war".into(), template.join("source"))),
        };
        let at = place(directory.path(), "shop", "shop-0-1");
        build(&at, &base, None).expect("built");
        for (name, expected) in
            [("conf/own.xml", "own"), ("conf/other.xml", "text"), ("work/file", "copied"), ("work/app.war", "copied")]
        {
            assert_eq!(fs::read_to_string(at.join(name)).expect("there"), expected, "{name}");
        }
        assert!(build(&at, &base, None).is_err(), "a second attempt must not get the same directory");
        sweep(directory.path(), &HashSet::new());
        assert!(!at.exists());
    }

    #[test]
    fn an_archive_that_the_user_may_not_read_is_not_read_for_him() {
        let directory = tempfile::tempdir().expect("a directory");
        let (secret, target) = (directory.path().join("secret"), directory.path().join("copy"));
        fs::write(&secret, "secret").expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("set");
        let link = directory.path().join("app.war");
        std::os::unix::fs::symlink(&secret, &link).expect("linked");
        let stranger = User { name: "stranger".into(), uid: 61_972, gid: 61_972, groups: Vec::new() };
        assert!(copy_readable(&link, &target, Some(&stranger)).is_err() && !target.exists());
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o604)).expect("set");
        copy_readable(&link, &target, Some(&stranger)).expect("copied");
    }
}
