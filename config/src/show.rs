//! A configuration as JSON for people and scripts: defaults filled in, secrets as `***`, durations in seconds.

use serde_json::{Map, Value as Json};

use crate::Config;

pub fn show(config: &Config) -> Json {
    tidy(serde_json::to_value(config).unwrap_or_default())
}

/// Durations arrive as `{secs, nanos}`; where something was written is left out.
fn tidy(value: Json) -> Json {
    match value {
        Json::Object(map) => match seconds(&map) {
            Some(seconds) => seconds,
            None => map
                .into_iter()
                .filter(|(key, _)| key != "origin" && key != "working_dir_origin")
                .map(|(key, value)| (key, tidy(value)))
                .collect(),
        },
        Json::Array(list) => list.into_iter().map(tidy).collect(),
        other => other,
    }
}

fn seconds(map: &Map<String, Json>) -> Option<Json> {
    let (secs, nanos) = (map.get("secs")?.as_u64()?, map.get("nanos")?.as_u64()?);
    if map.len() != 2 {
        return None;
    }
    Some(if nanos == 0 { secs.into() } else { (secs as f64 + nanos as f64 / 1e9).into() })
}
