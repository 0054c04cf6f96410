//! What a newcomer gets without any file: the welcome page, the demo app, and a restart that nobody notices.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
};

use harness::{Daemon, Load, free_port, get, miwictl, miwid, wait};
use tokio::process::{Child, Command};

use crate::tls::client as tls;

/// The built-in default, on ports of its own; killed when dropped.
fn start(dir: &Path, http: u16, https: u16, admin: u16) -> Child {
    Command::new(miwid())
        .current_dir(dir)
        .arg("--socket")
        .arg(dir.join("control.sock"))
        .args(["--set", &format!("server.http_port={http}")])
        .args(["--set", &format!("server.https_port={https}")])
        .args(["--set", &format!("admin.listen=\"127.0.0.1:{admin}\"")])
        .env_remove("MIWID_CONFIG")
        .stdin(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(dir.join("log")).unwrap()))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ctl(dir: &Path, args: &[&str]) -> std::process::Output {
    Command::new(miwictl()).args(args).env("MIWID_SOCKET", dir.join("control.sock")).output().await.unwrap()
}

async fn status(dir: &Path) -> String {
    String::from_utf8_lossy(&ctl(dir, &["status"]).await.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_default_welcomes_and_restarts_its_demo_without_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (http, https, admin) = (free_port(), free_port(), free_port());
    let mut daemon = start(dir.path(), http, https, admin);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
    wait::until(wait::SOON, "the demo app answers", || async {
        get(address, "app.localhost", "/").await.is_ok_and(|it| it.text().contains("demo app"))
    })
    .await;

    let welcome = get(address, "localhost", "/").await.unwrap();
    assert_eq!(welcome.status, 200);
    assert!(welcome.text().contains("miwid</b> is running"), "{}", welcome.text());
    let root = ctl(dir.path(), &["cert", "trust", "--print"]).await.stdout;
    let trusting = tls::client(&String::from_utf8(root).unwrap(), &tls::Wants::default());
    let secure = SocketAddr::from((Ipv4Addr::LOCALHOST, https));
    for host in ["localhost", "app.localhost", "127.0.0.1"] {
        assert_eq!(tls::status(secure, host, host, &trusting).await.unwrap(), 200, "{host} over TLS");
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for told in [
        format!("http://127.0.0.1:{http}/"),
        format!("https://127.0.0.1:{https}/"),
        "miwictl app restart demo".into(),
        "control.sock".into(),
    ] {
        assert!(log.contains(&told), "{told} is not in:\n{log}");
    }
    let status =
        wait::for_value(wait::SOON, "the daemon is ready", || status(dir.path()), |it| it.contains(" ready ")).await;
    assert!(status.contains("demo") && status.contains("running"), "{status}");

    let load = Load::new(address, "app.localhost").paths(&["/"]).connections(20).start();
    load.flowing(100).await;
    let restarted = ctl(dir.path(), &["app", "restart", "demo"]).await;
    assert!(restarted.status.success(), "{restarted:?}");
    let sent = load.so_far().sent;
    load.flowing(sent + 100).await;
    load.stop().await.assert_none_failed();

    assert!(ctl(dir.path(), &["shutdown"]).await.status.success());
    assert!(daemon.wait().await.unwrap().success(), "a stop that was asked for is exit 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_names_its_holder_and_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = start(dir.path(), holder.local_addr().unwrap().port(), free_port(), free_port());
    let status = daemon.wait_with_output().await.unwrap().status;
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(8), "{log}");
    let pid = format!("pid {}", std::process::id());
    assert!(log.contains(&pid) && log.contains("hint: "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_looks_at_the_disk_and_at_the_ports() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let config = format!(
        "[server]\nbind = [\"127.0.0.1\"]\nhttp_port = {port}\n[backends.\"a.test\"]\nroot = \"{{dir}}/nowhere\"\n"
    );
    let output = Daemon::builder(&config).check(&[]).await;
    assert_eq!(output.status, 0, "neither keeps the rest from serving: {output:?}");
    for told in ["nowhere does not exist", "cannot listen on", &format!("pid {}", std::process::id())] {
        assert!(output.all().contains(told), "{told}: {output:?}");
    }
    assert_eq!(Daemon::builder(&config).check(&["--strict"]).await.status, 6);
}
