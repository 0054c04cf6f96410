//! The store when the machine dies or the disk is full, at every single step.

#![allow(clippy::unwrap_used)]

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use super::{
    super::{
        disk::faults,
        pending::{Asked, Pending},
        record::Wish,
    },
    *,
};

fn bundle(text: &str) -> Bundle {
    let meta = Meta { issuer: "local".into(), id: text.into(), ..Meta::default() };
    Bundle { key_pem: format!("key of {text}"), chain_pem: format!("chain of {text}"), meta }
}

/// As the real judge does, it wants key and chain of one kind.
fn belongs(bundle: &Bundle) -> Result<(), String> {
    let (key, chain) = (bundle.key_pem.strip_prefix("key of "), bundle.chain_pem.strip_prefix("chain of "));
    if key.is_some() && key == chain { Ok(()) } else { Err("key and chain do not belong together".into()) }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn current(store: &Store) -> Option<String> {
    store.load_one("a.test", &belongs).current.map(|(_, it)| it.meta.id)
}

#[test]
fn a_crash_at_any_step_leaves_the_old_version_or_the_new() {
    let mut crashes = 0;
    for step in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        store.save("a.test", &bundle("old"), at(0)).unwrap();
        faults::after(Some(step));
        let saved = store.save("a.test", &bundle("new"), at(1));
        faults::after(None);
        let found = current(&store).unwrap();
        if saved.is_ok() {
            assert_eq!(found, "new");
            break;
        }
        crashes += 1;
        assert!(found == "old" || found == "new", "step {step}: {found}");
        // And the next attempt works whatever was left behind.
        store.save("a.test", &bundle("newer"), at(2)).unwrap();
        assert_eq!(current(&store).unwrap(), "newer", "step {step}");
        let left = fs::read_dir(store.place("a.test")).unwrap().flatten();
        let names: Vec<String> = left.filter_map(|it| it.file_name().into_string().ok()).collect();
        assert!(!names.iter().any(|it| it.starts_with('.')), "step {step}: {names:?}");
    }
    assert!(crashes >= 10, "only {crashes} steps");
}

#[test]
fn a_crash_before_the_first_version_counts_leaves_none_or_the_whole() {
    for step in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        faults::after(Some(step));
        let saved = store.save("a.test", &bundle("new"), at(1));
        faults::after(None);
        let found = current(&store);
        if saved.is_ok() {
            break;
        }
        assert!(found.as_deref().is_none_or(|it| it == "new"), "step {step}: {found:?}");
    }
}

#[test]
fn a_request_is_on_the_disk_as_a_whole_or_not_at_all() {
    let asked = |host: &str| Asked { issuer: "x".into(), hosts: vec![host.into()], days: Some(90) };
    let pending = |host: &str| Pending { key_pem: "k".into(), csr_pem: "c".into(), asked: asked(host) };
    for step in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        store.put_pending("a.test", &pending("old")).unwrap();
        faults::after(Some(step));
        let put = store.put_pending("a.test", &pending("new"));
        faults::after(None);
        let found = store.pending("a.test").map(|it| it.asked);
        if put.is_ok() {
            assert_eq!(found, Some(asked("new")));
            store.drop_pending("a.test").unwrap();
            assert!(store.pending("a.test").is_none());
            break;
        }
        assert!(found.is_none() || found == Some(asked("old")) || found == Some(asked("new")), "step {step}");
    }
}

#[test]
fn the_state_survives_a_crash_while_it_is_written() {
    let wish = Wish { name: "a.test".into(), hosts: vec![], issuer: "x".into(), origin: "operator".into(), days: None };
    let record =
        |attempts| Record { wish: Some(wish.clone()), attempts, next_attempt: Some(at(9)), ..Record::default() };
    for step in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        store.record("a.test", &record(1)).unwrap();
        faults::after(Some(step));
        let written = store.record("a.test", &record(2));
        faults::after(None);
        let found = store.load_one("a.test", &belongs).record;
        assert!(found == record(1) || found == record(2), "step {step}: {found:?}");
        if written.is_ok() {
            break;
        }
    }
}

/// What happens to a version.
type Damage = fn(&Path);

// F33
#[test]
fn damage_costs_one_version_and_is_told() {
    let damages: [(&str, Damage); 6] = [
        ("an empty key", |it| fs::write(it.join("key.pem"), "").unwrap()),
        ("zeros for a chain", |it| fs::write(it.join("chain.pem"), [0; 512]).unwrap()),
        ("half a description", |it| fs::write(it.join("meta.json"), "{\"issuer\":").unwrap()),
        ("no key", |it| fs::remove_file(it.join("key.pem")).unwrap()),
        ("another's key", |it| fs::write(it.join("key.pem"), "key of other").unwrap()),
        ("a link for a key", |it| {
            fs::rename(it.join("key.pem"), it.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", it.join("key.pem")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        store.save("a.test", &bundle("old"), at(0)).unwrap();
        let version = store.save("a.test", &bundle("new"), at(1)).unwrap();
        damage(&store.place("a.test").join(&version));
        let loaded = store.load_one("a.test", &belongs);
        assert_eq!(loaded.current.unwrap().1.meta.id, "old", "{what}");
        assert!(loaded.notes.len() >= 2, "{what}: {:?}", loaded.notes);
        assert!(directory.path().join("store/quarantine").join(version).exists(), "{what}");
    }
}

// F33
#[test]
fn a_bad_pointer_leads_to_the_newest_version_that_works() {
    for pointer in ["", "\0\0\0\0", "v-gone", "../../../etc"] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("store"));
        store.save("a.test", &bundle("old"), at(0)).unwrap();
        store.save("a.test", &bundle("new"), at(1)).unwrap();
        fs::write(store.place("a.test").join("current"), pointer).unwrap();
        assert_eq!(current(&store).as_deref(), Some("new"), "{pointer:?}");
    }
}

// F33
#[test]
fn keys_are_private_and_made_so_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    let version = store.save("a.test", &bundle("a"), at(0)).unwrap();
    let key = store.place("a.test").join(version).join("key.pem");
    let mode = || fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let notes = store.load_one("a.test", &belongs).notes;
    assert_eq!(mode(), 0o600);
    assert!(notes[0].contains("private"), "{notes:?}");
}

#[test]
fn a_root_that_others_could_write_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    store.save("a.test", &bundle("a"), at(0)).unwrap();
    fs::set_permissions(store.root(), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(store.load(&belongs).is_err() && store.save("a.test", &bundle("b"), at(1)).is_err());
    fs::set_permissions(store.root(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(store.load(&belongs).unwrap().len(), 1);
    std::os::unix::fs::symlink(store.root(), directory.path().join("link")).unwrap();
    assert!(Store::new(directory.path().join("link")).load(&belongs).is_err(), "a link for a root");
}

#[test]
fn probes_leave_nothing_behind_and_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    std::thread::scope(|scope| {
        let probing: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..20).try_for_each(|_| store.probe()))).collect();
        probing.into_iter().for_each(|it| it.join().unwrap().unwrap());
    });
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn what_was_revoked_is_gone_from_the_disk_and_the_wish_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    store.save("a.test", &bundle("old"), at(0)).unwrap();
    store.save("a.test", &bundle("new"), at(1)).unwrap();
    store.record("a.test", &Record { attempts: 7, ..Record::default() }).unwrap();
    store.drop_versions("a.test").unwrap();
    let loaded = store.load_one("a.test", &belongs);
    assert_eq!((loaded.current.is_none(), loaded.record.attempts, loaded.notes), (true, 7, Vec::new()));
}

#[test]
fn three_versions_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    for it in 0..6 {
        store.save("a.test", &bundle(&it.to_string()), at(it)).unwrap();
    }
    assert_eq!(versions(&store.place("a.test")).len(), KEPT);
    assert_eq!(current(&store).as_deref(), Some("5"));
}

#[test]
fn one_holds_the_lock_and_its_end_frees_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    let held = store.try_lock("a.test").unwrap();
    assert!(held.is_some());
    assert!(store.try_lock("a.test").unwrap().is_none());
    assert!(store.try_lock("b.test").unwrap().is_some());
    drop(held);
    assert!(store.try_lock("a.test").unwrap().is_some());
}
