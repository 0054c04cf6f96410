//! The life of a proxied request (hot). A request's body can be sent once: everything that may be tried again happens
//! before its first byte has left.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};

use super::{
    blame, headers, hold,
    relay::{Lease, Relay},
    retry::{self, Attempt, Decision, Sent},
    upgrade::{Tunnel, closing},
};
use crate::{
    exchange::{Body, Context, Failure, Inbound, Meter, headers::X_REQUEST_ID, reason},
    upstream::{Address, Connection, Endpoint, Pools, Set},
};

/// How long a request waits for the supervisor to notice that the only instance is gone.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);

/// One proxied route, built when the snapshot is built.
pub struct Forwarder {
    pub set: Arc<Set>,
    pub(super) stream_drain: config::StreamDrain,
    pub(super) preserve_host: bool,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stream_idle_timeout: Duration,
    pub(super) retries: u32,
    /// What the configuration asks for that this version cannot do.
    pub(super) unavailable: Option<&'static str>,
}

/// What `forward` is given beside the request.
pub struct Exchange<'a> {
    pub context: &'a mut Context,
    pub pools: &'a Rc<Pools>,
    /// Path and query to ask the upstream for (after `strip_prefix`).
    pub target: &'a str,
}

/// A request while it looks for an endpoint.
struct Outgoing {
    head: request::Parts,
    body: Option<Body>,
    meter: Option<Meter>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
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

impl Forwarder {
    pub fn new(set: Arc<Set>, proxy: &config::Proxy, server: &config::Server) -> Self {
        let https = proxy.urls.iter().any(|it| matches!(it, config::UpstreamUrl::Https { .. }));
        let unavailable = if https {
            Some("https upstreams are not available in this version")
        } else if proxy.upstream_http == config::UpstreamHttp::Http2 {
            Some("upstream_http = \"2\" is not available in this version")
        } else {
            None
        };
        Self {
            set,
            stream_drain: config::StreamDrain::CloseAfter(Duration::from_secs(5)),
            preserve_host: proxy.preserve_host,
            connect_timeout: proxy.connect_timeout,
            request_timeout: server.request_timeout,
            stream_idle_timeout: server.stream_idle_timeout,
            retries: proxy.retries,
            unavailable,
        }
    }

    /// What becomes of open streams when their endpoint is withdrawn.
    pub fn with_stream_drain(mut self, drain: config::StreamDrain) -> Self {
        self.stream_drain = drain;
        self
    }

    pub async fn forward(&self, request: Request<Inbound>, exchange: Exchange<'_>) -> Result<Response<Body>, Failure> {
        if let Some(what) = self.unavailable {
            let message = "The site's upstream cannot be reached.";
            return Err(Failure::server(StatusCode::BAD_GATEWAY, reason::CONNECT_FAILED, message).detail(what));
        }
        let protocol = request.extensions().get::<Protocol>().map(|it| it.as_str().eq_ignore_ascii_case("websocket"));
        if protocol == Some(false) {
            let message = "This protocol is not forwarded.";
            return Err(Failure::client(StatusCode::NOT_IMPLEMENTED, reason::METHOD, message));
        }
        if request.method() == Method::CONNECT && protocol.is_none() {
            let message = "CONNECT is not forwarded.";
            return Err(Failure::client(StatusCode::METHOD_NOT_ALLOWED, reason::METHOD, message));
        }
        let Exchange { context, pools, target } = exchange;
        let mut outgoing = self.outgoing(request, context, target)?;
        let mut fresh = false;
        let mut admitted = hold::admit(&self.set, context.client_ip, &[]).await?;
        loop {
            let endpoint = admitted.in_flight.endpoint().clone();
            context.upstream = Some(endpoint.address.to_string());
            let trouble = match self.attempt(&mut outgoing, &endpoint, context, pools, fresh).await {
                Ok((response, connection)) => {
                    return self.respond(response, connection, admitted, outgoing, context, pools);
                }
                Err(trouble) => trouble,
            };
            match retry::decide(self.tried(&outgoing, trouble.sent)) {
                Decision::GiveUp => return Err(trouble.failure),
                Decision::Fresh => fresh = true,
                Decision::Elsewhere => {
                    fresh = false;
                    outgoing.tried.push(endpoint.id);
                    outgoing.retried += 1;
                    drop(admitted);
                    admitted = self.elsewhere(&outgoing, context).await.ok_or(trouble.failure)?;
                }
            }
        }
    }

    fn tried(&self, outgoing: &Outgoing, sent: Sent) -> Attempt {
        let repeatable = outgoing.meter.is_none() && retry::is_idempotent(&outgoing.head.method);
        // A request that can only go to one endpoint waits for its successor once, whatever `retries` says.
        let retries = if self.set.is_managed() { self.retries.max(1) } else { self.retries };
        Attempt { sent, repeatable, retried: outgoing.retried, retries }
    }

    /// Another endpoint than those tried; for an app without one, its next.
    async fn elsewhere(&self, outgoing: &Outgoing, context: &Context) -> Option<hold::Admitted> {
        let changed = self.set.changed();
        if let Ok(admitted) = hold::admit(&self.set, context.client_ip, &outgoing.tried).await {
            return Some(admitted);
        }
        if !self.set.is_managed() {
            return None;
        }
        // The instance died a moment ago and its supervisor has not said so yet.
        tokio::time::timeout(NOTICE_TIMEOUT, changed).await.ok()?;
        hold::admit(&self.set, context.client_ip, &outgoing.tried).await.ok()
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
        let (head, inbound) = request.into_parts();
        let meter = (!http_body::Body::is_end_stream(&inbound)).then(|| inbound.meter());
        let body = if meter.is_some() { Body::stream(inbound) } else { Body::Empty };
        let host = HeaderValue::from_str(&context.authority).unwrap_or(HeaderValue::from_static("localhost"));
        let mut head = headers::prepare(head, context, target, &host)?;
        if let Some((protocol, _)) = &upgrade {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol.clone());
        }
        if extended {
            headers::websocket_over_http1(&mut head);
        }
        // Ours: handles of our own connection, not meant for the next one.
        head.extensions.clear();
        Ok(Outgoing { head, body: Some(body), meter, upgrade, extended, tried: Vec::new(), retried: 0 })
    }

    async fn attempt(
        &self,
        outgoing: &mut Outgoing,
        endpoint: &Arc<Endpoint>,
        context: &mut Context,
        pools: &Rc<Pools>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Connection), Trouble> {
        let pooled = if fresh { None } else { pools.checkout(endpoint) };
        let mut connection = match pooled {
            Some(connection) => connection,
            None => pools.connect(endpoint, self.connect_timeout).await.map_err(|error| {
                self.set.suspect(endpoint);
                Trouble { sent: Sent::Nothing, failure: blame::unreachable(error) }
            })?,
        };
        let request = self.request(outgoing, endpoint);
        let begun = Instant::now();
        let answer = tokio::select! {
            answer = connection.send(request) => answer,
            () = head_deadline(outgoing.meter.as_ref(), self.request_timeout) => {
                let message = "The site's server did not answer in time.";
                let failure = Failure::upstream(StatusCode::GATEWAY_TIMEOUT, reason::HEAD_TIMEOUT, message);
                return Err(Trouble { sent: Sent::Unanswered, failure: blame::cut(outgoing.meter.as_ref()).unwrap_or(failure) });
            }
        };
        context.upstream_duration = Some(begun.elapsed());
        let mut error = match answer {
            Ok(response) => return Ok((response, connection)),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let sent = match (connection.is_reused(), unsent.is_some()) {
            (true, true) => Sent::NothingOnReused,
            (false, true) => Sent::Nothing,
            (true, false) => Sent::OnReused,
            (false, false) => Sent::OnFresh,
        };
        outgoing.body = match unsent {
            Some(request) => Some(request.into_body()),
            None => outgoing.meter.is_none().then_some(Body::Empty),
        };
        let failure = blame::cut(outgoing.meter.as_ref()).unwrap_or_else(|| blame::broken(&error.into_error()));
        Err(Trouble { sent, failure })
    }

    fn request(&self, outgoing: &mut Outgoing, endpoint: &Endpoint) -> Request<Body> {
        let mut head = outgoing.head.clone();
        if !self.preserve_host
            && let Some(host) = own_host(endpoint, self.set.is_managed())
        {
            head.headers.insert(header::HOST, host);
        }
        Request::from_parts(head, outgoing.body.take().unwrap_or_default())
    }

    fn respond(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        admitted: hold::Admitted,
        outgoing: Outgoing,
        context: &mut Context,
        pools: &Rc<Pools>,
    ) -> Result<Response<Body>, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, admitted, outgoing, context);
        }
        if outgoing.extended && response.status().is_success() {
            let message = "The site's server did not open the WebSocket.";
            return Err(Failure::upstream(StatusCode::BAD_GATEWAY, reason::BAD_RESPONSE, message));
        }
        let (mut head, incoming) = response.into_parts();
        // An upstream that answers HTTP/1.0 or says close will close; hyper knows, and the pool asks it.
        headers::strip_hop_by_hop(&mut head.headers);
        self.mark(&mut head, context);
        let streams = is_stream(&head.headers);
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
        mut response: Response<Incoming>,
        admitted: hold::Admitted,
        outgoing: Outgoing,
        context: &mut Context,
    ) -> Result<Response<Body>, Failure> {
        let Some((_, client)) = outgoing.upgrade else {
            let message = "The site's server gave an answer that nobody asked for.";
            return Err(Failure::upstream(StatusCode::BAD_GATEWAY, reason::BAD_RESPONSE, message)
                .detail("101 to a request without Upgrade"));
        };
        let upstream = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
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
        self.mark(&mut head, context);
        let tunnel = Tunnel {
            client,
            upstream,
            in_flight: admitted.in_flight,
            idle_timeout: self.stream_idle_timeout,
            websocket,
            drain: self.stream_drain,
        };
        context.tunnel = Some(tunnel.start());
        Ok(Response::from_parts(head, Body::Empty))
    }

    fn mark(&self, head: &mut http::response::Parts, context: &Context) {
        head.version = Version::HTTP_11;
        head.extensions.clear();
        if let Some(id) = &context.request_id {
            head.headers.insert(X_REQUEST_ID, id.clone());
        }
    }
}

/// The endpoint's own name; a unix socket has none and keeps the site's.
fn own_host(endpoint: &Endpoint, managed: bool) -> Option<HeaderValue> {
    match &endpoint.address {
        Address::Unix(_) => None,
        // Here the label is an instance's name.
        Address::Tcp(address) if managed => HeaderValue::from_str(&address.to_string()).ok(),
        // The label of a resolved address is `name:port address`.
        Address::Tcp(_) => endpoint.label.split(' ').next().and_then(|it| HeaderValue::from_str(it).ok()),
    }
}

/// Answers that go on for as long as they like.
fn is_stream(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|it| {
        let kind = it.as_bytes();
        kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/grpc")
    })
}

/// Resolves when no head came for `timeout` since the request's body last moved.
async fn head_deadline(meter: Option<&Meter>, timeout: Duration) {
    let bytes = || meter.map_or(0, Meter::bytes);
    loop {
        let before = bytes();
        tokio::time::sleep(timeout).await;
        if bytes() == before {
            return;
        }
    }
}
