//! What others' scanners say of the default policy.

use std::process::Stdio;

use harness::{repository, skip};

use super::{Authority, config, site, with};

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_the_intermediate_policy_kept() {
    let sslyze = repository().join("tests/.venv/bin/sslyze");
    if !sslyze.is_file() {
        skip!("sslyze is not installed (tests/run install)");
    }
    let authority = Authority::new();
    let daemon =
        with(&config("", &site("localhost")), &authority, &["localhost"]).file("ca.pem", &authority.pem).start().await;
    let json = daemon.dir().join("sslyze.json");
    let scan = tokio::process::Command::new(sslyze)
        .args(["--mozilla_config", "intermediate", "--certinfo_ca_file"])
        .arg(daemon.dir().join("ca.pem"))
        .arg("--json_out")
        .arg(&json)
        .arg(format!("localhost:{}", daemon.address(2).port()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(180), scan).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("OK - Compliant"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
