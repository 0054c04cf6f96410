//! The double against the API's own description and recorded answers. Those belong to others and lie outside the
//! repository: `CLOUDFLARE_FACTS` names their directory, else `../shared/cloudflare` beside it is tried.

use std::{fs, path::PathBuf};

use harness::{cloudflare::Cloudflare, repository, skip};
use serde_json::{Value, json};

use super::plain::{ask, creation};

fn facts() -> Option<PathBuf> {
    let given = std::env::var_os("CLOUDFLARE_FACTS").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| repository().join("../shared/cloudflare"));
    directory.join("openapi-extract.json").exists().then_some(directory)
}

fn read(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The part of JSON Schema that these schemas use, but `pattern`.
fn breaks(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|it| is(it)) {
        found.push(format!("{at}: not {kinds:?}"));
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(key).is_none() {
            found.push(format!("{at}: `{key}` is missing"));
        }
    }
    for (key, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(schema) => found.extend(breaks(schema, member, &format!("{at}/{key}"))),
            None if schema["additionalProperties"] == false => found.push(format!("{at}: `{key}` is too much")),
            None => {}
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(breaks(&schema["items"], item, &format!("{at}/{index}")));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at}: not one of {allowed:?}"));
    }
    if let Some(only) = schema.get("const")
        && only != value
    {
        found.push(format!("{at}: not {only}"));
    }
    if let Some(any) = schema["anyOf"].as_array()
        && any.iter().all(|it| !breaks(it, value, at).is_empty())
    {
        found.push(format!("{at}: none of the alternatives"));
    }
    let length =
        value.as_array().map(Vec::len).or(value.as_str().map(str::len)).or(value.as_object().map(|it| it.len()));
    for (least, most) in [("minItems", "maxItems"), ("minLength", "maxLength"), ("minProperties", "maxProperties")] {
        let bound = |it: &str| schema[it].as_u64().and_then(|it| usize::try_from(it).ok());
        if let Some(length) = length
            && (bound(least).is_some_and(|it| length < it) || bound(most).is_some_and(|it| length > it))
        {
            found.push(format!("{at}: {length} of {least} to {most}"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_to_the_schemas() {
    let Some(facts) = facts() else { skip!("the API's description is not there (CLOUDFLARE_FACTS)") };
    let schemas = read(facts.join("openapi-extract.json"))["strict_schemas"].clone();
    let double = Cloudflare::start().await;
    let request = creation(&["example.com"]);
    assert_eq!(breaks(&schemas["create_origin_certificate_request"], &request, ""), [""; 0]);
    let (_, made) = ask(&double, "POST", "/certificates", Some(&request)).await;
    let id = made["result"]["id"].as_str().unwrap();
    let zone = ask(&double, "GET", "/zones?name=example.com", None).await.1["result"][0]["id"].clone();
    let zone = zone.as_str().unwrap();
    let one = format!("/certificates/{id}");
    let record = json!({ "type": "TXT", "name": "_acme-challenge.example.com", "content": "\"x\"", "ttl": 120 });
    let calls: Vec<(&str, String, Option<Value>, Option<&str>)> = vec![
        ("POST", "/certificates".into(), Some(request.clone()), Some("origin_certificate_object")),
        ("POST", "/certificates".into(), Some(json!({ "requested_validity": 90 })), None),
        ("GET", format!("/certificates?zone_id={zone}"), None, None),
        ("GET", one.clone(), None, Some("origin_certificate_object")),
        ("DELETE", one, None, Some("revoke_response_result")),
        ("GET", "/certificates/0".into(), None, None),
        ("GET", "/user/tokens/verify".into(), None, Some("token_verify_result")),
        ("GET", "/ips".into(), None, Some("ips_result")),
        ("GET", "/nowhere".into(), None, None),
        ("POST", format!("/zones/{zone}/dns_records"), Some(record.clone()), None),
        ("POST", format!("/zones/{zone}/dns_records"), Some(record), None),
    ];
    let at_zone = |path: &str| format!("/zones/{zone}{path}");
    let purges =
        [json!({ "purge_everything": true }), json!({ "files": ["https://example.com/a"] }), json!({ "tags": ["a"] })];
    let of_zone: Vec<_> =
        ["", "/settings/ssl", "/settings/tls_client_auth", "/settings/nothing", "/dns_records?name=example.com"]
            .into_iter()
            .map(|path| ("GET", at_zone(path), None, None))
            .chain(purges.iter().map(|it| ("POST", at_zone("/purge_cache"), Some(it.clone()), None)))
            .collect();
    for purge in &purges {
        assert_eq!(breaks(&schemas["purge_request"], purge, ""), [""; 0], "{purge}");
    }
    for (method, path, body, result) in calls.into_iter().chain(of_zone) {
        let (_, said) = ask(&double, method, &path, body.as_ref()).await;
        assert_eq!(breaks(&schemas["envelope"], &said, ""), [""; 0], "{method} {path}: {said:#}");
        if let Some(schema) = result {
            assert_eq!(breaks(&schemas[schema], &said["result"], ""), [""; 0], "{method} {path}: {said:#}");
        }
    }
    assert_eq!(double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_requests_and_errors_are_what_the_double_takes_and_says() {
    let Some(facts) = facts() else { skip!("the API's description is not there (CLOUDFLARE_FACTS)") };
    let fixture = |name: &str| read(facts.join("fixtures").join(name));
    let double = Cloudflare::start().await;
    let (status, made) = ask(&double, "POST", "/certificates", Some(&fixture("create.request.json"))).await;
    assert_eq!(status, 200, "{made:#}");
    let recorded = fixture("create.200.json");
    let keys = |it: &Value| it["result"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&made), keys(&recorded));
    let mut stranger = fixture("create.request.json");
    stranger["hostnames"] = json!(["www.other.example"]);
    let (_, said) = ask(&double, "POST", "/certificates", Some(&stranger)).await;
    assert_eq!(said["errors"], fixture("err.hostname.json")["errors"]);
    let (status, ranges) = ask(&double, "GET", "/ips", None).await;
    let recorded = fixture("ips.200.json");
    let lists = |it: &Value| (it["result"]["ipv4_cidrs"].clone(), it["result"]["ipv6_cidrs"].clone());
    assert_eq!((status, lists(&ranges)), (200, lists(&recorded)));
    let (_, none) = ask(&double, "GET", "/zones?name=nobody.example", None).await;
    assert_eq!(none, fixture("zones.200.empty.json"));
}
