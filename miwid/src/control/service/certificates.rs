//! Certificates: what is shown, and the root of the local CA for whoever wants to trust it.

use std::sync::Arc;

use proto::v1::{self, certificates_server};
use tonic::{Request, Response, Status};

use super::Reply;
use crate::control::plane::Plane;

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
}
