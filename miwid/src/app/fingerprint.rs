//! What a plan is known by, also to the next engine, which may be another version: it goes on with an instance whose plan is the
//! same. What a version adds stands at its default at first, and what stands at its default is left out, so that an upgrade
//! restarts no app for a setting that did not exist before.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::LazyLock,
};

use config::{Backend, Capabilities};
use serde_json::{Map, Value as Json, json};

use super::{
    managed::{place, placeless},
    spec::LaunchSpec,
};

/// A process of which nothing is said but its program.
static USUAL: LazyLock<Map<String, Json>> = LazyLock::new(|| {
    let text = "[backends.\"a.invalid\"]\napp_type = \"command\"\nprocess = { command = \"x\" }\n";
    let loaded = config::load_text(Path::new("/usual.toml"), text, &[], &Capabilities::default());
    let process = loaded.iter().flat_map(|it| it.config.backends.values()).find_map(|it| it.process.as_ref());
    process.map(|it| object(&placeless(it))).unwrap_or_default()
});

/// Equal for equal plans.
pub(super) fn fingerprint(spec: Option<&LaunchSpec>, backend: &Backend) -> u64 {
    let process = backend.process.as_ref().map(|it| object(&placeless(it))).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    said(&unusual(process, &USUAL)).hash(&mut hasher);
    said(&json!({ "place": place(backend).map(|(urls, health)| json!([urls, health])) })).hash(&mut hasher);
    said(&spec.map(launch).unwrap_or_default()).hash(&mut hasher);
    // Values of the environment are said nowhere else than to the hasher.
    spec.into_iter().flat_map(|it| &it.env).for_each(|(name, value)| (name, value.expose()).hash(&mut hasher));
    hasher.finish()
}

/// All of a spec but its environment, which is secret, and its notices, which are for people.
fn launch(spec: &LaunchSpec) -> Json {
    let LaunchSpec { argv, env: _, working_dir, user, address, kill_mode, stop_signal, notices: _, .. } = spec;
    let LaunchSpec { start_timeout, upstream_idle, base, gates, autopsy, .. } = spec;
    json!({
        "argv": argv,
        "working_dir": working_dir,
        "user": user.as_ref().map(|it| json!([it.name, it.uid, it.gid, it.groups])),
        "address": format!("{address:?}"),
        "kill_mode": format!("{kill_mode:?}"),
        "stop_signal": stop_signal,
        "start_timeout": start_timeout.as_millis() as u64,
        "upstream_idle": upstream_idle.as_millis() as u64,
        "base": base.as_ref().map(|it| format!("{it:?}")),
        "gates": gates.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>(),
        "autopsy": format!("{autopsy:?}"),
    })
}

fn object(process: &config::Process) -> Map<String, Json> {
    match serde_json::to_value(process) {
        Ok(Json::Object(map)) => map,
        _ => Map::new(),
    }
}

fn unusual(mut settings: Map<String, Json>, usual: &Map<String, Json>) -> Json {
    settings.retain(|key, value| usual.get(key) != Some(value));
    Json::Object(settings)
}

/// The text of `value`, in one order of its keys and without those that say nothing.
fn said(value: &Json) -> String {
    match value {
        Json::Object(map) => {
            let sorted: BTreeMap<&String, String> =
                map.iter().filter(|(_, it)| says_something(it)).map(|(key, it)| (key, said(it))).collect();
            format!("{sorted:?}")
        }
        Json::Array(items) => format!("{:?}", items.iter().map(said).collect::<Vec<_>>()),
        plain => plain.to_string(),
    }
}

fn says_something(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::Array(items) => !items.is_empty(),
        Json::Object(map) => !map.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::{KillMode, Secret};

    use super::*;
    use crate::app::spec::{AddressPlan, Autopsy};

    fn backend(process: &str) -> Backend {
        let text = format!("[backends.\"a.test\"]\nprocess = {{ command = \"x\", {process} }}\n");
        let loaded = config::load_text(Path::new("/m.toml"), &text, &[], &Capabilities::default());
        loaded.expect("a configuration").config.backends.values().next().cloned().expect("a backend")
    }

    fn spec() -> LaunchSpec {
        LaunchSpec {
            argv: vec!["/bin/x".into()],
            env: vec![("KEY".into(), Secret::new("one"))],
            working_dir: "/".into(),
            user: None,
            address: AddressPlan::Tcp,
            kill_mode: KillMode::Group,
            stop_signal: 15,
            start_timeout: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(4),
            base: None,
            gates: Vec::new(),
            autopsy: Autopsy::Nothing,
            notices: Vec::new(),
        }
    }

    #[test]
    fn what_the_process_would_notice_is_another_plan_and_the_rest_is_not() {
        let (usual, usual_spec) = (backend(""), spec());
        let before = fingerprint(Some(&usual_spec), &usual);
        let same = ["instances = 4", "wake_on = { methods = [\"GET\"] }", "auto_restart = true"];
        for process in same {
            assert_eq!(fingerprint(Some(&usual_spec), &backend(process)), before, "{process}");
        }
        let other = ["memory_limit = \"1GB\"", "stop_timeout = \"3s\"", "max_requests = 5"];
        for process in other {
            assert_ne!(fingerprint(Some(&usual_spec), &backend(process)), before, "{process}");
        }
        type Change = fn(&mut LaunchSpec);
        let changes: [(&str, bool, Change); 6] = [
            ("an argument", false, |it| it.argv.push("y".into())),
            ("a secret", false, |it| it.env[0].1 = Secret::new("two")),
            ("a variable", false, |it| it.env.push(("B".into(), Secret::new("")))),
            ("an address", false, |it| it.address = AddressPlan::Unix),
            ("a signal", false, |it| it.stop_signal = 2),
            ("a notice", true, |it| it.notices.push("told".into())),
        ];
        for (what, is_same, change) in changes {
            let mut changed = spec();
            change(&mut changed);
            assert_eq!(fingerprint(Some(&changed), &usual) == before, is_same, "{what}");
        }
        assert_ne!(fingerprint(None, &usual), before);
    }

    #[test]
    fn a_setting_that_is_new_says_nothing_as_long_as_it_stands_at_its_default() {
        let object = |text: &str| match serde_json::from_str(text) {
            Ok(Json::Object(map)) => map,
            other => panic!("{other:?}"),
        };
        let old =
            said(&unusual(object(r#"{"command":"x","umask":7,"probes":{"a":{"b":1}}}"#), &object(r#"{"umask":1}"#)));
        let usual = object(r#"{"umask":1,"pace":"slow","shadow":{"on":true}}"#);
        let new = r#"{"shadow":{"on":true},"pace":"slow","probes":{"a":{"c":null,"b":1,"d":[],"e":false}},"umask":7,"command":"x"}"#;
        assert_eq!(said(&unusual(object(new), &usual)), old);
        let used = r#"{"shadow":{"on":true},"pace":"fast","probes":{"a":{"b":1}},"umask":7,"command":"x"}"#;
        assert_ne!(said(&unusual(object(used), &usual)), old);
    }
}
