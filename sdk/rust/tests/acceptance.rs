// SPDX-License-Identifier: Apache-2.0
//! The list of sdk/acceptance against a real server, for both clients. CLIPPER_ACCEPTANCE_SERVER names the program;
//! without it there is nothing to run against, and the test fails when CI is set.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use base64::{prelude::BASE64_STANDARD, Engine};
use clipper::{
    blocking,
    half::{bf16, f16},
    v1, Code, Config, Error, Result,
};
use futures_util::future::join_all;
use prost_reflect::{prost::Message, DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{json, Map, Value};

fn program() -> Option<String> {
    let program = env::var("CLIPPER_ACCEPTANCE_SERVER").ok();
    assert!(program.is_some() || env::var_os("CI").is_none(), "CLIPPER_ACCEPTANCE_SERVER is not set");
    program
}

#[test]
fn asynchronous() {
    run(false);
}

#[test]
fn blocking() {
    run(true);
}

fn run(blocking: bool) {
    let Some(program) = program() else {
        eprintln!("skipped: CLIPPER_ACCEPTANCE_SERVER is not set");
        return;
    };
    let list = Command::new(&program).arg("--list").output().expect("the list is written");
    let list: Value = serde_json::from_slice(&list.stdout).expect("the list is JSON");
    let mut server = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut line).expect("the server is ready");
    let at: Value = serde_json::from_str(&line).expect("its line is JSON");

    let mut runner = Runner::new(&at, blocking);
    let cases = list["cases"].as_array().expect("there are cases");
    let mut failed = Vec::new();
    for case in cases {
        if let Err(problem) = runner.test(case) {
            failed.push(format!("{}: {problem}", case["name"]));
        }
    }
    if let Err(e) = runner.many_answers() {
        failed.push(format!("many answers: {e}"));
    }
    drop(runner);
    drop(server.stdin.take());
    let status = server.wait().expect("the server ends");
    println!("{} of {} cases passed", cases.len() - failed.len(), cases.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(status.success(), "the server: {status}");
}

/// Either client, so that each case is written once.
struct Caller {
    client: blocking::Client,
    blocking: bool,
}

/// Makes a call of the blocking client, or waits for that of the asynchronous one.
macro_rules! call {
    ($caller:expr, $name:ident($($argument:expr),*)) => {
        if $caller.blocking {
            $caller.client.$name($($argument),*)
        } else {
            $caller.client.block_on($caller.client.inner().$name($($argument),*))
        }
    };
}

struct Runner {
    callers: HashMap<&'static str, Caller>,
    saved: Map<String, Value>,
    pool: DescriptorPool,
}

impl Runner {
    fn new(at: &Value, blocking: bool) -> Self {
        let text = |name: &str| at[name].as_str().expect("the server says so").to_string();
        let secure = |key: Option<String>| Config {
            address: text("secure_grpc"),
            ca_file: Some(text("ca_file").into()),
            cert_file: Some(text("cert_file").into()),
            key_file: Some(text("key_file").into()),
            api_key: key,
            ..Config::default()
        };
        let servers = [
            ("clipper", Config { address: text("query_grpc"), admin_address: text("admin_grpc"), ..Config::default() }),
            ("canned", Config { address: text("canned_grpc"), ..Config::default() }),
            ("secure", secure(Some(text("api_key")))),
            ("keyless", secure(None)),
        ];
        let caller =
            |config| Caller { client: blocking::Client::new(config).expect("it is well configured"), blocking };
        Runner {
            callers: servers.into_iter().map(|(name, config)| (name, caller(config))).collect(),
            saved: Map::from_iter([("container".to_string(), at["container"].clone())]),
            pool: DescriptorPool::decode(clipper::FILE_DESCRIPTOR_SET).expect("they are descriptors"),
        }
    }

    /// What the list does not have: calls that answer with many messages.
    fn many_answers(&self) -> Result<()> {
        let client = &self.callers["clipper"].client;
        let learned = |application: &str| v1::ExportSelectionStateRequest {
            application: application.into(),
            ..Default::default()
        };
        client.block_on(async {
            let mut states = client.inner().export_selection_state(learned("label")).await?;
            assert!(states.next().await?.is_some_and(|s| s.state.is_some()));
            while states.next().await?.is_some() {}
            let refused = client.inner().export_selection_state(learned("nobody")).await;
            assert_eq!(refused.unwrap_err().reason, clipper::reason::APPLICATION_NOT_FOUND);
            let logs = v1::ReadLogsRequest { model: "label".into(), version: "1".into(), ..Default::default() };
            let mut lines = client.inner().read_logs(logs).await?;
            while lines.next().await?.is_some() {}
            Ok(())
        })
    }

    fn test(&mut self, case: &Value) -> Result<(), String> {
        let caller = &self.callers[case["server"].as_str().unwrap_or("clipper")];
        let request = self.fill(&case["request"]);
        let result = self.call(caller, case["call"].as_str().unwrap_or_default(), &request);
        if let Some(want) = case.get("error") {
            return match result {
                Ok(answer) => Err(format!("no error but {answer}")),
                Err(e) => mismatch("error", &error_object(&e), want).map_or(Ok(()), Err),
            };
        }
        let answer = result.map_err(|e| e.to_string())?;
        if let Some(problem) = mismatch("answer", &answer, &self.fill(&case["expect"])) {
            return Err(format!("{problem}\nin {answer}"));
        }
        for (name, path) in case["save"].as_object().into_iter().flatten() {
            let path = format!("/{}", path.as_str().unwrap_or_default().replace('.', "/"));
            self.saved.insert(name.clone(), answer.pointer(&path).cloned().unwrap_or_default());
        }
        Ok(())
    }

    /// Replaces each "$name" by what was saved.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(s) => s.strip_prefix('$').and_then(|name| self.saved.get(name)).unwrap_or(value).clone(),
            Value::Array(items) => items.iter().map(|v| self.fill(v)).collect(),
            Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), self.fill(v))).collect(),
            other => other.clone(),
        }
    }

    fn call(&self, c: &Caller, name: &str, r: &Value) -> Result<Value> {
        match name {
            "query" => Ok(answer_object(&call!(c, query(query_of(r)))?)),
            "query_batch" => {
                let batch = v1::QueryBatchRequest {
                    application: text(r, "application"),
                    queries: array(r, "queries").iter().map(batch_query_of).collect(),
                    ..Default::default()
                };
                let results = call!(c, query_batch(batch))?.results.into_iter().map(v1::QueryResult::into_result);
                Ok(results_object(results, |answer| answer_object(&answer)))
            }
            "query_stream" => c.client.block_on(async {
                let stream = c.client.inner().stream();
                let queries: Vec<_> = array(r, "queries").iter().map(query_of).collect();
                // All are asked before the first is answered.
                let results = join_all(queries.into_iter().map(|q| stream.query(q))).await;
                Ok(results_object(results.into_iter(), |answer| answer_object(&answer)))
            }),
            "feedback" => Ok(self.json(&call!(c, feedback(feedback_of(r)))?, "FeedbackResponse")),
            "feedback_batch" => {
                let batch = v1::FeedbackBatchRequest {
                    application: text(r, "application"),
                    items: array(r, "items").iter().map(feedback_of).collect(),
                };
                let results = call!(c, feedback_batch(batch))?.results.into_iter().map(v1::FeedbackResult::into_result);
                Ok(results_object(results, |answer| self.json(&answer, "FeedbackResponse")))
            }
            "wait_model_ready" => {
                let (model, version) = (&text(r, "model"), &text(r, "version"));
                let ready = call!(c, wait_model_ready(model, version))?;
                Ok(json!({"version": self.json(&ready, "ModelVersion")}))
            }
            "list_applications" => {
                let size = r["page_size"].as_u64().unwrap_or(0) as u32;
                let all = c.client.block_on(c.client.inner().all_applications(size))?;
                Ok(json!({"applications": all.iter().map(|a| self.json(a, "Application")).collect::<Vec<_>>()}))
            }
            "list_models" => {
                let size = r["page_size"].as_u64().unwrap_or(0) as u32;
                let all = c.client.block_on(c.client.inner().all_models(size))?;
                Ok(json!({"models": all.iter().map(|m| self.json(m, "Model")).collect::<Vec<_>>()}))
            }
            _ => self.administer(c, name, r),
        }
    }

    /// Calls whose requests and answers are the JSON form of the messages.
    fn administer(&self, c: &Caller, name: &str, r: &Value) -> Result<Value> {
        let mut r = r.clone();
        let members = r.as_object_mut().expect("a request is an object");
        if let Some(Value::Array(fields)) = members.get("update_mask") {
            let fields: Vec<_> = fields.iter().filter_map(Value::as_str).map(camel).collect();
            members.insert("update_mask".into(), fields.join(",").into());
        }
        macro_rules! calls {
            ($($call:ident: $request:ident -> $response:ident),* $(,)?) => {
                match name {
                    $(stringify!($call) => {
                        let request: v1::$request = self.message(&r, stringify!($request));
                        Ok(self.json(&call!(c, $call(request))?, stringify!($response)))
                    })*
                    _ => panic!("there is no call {name}"),
                }
            };
        }
        calls! {
            create_application: CreateApplicationRequest -> CreateApplicationResponse,
            get_application: GetApplicationRequest -> GetApplicationResponse,
            update_application: UpdateApplicationRequest -> UpdateApplicationResponse,
            delete_application: DeleteApplicationRequest -> DeleteApplicationResponse,
            get_selection_state: GetSelectionStateRequest -> GetSelectionStateResponse,
            reset_selection_state: ResetSelectionStateRequest -> ResetSelectionStateResponse,
            get_canary: GetCanaryRequest -> GetCanaryResponse,
            deploy_model: DeployModelRequest -> DeployModelResponse,
            get_model: GetModelRequest -> GetModelResponse,
            get_model_version: GetModelVersionRequest -> GetModelVersionResponse,
            update_model_version: UpdateModelVersionRequest -> UpdateModelVersionResponse,
            set_current_version: SetCurrentVersionRequest -> SetCurrentVersionResponse,
            delete_model_version: DeleteModelVersionRequest -> DeleteModelVersionResponse,
            delete_model: DeleteModelRequest -> DeleteModelResponse,
        }
    }

    fn json(&self, message: &impl Message, name: &str) -> Value {
        let descriptor = self.pool.get_message_by_name(&format!("clipper.v1.{name}")).expect("the message exists");
        let dynamic =
            DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("it is this message");
        let options = SerializeOptions::new().use_proto_field_name(true);
        dynamic.serialize_with_options(serde_json::value::Serializer, &options).expect("it can be JSON")
    }

    fn message<M: Message + Default>(&self, value: &Value, name: &str) -> M {
        let descriptor = self.pool.get_message_by_name(&format!("clipper.v1.{name}")).expect("the message exists");
        let dynamic = DynamicMessage::deserialize(descriptor, value).expect("it is this message");
        M::decode(dynamic.encode_to_vec().as_slice()).expect("it is this message")
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_string();
    for word in words {
        out.push_str(&word[..1].to_uppercase());
        out.push_str(&word[1..]);
    }
    out
}

fn text(r: &Value, name: &str) -> String {
    r[name].as_str().unwrap_or_default().into()
}

fn array<'a>(r: &'a Value, name: &str) -> &'a [Value] {
    r[name].as_array().map_or(&[], Vec::as_slice)
}

fn query_of(r: &Value) -> v1::QueryRequest {
    v1::QueryRequest {
        application: text(r, "application"),
        inputs: array(r, "inputs").iter().map(tensor_of).collect(),
        input_json: text(r, "input_json").into_bytes(),
        context: text(r, "context"),
        id: text(r, "id"),
        priority: r["priority"].as_u64().unwrap_or(0) as u32,
        timeout: r["timeout_ms"].as_u64().map(|ms| Duration::from_millis(ms).try_into().expect("it is short")),
    }
}

fn batch_query_of(r: &Value) -> v1::BatchQuery {
    let q = query_of(r);
    v1::BatchQuery { inputs: q.inputs, input_json: q.input_json, context: q.context, id: q.id, priority: q.priority }
}

fn feedback_of(r: &Value) -> v1::FeedbackRequest {
    let observation = match (&r["truth"], r["reward"].as_f64()) {
        (_, Some(reward)) => clipper::reward(reward),
        (Value::String(s), _) => clipper::truth(s.as_str()),
        (truth, _) => truth.as_f64().and_then(clipper::truth),
    };
    v1::FeedbackRequest {
        application: text(r, "application"),
        feedback_id: text(r, "feedback_id"),
        inputs: array(r, "inputs").iter().map(tensor_of).collect(),
        input_json: text(r, "input_json").into_bytes(),
        context: text(r, "context"),
        id: text(r, "id"),
        observation,
    }
}

/// A number, or the text that stands for one.
fn number<T: std::str::FromStr>(value: &Value) -> T {
    let text = value.as_str().map_or_else(|| value.to_string(), String::from);
    text.parse().unwrap_or_else(|_| panic!("{text} is no such number"))
}

fn tensor_of(t: &Value) -> v1::Tensor {
    let shape: Vec<i64> = array(t, "shape").iter().map(number).collect();
    let values = array(t, "values");
    macro_rules! tensor {
        ($of:expr) => {
            v1::Tensor::new(&values.iter().map($of).collect::<Vec<_>>(), &shape)
        };
    }
    let tensor = match t["type"].as_str().unwrap_or_default() {
        "bool" => tensor!(|v| v.as_bool().expect("it is a boolean")),
        "uint8" => tensor!(number::<u8>),
        "uint16" => tensor!(number::<u16>),
        "uint32" => tensor!(number::<u32>),
        "uint64" => tensor!(number::<u64>),
        "int8" => tensor!(number::<i8>),
        "int16" => tensor!(number::<i16>),
        "int32" => tensor!(number::<i32>),
        "int64" => tensor!(number::<i64>),
        "float16" => tensor!(|v| f16::from_f64(number(v))),
        "bfloat16" => tensor!(|v| bf16::from_f64(number(v))),
        "float32" => tensor!(number::<f32>),
        "float64" => tensor!(number::<f64>),
        "string" => tensor!(|v| v.as_str().expect("it is text").to_string()),
        "bytes" => tensor!(|v| BASE64_STANDARD.decode(v.as_str().expect("it is text")).expect("it is base64")),
        other => panic!("there is no type {other}"),
    };
    tensor.named(text(t, "name"))
}

fn tensor_object(t: &v1::Tensor) -> Value {
    macro_rules! values {
        ($type:ty, $object:expr) => {
            t.values::<$type>().expect("it is of this type").into_iter().map($object).collect()
        };
    }
    let values: Vec<Value> = match t.data_type() {
        v1::DataType::Bool => values!(bool, Value::from),
        v1::DataType::Uint8 => values!(u8, Value::from),
        v1::DataType::Uint16 => values!(u16, Value::from),
        v1::DataType::Uint32 => values!(u32, Value::from),
        v1::DataType::Uint64 => values!(u64, |x| if x > 1 << 53 { json!(x.to_string()) } else { json!(x) }),
        v1::DataType::Int8 => values!(i8, Value::from),
        v1::DataType::Int16 => values!(i16, Value::from),
        v1::DataType::Int32 => values!(i32, Value::from),
        v1::DataType::Int64 => {
            values!(i64, |x| if x.unsigned_abs() > 1 << 53 { json!(x.to_string()) } else { json!(x) })
        }
        v1::DataType::Float16 => values!(f16, |x| json!(x.to_f64())),
        v1::DataType::Bfloat16 => values!(bf16, |x| json!(x.to_f64())),
        v1::DataType::Float32 => values!(f32, |x| json!(f64::from(x))),
        v1::DataType::Float64 => values!(f64, Value::from),
        v1::DataType::String => values!(String, Value::from),
        v1::DataType::Bytes => values!(Vec<u8>, |x| BASE64_STANDARD.encode(x).into()),
        v1::DataType::Unspecified => panic!("a tensor has a type"),
    };
    let kind = t.data_type().as_str_name().trim_start_matches("DATA_TYPE_").to_lowercase();
    json!({"name": t.name, "type": kind, "shape": t.shape, "values": values})
}

fn answer_object(a: &v1::QueryResponse) -> Value {
    let predictions: Vec<Value> = a
        .predictions
        .iter()
        .map(|p| {
            json!({
                "model": p.model, "version": p.version, "message": p.message, "cached": p.cached,
                "status": p.status().as_str_name().trim_start_matches("PREDICTION_STATUS_"),
                "propensity": p.propensity, "shadow": p.shadow,
                "outputs": p.outputs.iter().map(tensor_object).collect::<Vec<_>>(),
            })
        })
        .collect();
    let default_reason = match a.default_reason() {
        v1::DefaultReason::Unspecified => "",
        reason => reason.as_str_name().trim_start_matches("DEFAULT_REASON_"),
    };
    json!({
        "outputs": a.outputs.iter().map(tensor_object).collect::<Vec<_>>(),
        "is_default": a.is_default, "default_reason": default_reason, "confidence": a.confidence,
        "predictions": predictions, "feedback_id": a.feedback_id, "id": a.id,
    })
}

fn results_object<T>(results: impl Iterator<Item = Result<T>>, object: impl Fn(T) -> Value) -> Value {
    let result = |r: Result<T>| r.map_or_else(|e| json!({"error": error_object(&e)}), &object);
    json!({"results": results.map(result).collect::<Vec<_>>()})
}

fn error_object(e: &Error) -> Value {
    let code = match e.code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unknown => "UNKNOWN",
        Code::Internal => "INTERNAL",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Cancelled => "CANCELLED",
        Code::DataLoss => "DATA_LOSS",
        Code::Ok => "OK",
    };
    json!({
        "code": code, "reason": e.reason, "field": e.field, "message": e.message,
        "retry_after_ms": e.retry_after.map(|d| d.as_secs_f64() * 1000.0),
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// How what is there does not match what is wanted.
fn mismatch(path: &str, have: &Value, want: &Value) -> Option<String> {
    match want {
        Value::Object(members) => {
            let members = members.iter().filter(|(k, _)| !matches!(k.as_str(), "http" | "rest_field"));
            members.into_iter().find_map(|(k, v)| mismatch(&format!("{path}.{k}"), &have[k], v))
        }
        Value::Array(items) if items.first().and_then(Value::as_str) == Some("$includes") => {
            let have = have.as_array().map_or(&[][..], Vec::as_slice);
            let missing = items[1..].iter().find(|w| have.iter().all(|h| mismatch(path, h, w).is_some()));
            missing.map(|w| format!("{path}: nothing is {w}"))
        }
        Value::Array(items) => {
            let have = have.as_array().map_or(&[][..], Vec::as_slice);
            if have.len() != items.len() {
                return Some(format!("{path}: {} elements, want {}", have.len(), items.len()));
            }
            have.iter().zip(items).enumerate().find_map(|(i, (h, w))| mismatch(&format!("{path}[{i}]"), h, w))
        }
        Value::String(s) if s == "$any" => is_empty(have).then(|| format!("{path}: is empty")),
        Value::Number(n) if have.is_number() && have.as_f64() == n.as_f64() => None,
        _ if have == want || is_empty(have) && is_empty(want) => None,
        _ => Some(format!("{path}: {have}, want {want}")),
    }
}
