// SPDX-License-Identifier: Apache-2.0
//! The client for programs without an asynchronous runtime.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::{v1, Config, Error, Result};

/// As [`crate::Client`], with calls that block. Any number of threads may use it. It has one thread of its own for
/// the connections; its calls panic within an asynchronous runtime, which they would halt.
#[derive(Debug)]
pub struct Client {
    pub(crate) client: crate::Client,
    runtime: Runtime,
}

impl Client {
    /// A client. It connects at the first call; an error means that the configuration cannot be used.
    pub fn new(config: Config) -> Result<Client> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clipper")
            .enable_all()
            .build()
            .map_err(|e| Error::invalid(format!("start a thread: {e}")))?;
        let client = runtime.block_on(async { crate::Client::new(config) })?;
        Ok(Client { client, runtime })
    }

    /// The asynchronous client behind, for what has no method here, and [`Client::block_on`] to wait for it.
    pub fn inner(&self) -> &crate::Client {
        &self.client
    }

    /// Waits for what the asynchronous client does.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Deploys a version of a model and waits until it can be queried.
    pub fn deploy(&self, request: v1::DeployModelRequest) -> Result<v1::ModelVersion> {
        self.block_on(self.client.deploy(request))
    }

    /// See [`crate::Client::wait_model_ready`].
    pub fn wait_model_ready(&self, model: &str, version: &str) -> Result<v1::ModelVersion> {
        self.block_on(self.client.wait_model_ready(model, version))
    }
}
