// SPDX-License-Identifier: Apache-2.0

use std::{
    fmt, fs,
    future::Future,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::{
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{interceptor::InterceptedService, Interceptor},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
    Code, Request, Response, Status,
};
use tracing::Instrument;

use crate::{error::reason, v1, Error, Messages, Result, Stream};

/// The version of this crate, as the user agent has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

// The most bytes of one message.
const MAX_MESSAGE: usize = 64 << 20;
// How much longer a query may take than its timeout, so that the default output, which the server gives at that
// time, arrives.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
// The silence after which a connection with calls in flight is probed, and the one after which it is given up.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
// The wait before the first repetition; it doubles each time, up to the second.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
// A server cancels a call at its deadline, which may be seen here this much before it.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);
// How often a version is looked at until it is ready.
const READY_POLL: Duration = Duration::from_millis(100);

/// Adds to the metadata of each attempt, such as the context of a trace.
pub type MetadataHook = Arc<dyn Fn(&mut MetadataMap) + Send + Sync>;

/// How a client reaches Clipper. The default is a Clipper on this machine.
#[derive(Clone)]
pub struct Config {
    /// Where queries and feedback go: `host:port` or `unix:/path`. Default `127.0.0.1:1347`.
    pub address: String,
    /// Where administration goes. Default `127.0.0.1:1348`.
    pub admin_address: String,
    /// Turns TLS on, with the system's authorities unless `ca_file` names others. The files below do so too.
    pub tls: bool,
    /// Certificates (PEM) of the authorities that may have signed the server's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate (PEM), for mutual TLS; goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's own key (PEM).
    pub key_file: Option<PathBuf>,
    /// An API key or a JWT, sent with every call. Without TLS it is sent on this machine only.
    pub api_key: Option<String>,
    /// Bounds a call; a query with a timeout of its own is given one second more than that instead. Default 30 s.
    /// Streams are not bounded.
    pub timeout: Duration,
    /// How often a call that is safe to repeat is made at most, when Clipper cannot be reached (UNAVAILABLE):
    /// queries, reads, and feedback with a `feedback_id` or an `id`. Default 4; 1 repeats nothing.
    pub attempts: u32,
    /// Called before each attempt.
    pub metadata: Option<MetadataHook>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            address: "127.0.0.1:1347".into(),
            admin_address: "127.0.0.1:1348".into(),
            tls: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            api_key: None,
            timeout: Duration::from_secs(30),
            attempts: 4,
            metadata: None,
        }
    }
}

impl fmt::Debug for Config {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .field("admin_address", &self.admin_address)
            .field("tls", &self.secure())
            .field("api_key", &self.api_key.as_ref().map(|_| "..."))
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl Config {
    fn secure(&self) -> bool {
        self.tls || self.ca_file.is_some() || self.cert_file.is_some() || self.key_file.is_some()
    }

    fn connect(&self, address: &str) -> Result<Channel> {
        if self.api_key.is_some() && !self.secure() && !is_local(address) {
            return Err(Error::invalid(format!(
                "the API key would be sent to {address} without TLS, for all to read: set ca_file or tls"
            )));
        }
        let uri = match (address.starts_with("unix:"), self.secure()) {
            (true, _) => address.to_string(),
            (false, true) => format!("https://{address}"),
            (false, false) => format!("http://{address}"),
        };
        let unusable = |e: tonic::transport::Error| Error::invalid(format!("connect to {address}: {}", chain(&e)));
        let mut endpoint = Endpoint::from_shared(uri)
            .and_then(|e| e.user_agent(format!("clipper-rust/{VERSION}")))
            .map_err(unusable)?
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .connect_timeout(CONNECT_TIMEOUT);
        if self.secure() {
            let mut tls = match &self.ca_file {
                Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca_file", path)?)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            match (&self.cert_file, &self.key_file) {
                (Some(cert), Some(key)) => {
                    tls = tls.identity(Identity::from_pem(read("cert_file", cert)?, read("key_file", key)?));
                }
                (None, None) => {}
                _ => return Err(Error::invalid("cert_file and key_file belong together")),
            }
            endpoint = endpoint.tls_config(tls).map_err(unusable)?;
        }
        Ok(endpoint.connect_lazy())
    }
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::invalid(format!("read {name} {}: {e}", path.display())))
}

// Errors of the transport keep the cause to themselves.
fn chain(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(source) => format!("{e}: {}", chain(source)),
        None => e.to_string(),
    }
}

// Whether an address is of this machine, so that nothing leaves it.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    address.starts_with("unix:") || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// What every call carries.
#[derive(Clone)]
pub(crate) struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
    metadata: Option<MetadataHook>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        if let Some(hook) = &self.metadata {
            hook(request.metadata_mut());
        }
        Ok(request)
    }
}

type Wire = InterceptedService<Channel, Credentials>;
pub(crate) type QueryStub = v1::query_service_client::QueryServiceClient<Wire>;

/// A connection to Clipper. Cheap to clone; make one and keep it. Calls must be made within a tokio runtime.
#[derive(Clone)]
pub struct Client {
    queries: QueryStub,
    feedback: v1::feedback_service_client::FeedbackServiceClient<Wire>,
    applications: v1::application_service_client::ApplicationServiceClient<Wire>,
    models: v1::model_service_client::ModelServiceClient<Wire>,
    timeout: Duration,
    attempts: u32,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client. It connects at the first call; an error means that the configuration cannot be used. Must be
    /// called within a tokio runtime.
    pub fn new(config: Config) -> Result<Client> {
        if config.timeout.is_zero() || config.attempts == 0 {
            return Err(Error::invalid("timeout must be above 0, and attempts at least 1"));
        }
        let authorization = match &config.api_key {
            Some(key) => {
                let mut value = MetadataValue::try_from(format!("Bearer {key}"))
                    .map_err(|_| Error::invalid("the API key has characters that a header cannot have"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let credentials = Credentials { authorization, metadata: config.metadata.clone() };
        let query = InterceptedService::new(config.connect(&config.address)?, credentials.clone());
        let admin = InterceptedService::new(config.connect(&config.admin_address)?, credentials);
        macro_rules! stub {
            ($module:ident :: $client:ident, $channel:expr) => {
                v1::$module::$client::new($channel)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE)
            };
        }
        Ok(Client {
            queries: stub!(query_service_client::QueryServiceClient, query.clone()),
            feedback: stub!(feedback_service_client::FeedbackServiceClient, query),
            applications: stub!(application_service_client::ApplicationServiceClient, admin.clone()),
            models: stub!(model_service_client::ModelServiceClient, admin),
            timeout: config.timeout,
            attempts: config.attempts,
        })
    }

    /// Opens a stream of queries.
    pub fn stream(&self) -> Stream {
        Stream::open(self.queries.clone())
    }

    /// The log of a model's containers, as it was or as it comes. Not bounded in time.
    pub async fn read_logs(&self, request: v1::ReadLogsRequest) -> Result<Messages<v1::ReadLogsResponse>> {
        Ok(Messages(self.models.clone().read_logs(request).await?.into_inner()))
    }

    /// What an application has learned, context by context. Not bounded in time.
    pub async fn export_selection_state(
        &self,
        request: v1::ExportSelectionStateRequest,
    ) -> Result<Messages<v1::ExportSelectionStateResponse>> {
        Ok(Messages(self.applications.clone().export_selection_state(request).await?.into_inner()))
    }

    /// All applications, sorted by name, read page by page.
    pub async fn all_applications(&self, page_size: u32) -> Result<Vec<v1::Application>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListApplicationsRequest { page_size, page_token, ..Default::default() };
            let page = self.list_applications(request).await?;
            all.extend(page.applications);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All models, sorted by name, read page by page.
    pub async fn all_models(&self, page_size: u32) -> Result<Vec<v1::Model>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = self.list_models(v1::ListModelsRequest { page_size, page_token, ..Default::default() }).await?;
            all.extend(page.models);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Deploys a version of a model and waits until it can be queried.
    pub async fn deploy(&self, request: v1::DeployModelRequest) -> Result<v1::ModelVersion> {
        let version = self.deploy_model(request).await?.version.unwrap_or_default();
        self.wait_model_ready(&version.model, &version.version).await
    }

    /// Waits until every replica that a version wants can be queried. A version that cannot serve is an error that
    /// says why. It is not bounded in time: `tokio::time::timeout` is.
    pub async fn wait_model_ready(&self, model: &str, version: &str) -> Result<v1::ModelVersion> {
        loop {
            let request = v1::GetModelVersionRequest { model: model.into(), version: version.into() };
            let have = self.get_model_version(request).await?.version.unwrap_or_default();
            match have.state() {
                v1::ModelState::Ready | v1::ModelState::Stopped => return Ok(have),
                v1::ModelState::Failed => {
                    let why = format!("{model} {version} cannot serve: {}", have.state_message);
                    return Err(Error::new(Code::FailedPrecondition, reason::LAUNCH_FAILED, why));
                }
                _ => tokio::time::sleep(READY_POLL).await,
            }
        }
    }

    // Makes a call in bounded time, and again while that is safe and may help.
    async fn call<Req, Resp, Made>(
        &self,
        method: &'static str,
        limit: Duration,
        safe: bool,
        request: Req,
        make: impl Fn(Request<Req>) -> Made,
    ) -> Result<Resp>
    where
        Req: Clone,
        Made: Future<Output = Result<Response<Resp>, Status>>,
    {
        let span = tracing::debug_span!("clipper", method);
        let calls = async {
            let end = Instant::now() + limit;
            for attempt in 1.. {
                let left = end.saturating_duration_since(Instant::now());
                let mut message = Request::new(request.clone());
                message.set_timeout(left);
                let error = match tokio::time::timeout(left, make(message)).await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) => match Error::from(status) {
                        e if was_reset(&e) && Instant::now() + DEADLINE_SLACK >= end => Error::deadline(),
                        e => e,
                    },
                    Err(_) => Error::deadline(),
                };
                let pause = delay(attempt).max(error.retry_after.unwrap_or_default());
                let repeat = safe && error.code == Code::Unavailable && attempt < self.attempts;
                if !repeat || Instant::now() + pause >= end {
                    tracing::debug!(attempt, code = ?error.code, reason = error.reason, error = error.message, "call failed");
                    return Err(error);
                }
                tracing::warn!(attempt, error = error.message, "call is repeated");
                tokio::time::sleep(pause).await;
            }
            unreachable!("attempts are counted to the end")
        };
        calls.instrument(span).await
    }
}

// Whether nobody has answered: the stream was reset, or given up by the transport.
fn was_reset(e: &Error) -> bool {
    e.reason.is_empty() && matches!(e.code, Code::Cancelled | Code::Unknown)
}

// How long to wait after an attempt: between half and all of a time that doubles, so that clients do not come
// back together.
fn delay(attempt: u32) -> Duration {
    let all = (DELAYS.0 * (1 << (attempt - 1).min(10))).min(DELAYS.1);
    // A hasher with keys of its own is drawn at random.
    let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    all.mul_f64(0.5 + 0.5 * random)
}

fn counts_once(feedback: &v1::FeedbackRequest) -> bool {
    !feedback.feedback_id.is_empty() || !feedback.id.is_empty()
}

trait Call {
    fn is_safe(&self) -> bool;
    // The time within which a query wants its answer.
    fn own_timeout(&self) -> Option<Duration> {
        None
    }
}

fn positive(timeout: &Option<prost_types::Duration>) -> Option<Duration> {
    timeout.and_then(|d| Duration::try_from(d).ok()).filter(|d| !d.is_zero())
}

impl Call for v1::QueryRequest {
    fn is_safe(&self) -> bool {
        true
    }
    fn own_timeout(&self) -> Option<Duration> {
        positive(&self.timeout)
    }
}

impl Call for v1::QueryBatchRequest {
    fn is_safe(&self) -> bool {
        true
    }
    fn own_timeout(&self) -> Option<Duration> {
        positive(&self.timeout)
    }
}

impl Call for v1::FeedbackRequest {
    fn is_safe(&self) -> bool {
        counts_once(self)
    }
}

impl Call for v1::FeedbackBatchRequest {
    fn is_safe(&self) -> bool {
        self.items.iter().all(counts_once)
    }
}

macro_rules! safe {
    ($($request:ident: $safe:literal),* $(,)?) => { $(
        impl Call for v1::$request {
            fn is_safe(&self) -> bool {
                $safe
            }
        }
    )* };
}

safe! {
    CreateApplicationRequest: false, GetApplicationRequest: true, ListApplicationsRequest: true,
    UpdateApplicationRequest: false, DeleteApplicationRequest: false, GetSelectionStateRequest: true,
    ExplainSelectionRequest: true, ListContextsRequest: true, ResetSelectionStateRequest: false,
    GetModelCorrelationsRequest: true, GetCanaryRequest: true,
    DeployModelRequest: false, GetModelRequest: true, ListModelsRequest: true, GetModelVersionRequest: true,
    UpdateModelVersionRequest: false, SetCurrentVersionRequest: false, DeleteModelVersionRequest: false,
    DeleteModelRequest: false, GetBatchingRequest: true, GetModelRepositoryRequest: true,
}

// Each call, for both clients.
macro_rules! calls {
    ($($(#[$doc:meta])* $stub:ident.$name:ident($request:ident) -> $response:ident;)*) => {
        impl Client { $(
            $(#[$doc])*
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$response> {
                let limit = request.own_timeout().map_or(self.timeout, |own| own + ANSWER_GRACE);
                let safe = request.is_safe();
                self.call(stringify!($name), limit, safe, request, |request| {
                    let mut stub = self.$stub.clone();
                    async move { stub.$name(request).await }
                })
                .await
            }
        )* }

        impl crate::blocking::Client { $(
            $(#[$doc])*
            pub fn $name(&self, request: v1::$request) -> Result<v1::$response> {
                self.block_on(self.client.$name(request))
            }
        )* }
    };
}

calls! {
    /// Answers one query within the application's latency objective: with a prediction, or with the default output.
    queries.query(QueryRequest) -> QueryResponse;
    /// Answers many queries to one application; each has its own answer or error: `QueryResult::into_result`.
    queries.query_batch(QueryBatchRequest) -> QueryBatchResponse;
    /// Tells the truth, or a reward, for an earlier query.
    feedback.feedback(FeedbackRequest) -> FeedbackResponse;
    /// The same for many queries; each has its own result: `FeedbackResult::into_result`.
    feedback.feedback_batch(FeedbackBatchRequest) -> FeedbackBatchResponse;

    /// Creates an application.
    applications.create_application(CreateApplicationRequest) -> CreateApplicationResponse;
    /// Reads an application.
    applications.get_application(GetApplicationRequest) -> GetApplicationResponse;
    /// Reads one page of applications.
    applications.list_applications(ListApplicationsRequest) -> ListApplicationsResponse;
    /// Changes the fields of an application that the mask names.
    applications.update_application(UpdateApplicationRequest) -> UpdateApplicationResponse;
    /// Deletes an application and what it has learned.
    applications.delete_application(DeleteApplicationRequest) -> DeleteApplicationResponse;
    /// Reads what an application has learned, for all or for one context.
    applications.get_selection_state(GetSelectionStateRequest) -> GetSelectionStateResponse;
    /// Says which models would be asked, and why.
    applications.explain_selection(ExplainSelectionRequest) -> ExplainSelectionResponse;
    /// Reads one page of contexts that have a state of their own.
    applications.list_contexts(ListContextsRequest) -> ListContextsResponse;
    /// Forgets what an application has learned, for all or for one context.
    applications.reset_selection_state(ResetSelectionStateRequest) -> ResetSelectionStateResponse;
    /// Reads how often models agree and fail together.
    applications.get_model_correlations(GetModelCorrelationsRequest) -> GetModelCorrelationsResponse;
    /// Reads how far an application's canary has come.
    applications.get_canary(GetCanaryRequest) -> GetCanaryResponse;

    /// Deploys a version of a model and returns at once; `deploy` waits until it is ready.
    models.deploy_model(DeployModelRequest) -> DeployModelResponse;
    /// Reads a model and its versions.
    models.get_model(GetModelRequest) -> GetModelResponse;
    /// Reads one page of models.
    models.list_models(ListModelsRequest) -> ListModelsResponse;
    /// Reads a version and its replicas.
    models.get_model_version(GetModelVersionRequest) -> GetModelVersionResponse;
    /// Changes what may change of a version, such as the number of replicas.
    models.update_model_version(UpdateModelVersionRequest) -> UpdateModelVersionResponse;
    /// Makes a version the one that applications ask.
    models.set_current_version(SetCurrentVersionRequest) -> SetCurrentVersionResponse;
    /// Undeploys a version.
    models.delete_model_version(DeleteModelVersionRequest) -> DeleteModelVersionResponse;
    /// Undeploys a model with all its versions.
    models.delete_model(DeleteModelRequest) -> DeleteModelResponse;
    /// Reads how a version's batches are made.
    models.get_batching(GetBatchingRequest) -> GetBatchingResponse;
    /// Reads the state of the repository that models come from.
    models.get_model_repository(GetModelRepositoryRequest) -> GetModelRepositoryResponse;
}
