//! The life of a request (hot): from its head to the last byte of its answer, on one screen.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};

use super::{
    finish::{Pending, Summary, Tracked, finish},
    head, internal, secure,
    worker::Worker,
};
use crate::{
    encoding::Rules,
    exchange::{Body, Context, Failure, Inbound, Peer, Source, is_call, reason},
    files::Sought,
    net::Activity,
    policy::{Asked, Guard, Refusal, compress},
    proxy::{Exchange, Resumed},
    routing::{NoPlan, Target, normalized, plan},
    snapshot::Snapshot,
    telemetry::Refused,
};

/// A request that was taken up in another way, under the configuration of that moment.
pub(super) struct TakenUp {
    pub(super) started: Instant,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) resumed: Option<Resumed>,
}

impl TakenUp {
    fn now(worker: &Worker) -> Self {
        Self { started: Instant::now(), snapshot: worker.snapshot(), request_id: None, resumed: None }
    }
}

/// Not an `async fn`, and the same below: that would keep room for its arguments twice, and every request pays for its size.
pub(super) fn serve<S: Into<Source>>(
    worker: Rc<Worker>,
    peer: Peer,
    activity: &Activity,
    request: Request<S>,
    taken_up: Option<TakenUp>,
) -> impl Future<Output = Response<Tracked>> + use<S> {
    let TakenUp { started, snapshot, request_id, resumed } = taken_up.unwrap_or_else(|| TakenUp::now(&worker));
    let running = activity.request(started);
    let (mut parts, incoming) = request.into_parts();
    let inbound = Inbound::new(incoming, body_limit(&parts, &snapshot), snapshot.settings.request_timeout)
        .with_interim((parts.version == Version::HTTP_11).then(|| activity.desk()).flatten());
    let summary = Summary::of(&parts, inbound.meter());
    let mut pending =
        Pending::new(worker.clone(), head::context(peer, started, worker.clock.time(started)), summary, running);
    pending.context.extra.clone_from(&snapshot.extra);
    pending.context.request_id = request_id;
    let examined = head::examine(&mut parts, &mut pending.context, &snapshot.settings);
    let request = Request::from_parts(parts, inbound);

    async move {
        let context = &mut pending.context;
        let answer = match examined {
            Ok(()) if secure::is_misdirected(&snapshot, context) => Err(secure::misdirected()),
            Ok(()) => answer(&worker, &snapshot, context, request, resumed).await,
            Err(failure) => Err(failure),
        };
        let response = answer.unwrap_or_else(|failure| explain(failure, &mut pending));
        finish(pending, &snapshot, response)
    }
}

/// Health pages first, then the site's own target.
async fn answer(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    context: &mut Context,
    request: Request<Inbound>,
    resumed: Option<Resumed>,
) -> Result<Response<Body>, Failure> {
    if let Some(response) = internal::challenge(snapshot, &request) {
        return Ok(response);
    }
    if let Some(response) = internal::answer(&worker.pages, &snapshot.hosts, context, &request).await {
        let asked = asked(snapshot.compression.as_deref(), &request);
        return Ok(compressed(asked, response, worker).0);
    }
    if let Some(failure) = secure::turned_away(snapshot, context) {
        return Err(failure);
    }
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        admit(snapshot.guard.as_deref(), context, &request, worker)?;
        return Ok(internal::options());
    }
    let uri = request.uri().clone();
    let plan = match plan(&snapshot.hosts, &context.host, uri.path()) {
        Ok(plan) => plan,
        Err(NoPlan::NoSite) => {
            admit(snapshot.guard.as_deref(), context, &request, worker)?;
            let response = internal::no_site(&snapshot.settings, &worker.pages, request.method(), uri.path())?;
            let asked = asked(snapshot.compression.as_deref(), &request);
            return Ok(compressed(asked, response, worker).0);
        }
        Err(NoPlan::BadPath) => {
            admit(snapshot.guard.as_deref(), context, &request, worker)?;
            return Err(bad_path());
        }
    };
    context.site = Some(plan.site.name.clone());
    context.extra.clone_from(&plan.route.extra);
    if let Some(response) = admit(plan.route.guard.as_deref(), context, &request, worker)? {
        return Ok(response);
    }
    if let Some(elsewhere) = secure::only_over_tls(snapshot, context, &request) {
        return elsewhere;
    }
    let asked = asked(plan.route.compression.as_deref(), &request);
    let response = match &plan.route.target {
        Target::Files(root) => {
            let asked = Sought { method: request.method(), uri: &uri, path: &plan.path, headers: request.headers() };
            root.serve(&worker.files, &mut context.offer, asked).await
        }
        Target::Proxy(forwarder) => {
            context.request_id.get_or_insert_with(new_request_id);
            let target = match uri.query() {
                None => plan.path,
                Some(query) => format!("{}?{query}", plan.path).into(),
            };
            let Worker { pools, tunnels, .. } = &**worker;
            let exchange = Exchange { context, pools, tunnels, target: &target, path: &plan.clean, resumed };
            // Boxed, so that other requests have no room for it.
            Box::pin(forwarder.forward(request, exchange)).await
        }
        Target::Redirect { to, status } => redirect(to, *status, uri.query()),
        Target::Respond { status, body, content_type } => {
            let mut response = Response::new(Body::from(body.clone()));
            *response.status_mut() = *status;
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            Ok(response)
        }
    }?;
    let (response, is_encoded) = compressed(asked, response, worker);
    if is_encoded || plan.route.guard.is_some() {
        // Encoded on its way, what is offered is not what is sent; and it is not for everybody who asks.
        context.offer = None;
    }
    Ok(response)
}

/// Whether the request may be made at all: an error, or an answer that needs nobody behind us.
fn admit(
    guard: Option<&Guard>,
    context: &mut Context,
    request: &Request<Inbound>,
    worker: &Worker,
) -> Result<Option<Response<Body>>, Failure> {
    let Some(guard) = guard else { return Ok(None) };
    let path = request.uri().path();
    let path = normalized(path).unwrap_or(Cow::Borrowed(path));
    guard.admit(context, (request.method(), request.headers(), &path), |judged| {
        let shard = &worker.shard;
        if judged.evicted {
            shard.client_forgotten();
        }
        let why = judged.refusal.map(|it| match it {
            Refusal::Denied => Refused::Denied,
            Refusal::TooOften { .. } => Refused::RateLimit,
            Refusal::Foreign => Refused::Csrf,
        });
        match why {
            Some(why) if guard.is_enforced() => shard.refused(why),
            Some(why) => shard.would_refuse(why),
            None => {}
        }
    })
}

/// What an answer's encoding will depend on; `None` where nothing is encoded, and nothing is looked at.
fn asked<'a>(rules: Option<&'a Rules>, request: &Request<Inbound>) -> Option<Asked<'a>> {
    rules.map(|it| Asked::of(it, request.method(), request.headers()))
}

/// The answer, and whether it was encoded here.
fn compressed(asked: Option<Asked<'_>>, response: Response<Body>, worker: &Worker) -> (Response<Body>, bool) {
    let Some(asked) = asked else { return (response, false) };
    let was_coded = response.headers().contains_key(header::CONTENT_ENCODING);
    let response = compress(&asked, response, &worker.encoders);
    let coding = response.headers().get(header::CONTENT_ENCODING).filter(|_| !was_coded);
    if let Some(coding) = coding {
        worker.shard.compressed(coding.as_bytes());
    }
    let is_encoded = coding.is_some();
    (response, is_encoded)
}

/// A failure becomes an answer here and nowhere else, and is logged once.
fn explain(failure: Failure, pending: &mut Pending) -> Response<Body> {
    let context = &mut pending.context;
    context.reason = Some(failure.reason);
    context.request_id.get_or_insert_with(new_request_id);
    tracing::debug!(
        status = failure.status.as_u16(),
        reason = failure.reason,
        side = ?failure.side,
        host = %context.host,
        detail = failure.detail.as_deref().unwrap_or(""),
        "request failed"
    );
    failure.response(&pending.summary.accept())
}

/// gRPC streams have no size limit: flow control bounds them. What follows an upgrade is no body, and not counted here.
fn body_limit(parts: &Parts, snapshot: &Snapshot) -> u64 {
    if is_call(parts.version, &parts.headers) { 0 } else { snapshot.settings.request_bytes_max }
}

/// The query goes along unless the target has one of its own.
fn redirect(to: &str, status: StatusCode, query: Option<&str>) -> Result<Response<Body>, Failure> {
    let location = match query {
        Some(query) if !to.contains('?') => format!("{to}?{query}"),
        _ => to.to_owned(),
    };
    let location = HeaderValue::from_str(&location).map_err(|_| bad_path())?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn bad_path() -> Failure {
    Failure::client(StatusCode::BAD_REQUEST, reason::BAD_REQUEST, "The path of the request cannot be resolved.")
}

pub(super) fn new_request_id() -> HeaderValue {
    RequestId::new().value()
}

/// A random UUID as it is written. `fastrand` is enough: the id is a name, not a secret, and a system call per request is not.
pub(super) struct RequestId([u8; uuid::fmt::Hyphenated::LENGTH]);

impl RequestId {
    pub(super) fn new() -> Self {
        let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Self(text)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits and hyphens are visible ASCII")
    }
}
