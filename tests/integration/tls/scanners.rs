//! What others' scanners say of the default policy and of the certificates of the local CA.

use std::process::Stdio;

use harness::{Daemon, repository, skip};

use super::site;

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_the_intermediate_policy_kept() {
    let sslyze = repository().join("tests/.venv/bin/sslyze");
    if !sslyze.is_file() {
        skip!("sslyze is not installed (tests/run install)");
    }
    let text = "[server]\nhttps_port = {port2}\nenable_https = true\n[ssl]\nissuer = \"local\"\n";
    let daemon = Daemon::start(&format!("{text}{}", site("localhost"))).await;
    let root = daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout;
    daemon.write("ca.pem", &root);
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
