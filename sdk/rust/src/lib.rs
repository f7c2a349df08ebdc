// SPDX-License-Identifier: Apache-2.0
//! The client of Clipper, an online prediction server.
//!
//! ```no_run
//! use clipper::{v1, Client, Config};
//!
//! # async fn example() -> clipper::Result<()> {
//! let client = Client::new(Config::default())?;
//! let answer = client
//!     .query(v1::QueryRequest {
//!         application: "digits".into(),
//!         inputs: vec![vec![0.1, 0.2].into()],
//!         ..Default::default()
//!     })
//!     .await?;
//! let label: i64 = answer.outputs[0].value()?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] has every unary call of Clipper's API, and the messages are those of [`v1`]. What this crate adds is
//! the connection (TLS, key, deadline, retries, keep-alive), errors with a reason ([`Error`]), and tensors from and
//! to slices.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod blocking;
mod client;
mod error;
mod stream;
mod tensor;

pub use client::{Client, Config, MetadataHook, VERSION};
pub use error::{reason, Error, Result};
pub use half;
pub use prost_types;
pub use stream::{Messages, Stream};
pub use tensor::Element;
pub use tonic::Code;

/// The messages of the API, with their documentation.
pub mod v1 {
    #![allow(missing_docs, rustdoc::all, clippy::all)]
    tonic::include_proto!("clipper.v1");
}

/// The descriptors of the API's protos: a `google.protobuf.FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clipper.binpb"));

/// How an answer turned out, in the application's kind of output: a label (number or text), a number, or for scores
/// the class or a list. It is `FeedbackRequest::observation`.
pub fn truth(value: impl Into<prost_types::Value>) -> Option<v1::feedback_request::Observation> {
    Some(v1::feedback_request::Observation::Truth(value.into()))
}

/// How good an answer was, in [0, 1]. It is `FeedbackRequest::observation`.
pub fn reward(value: f64) -> Option<v1::feedback_request::Observation> {
    Some(v1::feedback_request::Observation::Reward(value))
}
