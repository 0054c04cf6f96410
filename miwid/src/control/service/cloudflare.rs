//! Cloudflare: what is wrong with it, which addresses are its, and what is to leave its caches.

use std::sync::Arc;

use proto::v1::{self, cloudflare_server};
use tonic::Request;
#[cfg(feature = "cloudflare")]
use tonic::Response;
#[cfg(not(feature = "cloudflare"))]
use tonic::Status;

use super::Reply;
use crate::control::plane::Plane;
#[cfg(feature = "cloudflare")]
use crate::control::{
    access::{Peer, Right},
    sight,
};

#[cfg_attr(not(feature = "cloudflare"), expect(dead_code, reason = "nothing can be asked"))]
pub(in crate::control) struct Cloudflare(pub(in crate::control) Arc<Plane>);

#[cfg(not(feature = "cloudflare"))]
#[tonic::async_trait]
impl cloudflare_server::Cloudflare for Cloudflare {
    async fn check(&self, _: Request<v1::CheckCloudflareRequest>) -> Reply<v1::CheckCloudflareReply> {
        Err(absent())
    }

    async fn ips(&self, _: Request<v1::CloudflareIpsRequest>) -> Reply<v1::CloudflareIpsReply> {
        Err(absent())
    }

    async fn purge(&self, _: Request<v1::PurgeCloudflareRequest>) -> Reply<v1::PurgeCloudflareReply> {
        Err(absent())
    }
}

#[cfg(not(feature = "cloudflare"))]
fn absent() -> Status {
    Status::failed_precondition("this miwid was built without cloudflare")
}

#[cfg(feature = "cloudflare")]
#[tonic::async_trait]
impl cloudflare_server::Cloudflare for Cloudflare {
    async fn check(&self, request: Request<v1::CheckCloudflareRequest>) -> Reply<v1::CheckCloudflareReply> {
        self.0.permit(Peer::of(&request), "cloudflare check", Right::Operate).await?;
        Ok(Response::new(sight::check(&self.0, request.into_inner().hosts).await))
    }

    async fn ips(&self, request: Request<v1::CloudflareIpsRequest>) -> Reply<v1::CloudflareIpsReply> {
        let right = if request.get_ref().refresh { Right::Operate } else { Right::Look };
        self.0.permit(Peer::of(&request), "cloudflare ips", right).await?;
        Ok(Response::new(sight::ips(&self.0, request.get_ref().refresh).await))
    }

    async fn purge(&self, request: Request<v1::PurgeCloudflareRequest>) -> Reply<v1::PurgeCloudflareReply> {
        let caller = self.0.permit(Peer::of(&request), "cloudflare purge", Right::Operate).await?;
        let ask = request.into_inner();
        let reply = sight::purge(&self.0, &ask).await;
        let result = reply.error.as_ref().map_or("done", |it| it.message.as_str());
        caller.record("cloudflare purge", &sight::named(&ask), result);
        Ok(Response::new(reply))
    }
}
