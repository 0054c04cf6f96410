//! The service manager's store of descriptors, and sockets that it opened itself.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
};

use harness::{Builder, Daemon, FakeNotify, descendants, wait};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SITE: &str = "[backends.\"localhost\"]\nrespond = { status = 200, body = \"here\" }\n";
const HTTPS: &str = "https_port = {port2}\nenable_https = true\nworkers = 1\n[ssl]\nissuer = \"local\"\n";

fn config(server: &str) -> String {
    format!("[server]\n{server}{SITE}")
}

/// A manager, in a place that outlives the daemons.
fn manager() -> (TempDir, FakeNotify) {
    let dir = tempfile::tempdir().unwrap();
    let manager = FakeNotify::bind(dir.path()).unwrap();
    (dir, manager)
}

async fn start(builder: Builder, manager: &FakeNotify) -> Daemon {
    builder.warden().env("NOTIFY_SOCKET", manager.path()).start().await
}

async fn stores(manager: &mut FakeNotify, expected: &[String]) {
    let cell = std::cell::RefCell::new(manager);
    wait::until(wait::LATER, &format!("the store has {expected:?}"), async || cell.borrow_mut().stored() == expected)
        .await;
}

/// A GET that is sent before anybody may be there.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it waits in the kernel");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(wait::LATER, stream.read_to_string(&mut text)).await;
    read.expect("an answer in time").expect("an answer");
    text
}

/// How many descriptors of a process lead to this socket.
fn leading_to(pid: u32, inode: u64) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let wanted = format!("socket:[{inode}]");
    descriptors.filter(|it| fs::read_link(it.path()).is_ok_and(|to| to.to_string_lossy() == wanted)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_outlive_everything_and_connections_wait_for_the_next_start() {
    let (_dir, mut manager) = manager();
    let text = format!("{}{}", config(HTTPS), crate::lifecycle::app("chaos", "", &[], ""));
    let daemon = start(Daemon::builder(&text), &manager).await;
    let (http, https) = (daemon.address(1), daemon.address(2));
    let name = |transport: &str, address: SocketAddr| format!("{transport};{};{};0", address.ip(), address.port());
    let mut all = vec![name("tcp", http), name("tcp", https), name("udp", https)];
    all.sort();
    stores(&mut manager, &all).await;
    daemon.app_ready("chaos").await;
    let inodes: Vec<u64> = manager.copies().iter().map(|(_, it)| inode(it)).collect();

    let next = daemon.killed(&text).await;
    let waiting = ask(http).await;
    let daemon = start(next.passing(manager.copies()), &manager).await;
    assert!(answer(waiting).await.ends_with("here"), "who came meanwhile is served");
    daemon.app_ready("chaos").await;
    stores(&mut manager, &all).await;
    let again: Vec<u64> = manager.copies().iter().map(|(_, it)| inode(it)).collect();
    assert_eq!((again.len(), again.iter().all(|it| inodes.contains(it))), (3, true), "the same sockets");
    assert!(inodes.iter().all(|it| leading_to(daemon.pid(), *it) == 1), "the numbers that were passed are free");
    for app in descendants(daemon.pid()).iter().filter(|it| it.command.starts_with("chaos")) {
        assert!(inodes.iter().all(|it| leading_to(app.pid, *it) == 0), "an app has a listener");
    }

    // What leaves the configuration leaves the store, at a reload and at a start.
    daemon.rewrite_config(&config("workers = 1\n"));
    daemon.ctl_ok(&["reload"]).await;
    stores(&mut manager, &[name("tcp", http)]).await;
    let next = daemon.killed(&config("http_port = {port3}\nworkers = 1\n")).await;
    let moved = next.port(3);
    let daemon = start(next.passing(manager.copies()), &manager).await;
    stores(&mut manager, &[name("tcp", daemon.address(3))]).await;
    assert_eq!(daemon.address(3).port(), moved);
    wait::until(wait::LATER, "the old address is free", async || TcpStream::connect(http).await.is_err()).await;

    // A restart by intent finds them as well.
    let address = daemon.address(3);
    let before = manager.stored();
    assert!(daemon.stop().await.success());
    assert_eq!(manager.stored(), before);
    TcpStream::connect(address).await.expect("it waits for the next start");
}

fn inode(descriptor: &OwnedFd) -> u64 {
    fs::File::from(descriptor.try_clone().expect("a copy")).metadata().expect("a socket").ino()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_a_manager_opened_are_taken_by_their_address() {
    let builder = Daemon::builder(&config("workers = 2\n"));
    // Without SO_REUSEPORT, as a socket unit has them; and one that nobody configures.
    let socket = TcpListener::bind(("127.0.0.1", builder.port(1))).expect("the port is free");
    let stray = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let (address, unwanted) = (socket.local_addr().unwrap(), stray.local_addr().unwrap());
    let waiting = ask(address).await;
    let inode = inode(&OwnedFd::from(socket.try_clone().unwrap()));
    let passed = [socket, stray].map(|it| (String::new(), OwnedFd::from(it))).into();
    let daemon = builder.warden().passing(passed).start().await;
    assert!(answer(waiting).await.ends_with("here"));
    for _ in 0..20 {
        assert_eq!(daemon.get("/").await.text(), "here", "every worker serves");
    }
    assert!(leading_to(daemon.pid(), inode) > 0);
    assert!(daemon.log().contains("the service manager has passed"));
    wait::until(wait::LATER, "the other is closed", async || TcpStream::connect(unwanted).await.is_err()).await;
    assert!(daemon.stop().await.success());
    TcpStream::connect(address).await.expect_err("nobody else has it");
}
