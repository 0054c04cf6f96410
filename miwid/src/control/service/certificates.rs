//! Certificates: what is shown, what operators want done, and the root of the local CA for whoever wants to trust it.

use std::sync::Arc;

use proto::v1::{self, certificates_server};
use tonic::{Request, Response, Status};

use super::Reply;
use crate::{
    control::{
        Order,
        access::{Peer, Right},
        audit::Caller,
        plane::Plane,
    },
    tls,
};

pub(in crate::control) struct Certificates(pub(in crate::control) Arc<Plane>);

#[tonic::async_trait]
impl certificates_server::Certificates for Certificates {
    async fn list(&self, _: Request<v1::ListCertificatesRequest>) -> Reply<v1::ListCertificatesReply> {
        Ok(Response::new(v1::ListCertificatesReply { certificates: self.0.certificates() }))
    }

    async fn root(&self, _: Request<v1::RootRequest>) -> Reply<v1::RootReply> {
        let snapshot = self.0.control.current.load();
        let terminator = snapshot.tls.as_ref();
        let terminator =
            terminator.ok_or_else(|| Status::failed_precondition("HTTPS is off, so there is no local CA"))?;
        let (pem, path) = terminator.root();
        let path = path.map(|it| it.display().to_string());
        Ok(Response::new(v1::RootReply { pem: pem.to_owned(), path }))
    }

    async fn request(&self, request: Request<v1::RequestCertificateRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "cert request", Right::Administer).await?;
        let ask = request.into_inner();
        let wanted = tls::Order {
            name: ask.name,
            hosts: ask.hosts,
            issuer: ask.issuer,
            days: ask.validity_days,
            force: ask.force,
            dry_run: ask.dry_run,
        };
        let target = wanted.name.clone().or_else(|| wanted.hosts.first().cloned()).unwrap_or_default();
        let order = order("cert request", &target, &ask.request_id, format!("{wanted:?}"), &caller);
        let keeper = self.0.control.certificates.clone();
        self.0
            .operate(caller, order, |steps| async move { keeper.request(wanted, steps).await.into() })
            .map(Response::new)
    }

    async fn renew(&self, request: Request<v1::RenewCertificateRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "cert renew", Right::Administer).await?;
        let v1::RenewCertificateRequest { request_id, name, force } = request.into_inner();
        let order = order("cert renew", &name, &request_id, force.to_string(), &caller);
        let keeper = self.0.control.certificates.clone();
        self.0
            .operate(caller, order, |steps| async move { keeper.renew(&name, force, steps).await.into() })
            .map(Response::new)
    }

    async fn revoke(&self, request: Request<v1::RevokeCertificateRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "cert revoke", Right::Administer).await?;
        let v1::RevokeCertificateRequest { request_id, name, force } = request.into_inner();
        let order = order("cert revoke", &name, &request_id, force.to_string(), &caller);
        let keeper = self.0.control.certificates.clone();
        self.0.operate(caller, order, |_| async move { keeper.revoke(&name, force).await.into() }).map(Response::new)
    }

    async fn import(&self, request: Request<v1::ImportCertificateRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "cert import", Right::Administer).await?;
        let v1::ImportCertificateRequest { request_id, name, certificate_pem, key_pem } = request.into_inner();
        let target = name.clone().unwrap_or_else(|| "certificate".to_owned());
        // The key is no part of what is remembered; two imports under one id are one.
        let order = order("cert import", &target, &request_id, certificate_pem.clone(), &caller);
        let keeper = self.0.control.certificates.clone();
        self.0
            .operate(caller, order, |_| async move { keeper.import(name, certificate_pem, key_pem).await.into() })
            .map(Response::new)
    }

    async fn remove(&self, request: Request<v1::RemoveCertificateRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "cert remove", Right::Administer).await?;
        let v1::RemoveCertificateRequest { request_id, name } = request.into_inner();
        let order = order("cert remove", &name, &request_id, String::new(), &caller);
        let keeper = self.0.control.certificates.clone();
        self.0.operate(caller, order, |_| async move { keeper.remove(&name).await.into() }).map(Response::new)
    }
}

fn order(kind: &'static str, name: &str, request_id: &str, arguments: String, caller: &Caller) -> Order {
    Order { kind, target: name.to_owned(), request_id: request_id.to_owned(), arguments, holder: caller.holder() }
}
