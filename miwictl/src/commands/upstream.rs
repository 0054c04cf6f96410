//! `miwictl upstream`: endpoints, and taking one out for a while.

use proto::v1::{DrainRequest, ListUpstreamsRequest, Upstream};

use super::connect;
use crate::{
    cli::{Globals, UpstreamCommand},
    error::{Error, Result},
    output,
};

pub(super) async fn run(globals: &Globals, command: &UpstreamCommand) -> Result {
    let mut upstreams = connect(globals).await?.upstreams();
    let changed = match command {
        UpstreamCommand::List => {
            let reply = upstreams.list(ListUpstreamsRequest {}).await?.into_inner();
            output::document(globals, &reply, |reply| table(&reply.upstreams));
            return Ok(());
        }
        UpstreamCommand::Drain { name, address } => upstreams.drain(request(name, address)).await,
        UpstreamCommand::Undrain { name, address } => upstreams.undrain(request(name, address)).await,
    };
    let upstream = changed.map_err(|status| Error::from(status).hint("`miwictl upstream list` shows what there is"))?;
    output::document(globals, upstream.get_ref(), |upstream| table(std::slice::from_ref(upstream)));
    Ok(())
}

fn request(name: &str, address: &str) -> DrainRequest {
    DrainRequest { name: name.to_owned(), address: address.to_owned() }
}

fn table(upstreams: &[Upstream]) -> String {
    let rows = upstreams.iter().flat_map(|upstream| {
        upstream.endpoints.iter().map(|endpoint| {
            let health = if endpoint.healthy { "healthy" } else { "unhealthy" };
            let drained = if endpoint.drained { "drained" } else { "" };
            [
                upstream.name.clone(),
                endpoint.address.clone(),
                health.to_owned(),
                drained.to_owned(),
                endpoint.in_flight.to_string(),
                upstream.availability.clone(),
            ]
        })
    });
    output::table(["UPSTREAM", "ENDPOINT", "HEALTH", "DRAINED", "IN FLIGHT", "AVAILABILITY"], rows)
}
