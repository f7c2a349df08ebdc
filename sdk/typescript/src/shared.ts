// SPDX-License-Identifier: Apache-2.0
// What both entry points give besides their client.
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { durationFromMs, ValueSchema, type Duration, type Value as ValueMessage } from "@bufbuild/protobuf/wkt";

export type { Call, CallOptions, ClientOptions, Interceptor } from "./call.js";
export type {
  Answer, BatchQuery, Client, Feedback, FeedbackReceipt, Prediction, Query, QueryOptions, Result, ServiceClient, StreamResult, Truth,
} from "./client.js";
export { ClipperError, type Code, type ErrorReason } from "./errors.js";
export { bytes, JsonText, tensor, toValue, typedArray, type Input, type TypedArray, type Value } from "./tensor.js";
export * from "./gen/clipper/v1/application_service_pb.js";
export * from "./gen/clipper/v1/model_service_pb.js";
export { DataType, type Signature, type Tensor, type TensorSpec } from "./gen/clipper/v1/tensor_pb.js";

/** A duration of so many milliseconds, for the messages of the administration. */
export function duration(ms: number): Duration {
  return durationFromMs(ms);
}

/** A value for the messages of the administration, such as an application's `defaultOutput`. */
export function value(v: JsonValue): ValueMessage {
  return fromJson(ValueSchema, v);
}
