//! The gRPC services, one short method for each call.

mod apps;
mod certificates;
mod cloudflare;
mod daemon;
mod deploy;
mod events;
mod lasting;
mod logs;
mod operations;
mod tail;
mod upstreams;

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Response, Status};

pub(super) use apps::Apps;
pub(super) use certificates::Certificates;
pub(super) use cloudflare::Cloudflare;
pub(super) use daemon::Daemon;
pub(super) use events::Events;
use lasting::{here, lasting};
pub(super) use logs::Logs;
pub(super) use operations::Operations;
pub(super) use upstreams::Upstreams;

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
