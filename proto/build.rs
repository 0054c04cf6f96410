//! Compiles the proto files without protoc, and keeps their descriptors for reflection.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["miwi/control/v1/control.proto"], ["proto"])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("control.fds"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().type_attribute(".", "#[derive(serde::Serialize)]").compile_fds(descriptors)?;
    Ok(())
}
