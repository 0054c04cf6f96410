//! Serves the control plane until it is told to stop. Open streams don't hold up the end: the daemon is leaving.

use std::{fmt, io, sync::Arc};

use proto::v1::{
    apps_server::AppsServer, certificates_server::CertificatesServer, cloudflare_server::CloudflareServer,
    daemon_server::DaemonServer, events_server::EventsServer, logs_server::LogsServer,
    operations_server::OperationsServer, upstreams_server::UpstreamsServer,
};
use tokio::{net::UnixListener, sync::watch};
use tonic::transport::Server;

use super::{Control, Course, Operations, Socket, incoming, plane::Plane, service};

const STREAMS_PER_CONNECTION_MAX: u32 = 16;

/// The control plane cannot be served (any longer).
#[derive(Debug)]
pub enum Error {
    Socket(io::Error),
    Transport(tonic::transport::Error),
    Reflection(tonic_reflection::server::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "the control socket cannot be used",
            Self::Transport(_) => "the control plane broke off",
            Self::Reflection(_) => "the description of the control API is damaged",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            Self::Socket(error) => error,
            Self::Transport(error) => error,
            Self::Reflection(error) => error,
        })
    }
}

impl Control {
    /// Serves until `course` comes to its end or its sender is gone. Runs on the control runtime.
    pub async fn serve(self, socket: Socket, mut course: watch::Receiver<Course>) -> Result<(), Error> {
        let (listener, file) = socket.into_parts();
        let listener = UnixListener::from_std(listener).map_err(Error::Socket)?;
        let plane = Arc::new(Plane { control: self, operations: Operations::default(), course: course.clone() });
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()
            .map_err(Error::Reflection)?;
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .add_service(reflection)
            .add_service(DaemonServer::new(service::Daemon(plane.clone())))
            .add_service(AppsServer::new(service::Apps(plane.clone())))
            .add_service(OperationsServer::new(service::Operations(plane.clone())))
            .add_service(LogsServer::new(service::Logs(plane.clone())))
            .add_service(UpstreamsServer::new(service::Upstreams(plane.clone())))
            .add_service(CertificatesServer::new(service::Certificates(plane.clone())))
            .add_service(CloudflareServer::new(service::Cloudflare(plane.clone())))
            .add_service(EventsServer::new(service::Events(plane)))
            .serve_with_incoming_shutdown(incoming::admitted(listener, course.clone()), Course::ended(course.clone()));
        let ended = tokio::select! {
            ended = serving => ended.map_err(Error::Transport),
            _ = course.wait_for(|it| matches!(it, Course::Stopping | Course::HandedOver)) => Ok(()),
        };
        if matches!(*course.borrow(), Course::Leaving | Course::HandedOver) {
            file.leave();
        }
        ended
    }
}
