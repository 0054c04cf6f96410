//! What a newcomer sees first.

use super::Pages;

/// The welcome page of the built-in default, with nothing in it that comes from outside.
pub fn welcome(pages: &Pages) -> String {
    let (active, ..) = pages.metrics.connections();
    include_str!("welcome.html")
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{active}", &active.to_string())
}
