//! HTTP/1.1 on a connection: the gate judges its bytes, hyper drives it, `Activity` ends it when it is silent for too long.

use std::{cell::Cell, pin::Pin, task::Poll};

use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;

use super::connection::{Call, Connection, FAREWELL, Io, ended, service};
use crate::{
    net::{After, Desk, Gated, Phase, Rules},
    snapshot::{Settings, Snapshot},
};

/// hyper has limits of its own, which must never be met before the gate's.
const PARSER_TARGET_MAX: usize = u16::MAX as usize - 2;
const PARSER_FIELDS: usize = 100;
const PARSER_BUFFER: usize = 400 << 10;
/// Method, spaces, version, and empty lines before them.
const REQUEST_LINE_REST: usize = 128;

impl Connection {
    pub(super) async fn http1(mut self, io: impl Io, snapshot: &Snapshot) {
        let rules = rules(&snapshot.settings);
        let desk = Desk::default();
        self.activity.set_desk(desk.clone());
        let mut builder = conn::http1::Builder::new();
        // hyper's own timer would cost a boxed sleep per request; `Activity` watches heads and idleness instead.
        builder
            .header_read_timeout(None)
            .max_header_size(rules.header_max + rules.target_max + REQUEST_LINE_REST)
            .writev(true);
        if rules.fields_max > PARSER_FIELDS {
            builder.max_headers(rules.fields_max);
        }
        if rules.header_max > PARSER_BUFFER / 2 {
            builder.max_buf_size(rules.header_max + PARSER_BUFFER);
        }
        let io = TokioIo::new(Gated::new(self.watched(io), rules, desk.clone()));
        let (answer, number, clerk) = (service::<Incoming>(&self), Cell::new(0), desk.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (this, desk) = (number.get() + 1, clerk.clone());
            number.set(this);
            refused(&mut request, this, &desk);
            let answer = answer(request);
            async move {
                let answer = answer.await;
                let switches = answer.as_ref().is_ok_and(|it| it.status() == StatusCode::SWITCHING_PROTOCOLS);
                desk.answered(this, if switches { After::Tunnel } else { After::Http });
                answer
            }
        });
        let mut connection = builder.serve_connection(io, service).with_upgrades();
        let call = tokio::select! {
            done = &mut connection => return ended(done),
            call = self.called() => call,
        };
        match call {
            Call::Expired(Phase::Head) => {
                if desk.has_begun() {
                    self.worker.metrics.connection_cut("slow-head");
                }
                desk.expire();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            Call::Expired(Phase::Stalled) => self.worker.metrics.connection_cut("write-stall"),
            Call::Expired(_) => {
                Pin::new(&mut connection).graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            // The request that runs is finished, a head that has begun is still awaited.
            Call::Drain => {
                let last = farewell(connection, desk, |it| it.graceful_shutdown());
                self.last_request(last).await;
            }
        }
    }
}

/// Drives the connection to its end, which `shut` tells it to come to. hyper would close one at once on which it has seen
/// nothing, though half a head may be held at the gate.
async fn farewell<C: Future + Unpin>(mut connection: C, desk: Desk, shut: impl Fn(Pin<&mut C>)) -> C::Output {
    let mut told = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(done);
            }
            if told || desk.has_begun() {
                return Poll::Pending;
            }
            told = true;
            shut(Pin::new(&mut connection));
        }
    })
    .await
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        target_max: settings.uri_bytes_max.min(PARSER_TARGET_MAX),
        header_max: settings.header_bytes_max,
        fields_max: settings.headers_max,
    }
}

/// What the parser saw in place of a refused request becomes, as far as it is known, that request again; its verdict goes
/// along.
fn refused(request: &mut Request<Incoming>, number: u64, desk: &Desk) {
    let Some(verdict) = desk.verdict(number) else { return };
    if let Some(method) = verdict.method.clone() {
        *request.method_mut() = method;
    }
    if let Some(target) = verdict.target.clone() {
        *request.uri_mut() = target;
    }
    request.extensions_mut().insert(verdict);
}
