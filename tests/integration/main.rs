//! What is seen from outside, by feature: real daemons, real sockets, real processes.
//!
//! A test here proves a promise of the interface; the many small cases live beside the code as unit tests.
#![allow(clippy::unwrap_used)]

mod admin;
mod apps;
mod certificates;
mod cloudflare;
mod compression;
mod connections;
mod control;
mod day;
mod direct;
mod files;
mod grpc;
mod headers;
mod http1;
mod http2;
mod http3;
mod lifecycle;
mod logs;
mod policies;
mod proxy;
mod reload;
mod roles;
mod shelf;
mod systemd;
mod tls;
mod tomcat;
mod upstream;
mod warden;
mod websocket;
mod websocket_cases;
mod welcome;
