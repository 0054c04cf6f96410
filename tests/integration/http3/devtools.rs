//! Chromium through its own debugging protocol: what its developer tools would show of a connection's security.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use futures_util::{SinkExt, StreamExt};
use harness::wait;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

pub struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    last: u64,
}

impl Browser {
    /// Starts with a profile of its own in `directory`.
    pub async fn start(directory: &Path, flags: &[String]) -> Self {
        let profile = directory.join("profile");
        let child = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--host-resolver-rules=MAP localhost 127.0.0.1", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(flags)
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium runs");
        let told = || fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        let told =
            wait::for_value(wait::LATER, "it says its port", async || told(), |it| it.lines().count() == 2).await;
        let (port, path) = told.split_once('\n').expect("two lines");
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        let stream = TcpStream::connect(address).await.expect("the browser listens");
        let url = format!("ws://{address}{}", path.trim());
        let (socket, _) = client_async(url, stream).await.expect("the browser speaks");
        Self { child, socket, last: 0 }
    }

    /// What the browser says of the response to `url`: its protocol, and the security of the connection it came over.
    pub async fn response(&mut self, url: &str) -> Value {
        let target = self.ask("Target.createTarget", &json!({ "url": "about:blank" }), None).await;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.ask("Target.attachToTarget", &attached, None).await["sessionId"].clone();
        self.ask("Network.enable", &json!({}), Some(&session)).await;
        self.say("Page.navigate", &json!({ "url": url }), Some(&session)).await;
        loop {
            let said = self.next().await;
            let response = &said["params"]["response"];
            if said["method"] == "Network.responseReceived" && response["url"] == url {
                return response.clone();
            }
            assert!(said["method"] != "Network.loadingFailed", "{said}");
        }
    }

    /// Asks it to end, and waits for that.
    pub async fn close(mut self) {
        self.say("Browser.close", &json!({}), None).await;
        let _ = timeout(wait::SOON, self.child.wait()).await;
    }

    async fn ask(&mut self, method: &str, params: &Value, session: Option<&Value>) -> Value {
        let id = self.say(method, params, session).await;
        loop {
            let said = self.next().await;
            if said["id"] == id {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
        }
    }

    async fn say(&mut self, method: &str, params: &Value, session: Option<&Value>) -> u64 {
        self.last += 1;
        let mut said = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = session {
            said["sessionId"] = session.clone();
        }
        self.socket.send(Message::text(said.to_string())).await.expect("the browser listens");
        self.last
    }

    async fn next(&mut self) -> Value {
        let next = timeout(wait::LATER, self.socket.next()).await.expect("the browser says something");
        let text = next.expect("it goes on").expect("a frame").into_text().expect("a text");
        serde_json::from_str(&text).expect("JSON")
    }
}
