//! `miwictl cloudflare ...`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum CloudflareCommand {
    /// What is wrong between Cloudflare and this server; exits with 6 for errors
    Check {
        /// Only for these hosts
        hosts: Vec<String>,
    },
    /// The addresses that count as Cloudflare's
    Ips {
        /// Ask Cloudflare first
        #[arg(long)]
        refresh: bool,
    },
    /// Take something out of Cloudflare's caches
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["urls", "tag", "prefix", "host", "all"]))]
pub(crate) struct PurgeArgs {
    /// Whole addresses
    #[arg(value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// What was answered with this Cache-Tag
    #[arg(long, value_name = "T")]
    pub(crate) tag: Vec<String>,
    /// What begins so: shop.example.com/images
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Vec<String>,
    #[arg(long, value_name = "H")]
    pub(crate) host: Vec<String>,
    /// Everything of the zone
    #[arg(long, conflicts_with_all = ["urls", "tag", "prefix", "host"])]
    pub(crate) all: bool,
    /// A host in the zone that is meant, where there are several
    #[arg(long, value_name = "HOST")]
    pub(crate) zone: Option<String>,
}
