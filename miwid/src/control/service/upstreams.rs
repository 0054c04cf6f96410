//! Sets of endpoints: what is in them, and taking one out for a while.

use std::sync::Arc;

use proto::v1::{self, upstreams_server};
use tonic::{Request, Response, Status};

use super::Reply;
use crate::control::{
    access::{Peer, Right},
    audit::Caller,
    convert,
    plane::Plane,
};
use crate::upstream::Endpoint;

pub(in crate::control) struct Upstreams(pub(in crate::control) Arc<Plane>);

impl Upstreams {
    /// An app's instances are its operators'; other upstreams are nobody's alone.
    async fn permit(&self, request: &Request<v1::DrainRequest>, method: &'static str) -> Result<Caller, Status> {
        let name = &request.get_ref().name;
        let is_app = self.0.is_app(name);
        let right = if is_app { Right::Steer(name) } else { Right::Operate };
        self.0.permit(Peer::of(request), method, right).await
    }

    fn change(&self, ask: &v1::DrainRequest, act: impl Fn(&Endpoint)) -> Result<v1::Upstream, Status> {
        let sets = self.0.control.directory.sets();
        let set = sets.iter().find(|set| set.name() == ask.name);
        let set = set.ok_or_else(|| Status::not_found(format!("there is no upstream `{}`", ask.name)))?;
        let endpoints = set.endpoints();
        let matches =
            |endpoint: &&Arc<Endpoint>| endpoint.address.to_string() == ask.address || endpoint.label == ask.address;
        let endpoint = endpoints
            .iter()
            .find(matches)
            .ok_or_else(|| Status::not_found(format!("upstream `{}` has no endpoint `{}`", ask.name, ask.address)))?;
        act(endpoint);
        Ok(convert::upstream(set))
    }
}

#[tonic::async_trait]
impl upstreams_server::Upstreams for Upstreams {
    async fn list(&self, _: Request<v1::ListUpstreamsRequest>) -> Reply<v1::ListUpstreamsReply> {
        let upstreams = self.0.control.directory.sets().iter().map(|set| convert::upstream(set)).collect();
        Ok(Response::new(v1::ListUpstreamsReply { upstreams }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Reply<v1::Upstream> {
        let caller = self.permit(&request, "drain").await?;
        let ask = request.get_ref();
        let reply = self.change(ask, |endpoint| endpoint.set_drained(true));
        caller.audited("drain", &format!("{} {}", ask.name, ask.address), reply).map(Response::new)
    }

    async fn undrain(&self, request: Request<v1::DrainRequest>) -> Reply<v1::Upstream> {
        let caller = self.permit(&request, "undrain").await?;
        let ask = request.get_ref();
        let reply = self.change(ask, |endpoint| endpoint.set_drained(false));
        caller.audited("undrain", &format!("{} {}", ask.name, ask.address), reply).map(Response::new)
    }
}
