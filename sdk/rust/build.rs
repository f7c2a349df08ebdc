// SPDX-License-Identifier: Apache-2.0
//! Makes the messages and stubs from the protos inside the crate, with a compiler of protos in Rust: no
//! protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 6] =
    ["error", "tensor", "query_service", "feedback_service", "application_service", "model_service"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(PROTOS.map(|name| format!("clipper/v1/{name}.proto")), ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("clipper.binpb"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".clipper.v1.Tensor.data")
        .compile_fds(files)?;
    Ok(())
}
