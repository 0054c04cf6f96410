//! Our vocabulary of one request and its response: body, context, failure, headers, and what an
//! operator adds to them. (Not `http`: that is a crate.)

mod body;
mod context;
mod extra;
mod failure;
mod grpc;
pub mod headers;
mod inbound;
mod sharing;
mod stored;
mod tunnel;

pub use body::{Body, LocalBody};
pub use context::{ClientCertificate, Context, Peer, Scheme, Secured};
pub use extra::ExtraHeaders;
pub use failure::{Failure, Side, reason};
pub use grpc::{is_call, is_grpc};
pub use inbound::{Cut, Inbound, Meter, Source};
pub use sharing::Sharing;
pub use stored::{FRESH_FOR, Offer, Stored};
pub use tunnel::{Ending, TunnelEnd};
