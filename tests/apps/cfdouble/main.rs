//! `cfdouble`: the double of Cloudflare's API as a program, for trying things by hand. Loopback only.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use clap::Parser;
use harness::cloudflare::{Cloudflare, Options, Token, Zone};

/// A double of Cloudflare's API, for tests
#[derive(Parser)]
struct Cli {
    /// Where the API listens
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    listen: SocketAddr,
    /// Where faults are ordered
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    control: SocketAddr,
    /// Where the authority of its TLS certificate is written
    #[arg(long)]
    tls_ca_out: Option<PathBuf>,
    /// Where the roots of its Origin CA are written
    #[arg(long)]
    roots_out: Option<PathBuf>,
    #[arg(long, default_value = Cloudflare::TOKEN)]
    token: String,
    #[arg(long, default_values_t = ["example.com".to_owned()])]
    zone: Vec<String>,
}

#[tokio::main]
async fn main() {
    let cli = Cli::parse();
    for address in [cli.listen, cli.control] {
        if !address.ip().is_loopback() {
            eprintln!("error: {address} is not of the loopback\nhint: the double is for this machine only");
            std::process::exit(2);
        }
    }
    let zones = cli.zone.iter().map(|it| Zone::new(it)).collect();
    let options = Options { listen: cli.listen, tokens: vec![Token::user(&cli.token)], zones };
    let double = Arc::new(Cloudflare::with(options).await);
    for (path, text) in [(&cli.tls_ca_out, double.ca()), (&cli.roots_out, &double.roots())] {
        if let Some(path) = path {
            std::fs::write(path, text).expect("the file can be written");
        }
    }
    let control = tokio::net::TcpListener::bind(cli.control).await.expect("the control address is free");
    let address = control.local_addr().expect("a bound listener has an address");
    let said = serde_json::json!({ "api": double.base(), "control": format!("http://{address}") });
    println!("{said}");
    double.control(control).await;
}
