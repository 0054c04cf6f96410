//! The life of a proxied request (hot). A request's body can be sent once: everything that may be tried again happens
//! before its first byte has left.

use std::{
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use hyper::upgrade::OnUpgrade;

use super::{
    blame,
    errand::{Resumed, Stage},
    fields::Fields,
    headers, hold,
    patience::Patience,
    relay::{Lease, Relay},
    replay::Loan,
    retry::{self, Attempt, Decision, Sent},
    upgrade::{Tunnel, Tunnels, closing},
    wake::WakeRules,
};
use crate::{
    exchange::{Body, Context, Failure, Inbound, Meter, Scheme, headers::X_REQUEST_ID, reason},
    net::{Desk, proxy_protocol::Header},
    upstream::{Connection, Endpoint, Head, Incoming, Order, Pools, Protocol, SendError, Set},
};

/// How long a request waits for the supervisor to notice that the only instance is gone.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);

/// One proxied route, built when the snapshot is built.
pub struct Forwarder {
    pub set: Arc<Set>,
    pub(super) stream_drain: config::StreamDrain,
    pub(super) wake_on: WakeRules,
    pub(super) preserve_host: bool,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stream_idle_timeout: Duration,
    pub(super) retries: u32,
}

/// What `forward` is given beside the request.
pub struct Exchange<'a> {
    pub context: &'a mut Context,
    pub pools: &'a Rc<Pools>,
    pub tunnels: &'a Tunnels,
    /// Path and query to ask the upstream for (after `strip_prefix`).
    pub target: &'a str,
    /// The site's path, as routes see it.
    pub path: &'a str,
    /// What an errand has left undone.
    pub resumed: Option<Resumed>,
}

/// A request while it looks for an endpoint.
struct Outgoing {
    head: request::Parts,
    /// Fields that go behind those of the head.
    more: Fields,
    /// The site's name, where the endpoint has none of its own.
    host: HeaderValue,
    body: Option<Body>,
    /// The body while a connection that may hand it back has it.
    lent: Option<Loan>,
    patience: Patience,
    meter: Option<Meter>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    /// Where informational answers go.
    interim: Option<Desk>,
    /// The client asked by extended CONNECT, where a success opens the tunnel.
    extended: bool,
    tried: Vec<u64>,
    retried: u32,
}

/// An attempt that brought no response.
struct Trouble {
    sent: Sent,
    failure: Failure,
}

impl Outgoing {
    /// What a failed attempt leaves: the body, if it can be sent again, and how far it came.
    fn recover(&mut self, error: SendError, stale: bool) -> Trouble {
        let SendError { cause, body, unprocessed } = error;
        let unsent = body.is_some();
        let lent = self.lent.take().filter(|_| unprocessed || unsent);
        self.body = match lent.map(Loan::reclaim) {
            Some(reclaimed) => reclaimed,
            None if unsent => body,
            None => self.meter.is_none().then_some(Body::Empty),
        };
        let whole = unsent || (unprocessed && self.body.is_some());
        let sent = match (stale, whole) {
            (true, true) => Sent::NothingOnReused,
            (false, true) => Sent::Nothing,
            (true, false) => Sent::OnReused,
            (false, false) => Sent::OnFresh,
        };
        let failure = blame::cut(self.meter.as_ref()).unwrap_or_else(|| blame::broken(cause));
        Trouble { sent, failure }
    }

    fn overdue(&self) -> Trouble {
        let message = "The site's server did not answer in time.";
        let failure = Failure::upstream(StatusCode::GATEWAY_TIMEOUT, reason::HEAD_TIMEOUT, message);
        Trouble { sent: Sent::Unanswered, failure: blame::cut(self.meter.as_ref()).unwrap_or(failure) }
    }
}

impl Forwarder {
    pub fn new(set: Arc<Set>, proxy: &config::Proxy, server: &config::Server) -> Self {
        Self {
            set,
            stream_drain: config::StreamDrain::CloseAfter(Duration::from_secs(5)),
            wake_on: WakeRules::default(),
            preserve_host: proxy.preserve_host,
            connect_timeout: proxy.connect_timeout,
            request_timeout: server.request_timeout,
            stream_idle_timeout: server.stream_idle_timeout,
            retries: proxy.retries,
        }
    }

    /// What becomes of open streams when their endpoint is withdrawn.
    pub fn with_stream_drain(mut self, drain: config::StreamDrain) -> Self {
        self.stream_drain = drain;
        self
    }

    /// Which requests wake the app when it sleeps.
    pub fn with_wake_on(mut self, rules: WakeRules) -> Self {
        self.wake_on = rules;
        self
    }

    pub async fn forward(&self, request: Request<Inbound>, exchange: Exchange<'_>) -> Result<Response<Body>, Failure> {
        let protocol = request.extensions().get::<hyper::ext::Protocol>();
        let protocol = protocol.map(|it| it.as_str().eq_ignore_ascii_case("websocket"));
        if protocol == Some(false) {
            let message = "This protocol is not forwarded.";
            return Err(Failure::client(StatusCode::NOT_IMPLEMENTED, reason::METHOD, message));
        }
        if request.method() == Method::CONNECT && protocol.is_none() {
            let message = "CONNECT is not forwarded.";
            return Err(Failure::client(StatusCode::METHOD_NOT_ALLOWED, reason::METHOD, message));
        }
        let Exchange { context, pools, tunnels, target, path, resumed } = exchange;
        let mut outgoing = self.outgoing(request, context, target)?;
        let (mut admitted, mut stage) = match resumed {
            Some(Resumed { in_flight, stage }) => (hold::Admitted::of(in_flight), stage),
            None => (hold::admit(&self.set, self.caller(&outgoing, context, path), &[]).await?, Stage::Picked),
        };
        loop {
            let endpoint = admitted.in_flight.endpoint().clone();
            context.upstream = Some(endpoint.text.clone());
            let trouble = match self.attempt(&mut outgoing, &endpoint, context, pools, stage).await {
                Ok((response, connection)) => {
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return self.switch(response, connection, admitted, outgoing, context, tunnels);
                    }
                    return self.respond(response, connection, admitted, outgoing, pools);
                }
                Err(trouble) => trouble,
            };
            match retry::decide(self.tried(&outgoing, trouble.sent)) {
                Decision::GiveUp => return Err(trouble.failure),
                Decision::Fresh => stage = Stage::Stale,
                Decision::Elsewhere => {
                    stage = Stage::Picked;
                    outgoing.tried.push(endpoint.id);
                    outgoing.retried += 1;
                    drop(admitted);
                    admitted = Box::pin(self.elsewhere(&outgoing, context, path)).await.ok_or(trouble.failure)?;
                }
            }
        }
    }

    fn caller<'a>(&'a self, outgoing: &'a Outgoing, context: &Context, path: &'a str) -> hold::Caller<'a> {
        hold::Caller { client: context.client_ip, method: &outgoing.head.method, path, wake_on: &self.wake_on }
    }

    fn tried(&self, outgoing: &Outgoing, sent: Sent) -> Attempt {
        let repeatable = outgoing.meter.is_none() && retry::is_idempotent(&outgoing.head.method);
        // A request that can only go to one endpoint waits for its successor once, whatever `retries` says.
        let retries = if self.set.is_managed() { self.retries.max(1) } else { self.retries };
        Attempt { sent, repeatable, retried: outgoing.retried, retries }
    }

    /// Another endpoint than those tried; for an app without one, its next.
    async fn elsewhere(&self, outgoing: &Outgoing, context: &Context, path: &str) -> Option<hold::Admitted> {
        let caller = || self.caller(outgoing, context, path);
        let changed = self.set.changed();
        if let Ok(admitted) = hold::admit(&self.set, caller(), &outgoing.tried).await {
            return Some(admitted);
        }
        if !self.set.is_managed() {
            return None;
        }
        // The instance died a moment ago and its supervisor has not said so yet.
        tokio::time::timeout(NOTICE_TIMEOUT, changed).await.ok()?;
        hold::admit(&self.set, caller(), &outgoing.tried).await.ok()
    }

    fn outgoing(
        &self,
        mut request: Request<Inbound>,
        context: &mut Context,
        target: &str,
    ) -> Result<Outgoing, Failure> {
        if context.request_id.is_none() {
            let said = context.trusted.then(|| request.headers().get(X_REQUEST_ID).cloned()).flatten();
            let id = said.or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
            context.request_id = id;
        }
        let extended = request.method() == Method::CONNECT;
        let wanted =
            if extended { Some(HeaderValue::from_static("websocket")) } else { headers::upgrade_wanted(&request) };
        let upgrade = wanted.map(|it| (it, hyper::upgrade::on(&mut request)));
        let (head, mut inbound) = request.into_parts();
        let patience = Patience::of(&head, self);
        if patience.is_stream() {
            inbound.as_stream(self.stream_idle_timeout);
        }
        let meter = (!http_body::Body::is_end_stream(&inbound)).then(|| inbound.meter());
        let interim = inbound.interim();
        let body = if meter.is_some() { Body::stream(inbound) } else { Body::Empty };
        let host = match head.headers.get(header::HOST) {
            Some(host) if host.as_bytes() == context.authority.as_bytes() => host.clone(),
            _ => HeaderValue::from_str(&context.authority).unwrap_or(HeaderValue::from_static("localhost")),
        };
        let (mut head, more) = headers::prepare(head, context, target, &host)?;
        if let Some((protocol, _)) = &upgrade {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol.clone());
        }
        if extended {
            headers::websocket_over_http1(&mut head);
        }
        // Ours: handles of our own connection, not meant for the next one.
        head.extensions.clear();
        let (body, lent, tried, retried) = (Some(body), None, Vec::new(), 0);
        Ok(Outgoing { head, more, host, body, lent, patience, meter, upgrade, interim, extended, tried, retried })
    }

    async fn attempt(
        &self,
        outgoing: &mut Outgoing,
        endpoint: &Arc<Endpoint>,
        context: &mut Context,
        pools: &Rc<Pools>,
        stage: Stage,
    ) -> Result<(Response<Incoming>, Connection), Trouble> {
        let order = self.order(outgoing, context);
        let fresh = matches!(stage, Stage::Stale);
        // A fresh one is asked for because an idle one was dead; a shared one that was is not in its pool any more.
        let connecting = match (stage, order.protocol) {
            (Stage::Overdue, _) => return Err(outgoing.overdue()),
            (Stage::Broken, _) => return Err(outgoing.recover(SendError::closed(), true)),
            (Stage::Sent(connection, begun), _) => {
                return Box::pin(self.hear(outgoing, connection, begun, context)).await;
            }
            (Stage::Stale, Protocol::Http1) => Box::pin(pools.connect(endpoint, &order)).await,
            _ => pools.obtain(endpoint, &order).await,
        };
        let mut connection = connecting.map_err(|error| {
            self.set.suspect(endpoint);
            Trouble { sent: Sent::Nothing, failure: blame::unreachable(error) }
        })?;
        let body = self.address(outgoing, endpoint, connection.protocol());
        let head = match connection.protocol() {
            Protocol::Http1 => Head::Lent { parts: &outgoing.head, more: outgoing.more.as_bytes() },
            Protocol::Http2 => {
                let scheme = if endpoint.is_secure() { Scheme::Https } else { Scheme::Http };
                Head::Given(Box::new(headers::for_http2(outgoing.head.clone(), &outgoing.more, scheme)))
            }
        };
        let begun = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = connection.send(head, body, outgoing.interim.clone()) => answer,
            () = outgoing.patience.over(outgoing.meter.as_ref()) => {
                return Err(outgoing.overdue());
            }
        };
        context.upstream_duration = Some(begun.elapsed());
        let reused = connection.is_reused();
        answer.map(|it| (it, connection)).map_err(|error| {
            // One that is fresh for the sake of this request is not called stale when it fails, or that would never end.
            let stale = !fresh && (reused || error.unprocessed);
            outgoing.recover(error, stale)
        })
    }

    /// The answer to what an errand has sent.
    async fn hear(
        &self,
        outgoing: &mut Outgoing,
        mut connection: Connection,
        begun: Instant,
        context: &mut Context,
    ) -> Result<(Response<Incoming>, Connection), Trouble> {
        let answer = tokio::select! {
            biased;
            answer = connection.hear(&outgoing.head.method, outgoing.interim.clone()) => answer,
            () = outgoing.patience.since(begun).over(None) => return Err(outgoing.overdue()),
        };
        context.upstream_duration = Some(begun.elapsed());
        answer.map(|it| (it, connection)).map_err(|error| outgoing.recover(error, true))
    }

    fn order(&self, outgoing: &Outgoing, context: &Context) -> Order {
        let transport = self.set.transport();
        // What switches protocols is spoken over HTTP/1.1, also with a server that knows both.
        let protocol = if outgoing.upgrade.is_some() { Protocol::Http1 } else { transport.protocol() };
        let peer = context.peer.remote;
        let port = if context.client_ip == peer.ip().to_canonical() { peer.port() } else { 0 };
        let header =
            Header::Proxied { source: SocketAddr::new(context.client_ip, port), destination: context.peer.local };
        Order { transport, protocol, timeout: self.connect_timeout, header }
    }

    /// Makes the head one for this endpoint, and gives the body to send with it.
    fn address(&self, outgoing: &mut Outgoing, endpoint: &Endpoint, protocol: Protocol) -> Body {
        if !self.preserve_host {
            let host = endpoint.host(self.set.is_managed()).unwrap_or(&outgoing.host).clone();
            outgoing.head.headers.insert(header::HOST, host);
        }
        let body = outgoing.body.take().unwrap_or_default();
        if protocol == Protocol::Http1 || outgoing.meter.is_none() {
            return body;
        }
        let loan = Loan::of(body);
        let body = loan.body();
        outgoing.lent = Some(loan);
        body
    }

    fn respond(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        admitted: hold::Admitted,
        outgoing: Outgoing,
        pools: &Rc<Pools>,
    ) -> Result<Response<Body>, Failure> {
        if outgoing.extended && response.status().is_success() {
            let message = "The site's server did not open the WebSocket.";
            return Err(Failure::upstream(StatusCode::BAD_GATEWAY, reason::BAD_RESPONSE, message));
        }
        let (mut head, incoming) = response.into_parts();
        // An upstream that answers HTTP/1.0 or says close will close; the connection knows, and the pool asks it.
        headers::strip_hop_by_hop(&mut head.headers);
        mark(&mut head);
        let streams = outgoing.patience.is_stream() || is_stream(&head.headers);
        let endpoint = admitted.in_flight.endpoint().clone();
        let lease = Lease {
            connection,
            _in_flight: admitted.in_flight,
            pools: pools.clone(),
            idle_timeout: self.set.idle_timeout(),
            meter: outgoing.meter,
        };
        let stop =
            streams.then(|| Box::pin(closing(&endpoint, self.stream_drain)) as Pin<Box<dyn Future<Output = ()>>>);
        let timeout = if streams { self.stream_idle_timeout } else { self.request_timeout };
        Ok(Response::from_parts(head, Body::stream(Relay::new(incoming, lease, timeout, stop))))
    }

    fn switch(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        admitted: hold::Admitted,
        outgoing: Outgoing,
        context: &mut Context,
        tunnels: &Tunnels,
    ) -> Result<Response<Body>, Failure> {
        let unasked = |detail| {
            let message = "The site's server gave an answer that nobody asked for.";
            Failure::upstream(StatusCode::BAD_GATEWAY, reason::BAD_RESPONSE, message).detail(detail)
        };
        let (_, client) = outgoing.upgrade.ok_or_else(|| unasked("101 to a request without Upgrade"))?;
        let (mut head, body) = response.into_parts();
        drop(body);
        let upstream = connection.into_upgraded().ok_or_else(|| unasked("101 before the request was whole"))?;
        let protocol = head.headers.get(header::UPGRADE).cloned();
        let websocket = protocol.as_ref().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
        headers::strip_hop_by_hop(&mut head.headers);
        if outgoing.extended {
            head.status = StatusCode::OK;
            head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                head.headers.insert(header::UPGRADE, protocol);
            }
        }
        mark(&mut head);
        let tunnel = Tunnel {
            client,
            upstream,
            in_flight: admitted.in_flight,
            idle_timeout: self.stream_idle_timeout,
            websocket,
            drain: self.stream_drain,
        };
        context.tunnel = Some(tunnel.start(tunnels));
        Ok(Response::from_parts(head, Body::Empty))
    }
}

/// Makes it an answer of ours.
fn mark(head: &mut http::response::Parts) {
    head.version = Version::HTTP_11;
    head.extensions.clear();
}

/// Answers that go on for as long as they like.
fn is_stream(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|it| {
        let kind = it.as_bytes();
        kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/grpc")
    })
}
