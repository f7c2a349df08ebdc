// SPDX-License-Identifier: Apache-2.0
import type { DescMethod, DescMethodServerStreaming, DescMethodUnary, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { CallOptions } from "./call.js";
import type { ClipperError } from "./errors.js";
import type { ApplicationService } from "./gen/clipper/v1/application_service_pb.js";
import type { ModelService } from "./gen/clipper/v1/model_service_pb.js";
import type { Tensor } from "./gen/clipper/v1/tensor_pb.js";
import type { Input, Value } from "./tensor.js";

/** What may go with a query. */
export interface QueryOptions {
  /** The user, session or device whose selection state is used. At most 256 bytes. */
  context?: string | undefined;
  /** Returned as it is and written to logs. At most 128 bytes. */
  id?: string | undefined;
  /** How much it matters when a model is overloaded: 1 most, 8 least. Default 4. */
  priority?: number | undefined;
  /**
   * The milliseconds within which the answer is wanted: then Clipper answers with the default output. The
   * application's latency objective holds as well.
   */
  timeout?: number | undefined;
}

/** A query of a batch; its timeout is the batch's. */
export interface BatchQuery extends Omit<QueryOptions, "timeout"> {
  input: Input;
}

/** A query of a stream. */
export interface Query extends QueryOptions {
  application: string;
  input: Input;
}

/** The answer to one query. */
export interface Answer {
  /** The combined answer, or the application's default output. */
  readonly output: Value;
  /** The same as tensors, which have a type and a shape; over gRPC only. */
  readonly outputs?: readonly Tensor[];
  /** True when it is the application's default output. */
  readonly isDefault: boolean;
  /** Why the default was given: `DEADLINE`, `LOW_CONFIDENCE`, `MODELS_FAILED`, `NO_REPLICA`, `OVERLOADED`, ... */
  readonly defaultReason?: string;
  /** How far it can be trusted, from 0 to 1. */
  readonly confidence: number;
  /** What each model that was asked said, or why it is missing. */
  readonly predictions: readonly Prediction[];
  /** For feedback. */
  readonly feedbackId: string;
  /** The query's. */
  readonly id: string;
}

/** One model's part in an answer. */
export interface Prediction {
  readonly model: string;
  /** Empty when none could be found. */
  readonly version: string;
  /** `OK`, or why there is no output: `DEADLINE`, `FAILED`, `NO_REPLICA`, `OVERLOADED`, ... */
  readonly status: string;
  readonly output?: Value;
  /** The same as tensors; over gRPC only. */
  readonly outputs?: readonly Tensor[];
  /** The cause in words when the status is not `OK`. */
  readonly message: string;
  /** True when it came from the cache. */
  readonly cached: boolean;
  /** The probability with which the policy chose the model, from 0 to 1. */
  readonly propensity: number;
  /** True when it has no part in the answer. */
  readonly shadow: boolean;
  /** The milliseconds after which a repetition may succeed, where that is known. */
  readonly retryAfter?: number;
}

/** The truth: a label, a number, the true class, or a list of true scores. */
export type Truth = number | string | readonly number[];

/** How a query turned out, for the answer with a feedbackId or for an input. */
export type Feedback =
  | { feedbackId: string; truth: Truth }
  /** How good the answer was, from 0 to 1. */
  | { feedbackId: string; reward: number }
  /** With an `id`, a repetition counts once. */
  | { input: Input; truth: Truth; context?: string | undefined; id?: string | undefined };

/** What was learned. */
export interface FeedbackReceipt {
  /** True when it had been counted before. */
  readonly duplicate: boolean;
  /** True when it is kept, as durably, until the store can be reached. */
  readonly buffered: boolean;
  /** How wrong each model was: 0 is right, 1 as wrong as can be. */
  readonly losses: readonly { readonly model: string; readonly loss: number }[];
}

/** An item's result, or the error of this item alone. */
export type Result<T> = { readonly value: T; readonly error?: undefined } | { readonly value?: undefined; readonly error: ClipperError };

/** The result of a query of a stream; `index` counts the queries from 0. */
export type StreamResult = Result<Answer> & { readonly index: number };

/** A service's methods. Requests are plain objects with the fields of the message. */
export type ServiceClient<S extends DescService> = {
  [M in keyof S["method"]]: S["method"][M] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : S["method"][M] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : never;
};

/**
 * A client of Clipper. It connects at the first call and may be used by any number of calls at once. Calls throw a
 * ClipperError.
 */
export interface Client {
  /** Asks one question. It is answered within the application's latency objective. */
  query(application: string, input: Input, options?: QueryOptions & CallOptions): Promise<Answer>;
  /** Asks 1 to 10,000 questions; each has a result, in the order of the queries. */
  queryBatch(application: string, queries: readonly BatchQuery[], options?: { timeout?: number } & CallOptions): Promise<Result<Answer>[]>;
  /**
   * Asks questions as they come and gives the results as they are ready, in that order. No more than 64 are under way,
   * so that queries are taken only as fast as they are answered. Leaving the loop ends the stream.
   */
  stream(queries: Iterable<Query> | AsyncIterable<Query>, options?: CallOptions): AsyncIterable<StreamResult>;
  /** Tells how a query turned out. It is durable when the call returns. */
  feedback(application: string, feedback: Feedback, options?: CallOptions): Promise<FeedbackReceipt>;
  /** Tells so of 1 to 10,000; each has a result, in the order of the items. */
  feedbackBatch(application: string, items: readonly Feedback[], options?: CallOptions): Promise<Result<FeedbackReceipt>[]>;
  /** Applications: create, change, read what was learned. */
  readonly applications: ServiceClient<typeof ApplicationService>;
  /** Models, versions and replicas: deploy, make current, read logs. */
  readonly models: ServiceClient<typeof ModelService>;
  /** Ends the connections; calls under way fail. */
  close(): void;
}

/** The most queries of a stream that are under way. */
export const streamWindow = 64;

/** A query's options with a deadline that leaves time for the default output, which comes when the timeout ends. */
export function withDeadline<T extends { timeout?: number | undefined } & CallOptions>(options: T): T {
  return options.timeout === undefined || options.deadline !== undefined ? options : { ...options, deadline: options.timeout + 1000 };
}

/** True when a method only reads. */
export function reads(method: DescMethod): boolean {
  return /^(Get|List|Explain)/.test(method.name);
}

/** True when feedback counts once however often it is sent. */
export function countsOnce(f: Feedback): boolean {
  return "feedbackId" in f ? f.feedbackId !== "" : !!f.id;
}

/** The name of an enum's value without what all of them begin with; undefined when it is not set. */
export function shortName(name: string | undefined): string | undefined {
  const short = name?.replace(/^(DEFAULT_REASON|PREDICTION_STATUS)_/, "");
  return short === "UNSPECIFIED" ? undefined : short;
}
