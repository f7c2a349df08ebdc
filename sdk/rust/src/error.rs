// SPDX-License-Identifier: Apache-2.0

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::v1;

/// Why a call, or one item of a batch or stream, failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Error {
    /// The class of the error.
    pub code: Code,
    /// The cause, for programs to test, such as `OVERLOADED`; see [`reason`]. Empty when the server is not
    /// Clipper. A newer server may give reasons that are not known here.
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// The field of the request at fault; empty when there is none.
    pub field: String,
    /// The time after which a repetition may succeed, where it is known.
    pub retry_after: Option<Duration>,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.reason.is_empty() { format!("{:?}", self.code) } else { self.reason.clone() };
        write!(f, "{why}: {}", self.message)?;
        if !self.field.is_empty() && !self.message.contains(&self.field) {
            write!(f, " ({})", self.field)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Error { code, reason: reason.into(), message: message.into(), field: String::new(), retry_after: None }
    }

    /// What cannot be right, found before anything was sent.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, reason::INVALID_FIELD, message)
    }

    pub(crate) fn deadline() -> Self {
        Error::new(Code::DeadlineExceeded, reason::DEADLINE, "the client's deadline has passed")
    }
}

impl From<Status> for Error {
    /// A call that was not answered has no details: then the code says the reason.
    fn from(status: Status) -> Self {
        let reason = match status.code() {
            Code::DeadlineExceeded => reason::DEADLINE,
            Code::Unavailable => reason::UNAVAILABLE,
            _ => "",
        };
        let mut error = Error::new(status.code(), reason, status.message());
        if let Some(info) = status.get_details_error_info().filter(|info| info.domain == "clipper.dev") {
            error.field = info.metadata.get("field").cloned().unwrap_or_default();
            error.reason = info.reason;
        }
        error.retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        error
    }
}

impl From<v1::Error> for Error {
    fn from(e: v1::Error) -> Self {
        let reason = match v1::ErrorReason::try_from(e.reason) {
            Ok(v1::ErrorReason::Unspecified) => String::new(),
            Ok(known) => known.as_str_name().trim_start_matches("ERROR_REASON_").into(),
            Err(_) => e.reason.to_string(),
        };
        Error {
            code: Code::from_i32(e.code as i32),
            reason,
            message: e.message,
            field: e.field,
            retry_after: e.retry_after.and_then(|d| Duration::try_from(d).ok()),
        }
    }
}

impl v1::QueryResult {
    /// The answer, or the error of this query alone.
    pub fn into_result(self) -> Result<v1::QueryResponse> {
        match self.result {
            Some(v1::query_result::Result::Response(answer)) => Ok(answer),
            Some(v1::query_result::Result::Error(e)) => Err(e.into()),
            None => Err(Error::new(Code::Internal, reason::INTERNAL, "the server has sent a result without content")),
        }
    }
}

impl v1::FeedbackResult {
    /// The acknowledgement, or the error of this item alone.
    pub fn into_result(self) -> Result<v1::FeedbackResponse> {
        match self.result {
            Some(v1::feedback_result::Result::Response(answer)) => Ok(answer),
            Some(v1::feedback_result::Result::Error(e)) => Err(e.into()),
            None => Err(Error::new(Code::Internal, reason::INTERNAL, "the server has sent a result without content")),
        }
    }
}

/// The reasons of errors. What to do about each is said in docs/errors.md.
pub mod reason {
    macro_rules! reasons {
        ($($name:ident),* $(,)?) => { $(#[allow(missing_docs)] pub const $name: &str = stringify!($name);)* };
    }
    reasons! {
        MALFORMED_JSON, INVALID_FIELD, MISSING_FIELD, INPUT_TYPE, INPUT_SHAPE, INPUT_VALUE, TOO_LARGE,
        APPLICATION_NOT_FOUND, APPLICATION_EXISTS, MODEL_NOT_FOUND, VERSION_NOT_FOUND, VERSION_EXISTS, IN_USE,
        SIGNATURE_MISMATCH, POLICY_INVALID, CONFLICT, FEEDBACK_ID_INVALID, FEEDBACK_ID_EXPIRED,
        FEEDBACK_ID_APPLICATION, TRUTH_INVALID, DEADLINE, OVERLOADED, UNAVAILABLE, STORE_UNAVAILABLE, MODEL_FAILED,
        MODEL_PROTOCOL, INTERNAL, UNKNOWN_METHOD, CONTEXT_NOT_FOUND, LAUNCH_FAILED, POLICY_FAILED, NO_CANARY,
        UNAUTHENTICATED, PERMISSION_DENIED, RATE_LIMITED, KEY_NOT_FOUND,
    }
}
