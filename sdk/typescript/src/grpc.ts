// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { readFileSync } from "node:fs";
import {
  create, fromBinary, fromJson, toBinary,
  type DescMessage, type DescMethod, type DescService, type JsonValue, type MessageInitShape, type MessageShape,
} from "@bufbuild/protobuf";
import { durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Client as Channel, credentials, Metadata, status, type ChannelCredentials, type ServiceError } from "@grpc/grpc-js";
import { Caller, type Call, type CallOptions, type ClientOptions, type Limits } from "./call.js";
import {
  countsOnce, reads, shortName, streamWindow, withDeadline,
  type Answer, type BatchQuery, type Client, type Feedback, type FeedbackReceipt, type Query, type QueryOptions, type Result, type ServiceClient, type StreamResult,
} from "./client.js";
import { itemError, milliseconds } from "./errors.js";
import { ApplicationService } from "./gen/clipper/v1/application_service_pb.js";
import type { Error as ErrorMessage } from "./gen/clipper/v1/error_pb.js";
import { FeedbackRequestSchema, FeedbackService, type FeedbackRequest, type FeedbackResponse } from "./gen/clipper/v1/feedback_service_pb.js";
import { ModelService } from "./gen/clipper/v1/model_service_pb.js";
import {
  DefaultReason, PredictionStatus, QueryRequestSchema, QueryService, QueryStreamRequestSchema,
  type QueryRequest, type QueryResponse, type QueryStreamRequest, type QueryStreamResponse,
} from "./gen/clipper/v1/query_service_pb.js";
import { version } from "./gen/version.js";
import { statusError } from "./status.js";
import { outputValue, toJsonText, toTensors, type Input } from "./tensor.js";

export * from "./shared.js";

/** TLS with the server. Files are in PEM, and are read when the client is made. */
export interface TLSOptions {
  /** The certificates that are trusted; instead of those that Node trusts. */
  caFile?: string | undefined;
  /** The client's certificate and its key, where the server asks for one. */
  certFile?: string | undefined;
  keyFile?: string | undefined;
  /** The name that the server's certificate must have, when it is not that of the address. */
  serverName?: string | undefined;
}

/** Options of a client over gRPC. */
export interface GrpcOptions extends ClientOptions {
  /** The query listener: `host:port` or `unix:/path`. Default `127.0.0.1:1347`. */
  address?: string | undefined;
  /** The administration listener. Default `127.0.0.1:1348`. */
  adminAddress?: string | undefined;
  /** Encrypts the connections; true trusts what Node trusts. Default: not encrypted. */
  tls?: boolean | TLSOptions | undefined;
  /** What the user agent ends with: your application's name and version. */
  userAgent?: string | undefined;
}

/** A client over gRPC, for Node. */
export class GrpcClient implements Client {
  readonly applications: ServiceClient<typeof ApplicationService>;
  readonly models: ServiceClient<typeof ModelService>;
  readonly #caller: Caller;
  readonly #queries: Channel;
  readonly #admin: Channel;

  constructor(options: GrpcOptions = {}) {
    this.#caller = new Caller(options);
    const tls = options.tls === true ? {} : options.tls || undefined;
    for (const address of [options.address, options.adminAddress]) {
      if (options.apiKey !== undefined && !tls && address !== undefined && !/^(unix:|localhost:|127\.|\[::1\])/.test(address)) {
        throw new TypeError(`the key is not sent to ${address} without encryption: set tls`);
      }
    }
    const secure = tls ? encrypted(tls) : credentials.createInsecure();
    const channel = (address: string) => new Channel(address, secure, {
      "grpc.primary_user_agent": [`clipper-typescript/${version}`, options.userAgent].filter(Boolean).join(" "),
      // A connection whose other end is gone is noticed, also by a call that waits for long.
      "grpc.keepalive_time_ms": 20_000,
      "grpc.keepalive_timeout_ms": 10_000,
      // The answers to a batch of 10,000.
      "grpc.max_receive_message_length": 64 << 20,
      "grpc.max_reconnect_backoff_ms": 5_000,
      ...(tls?.serverName ? { "grpc.ssl_target_name_override": tls.serverName, "grpc.default_authority": tls.serverName } : {}),
    });
    this.#queries = channel(options.address ?? "127.0.0.1:1347");
    this.#admin = channel(options.adminAddress ?? "127.0.0.1:1348");
    this.applications = this.#service(ApplicationService);
    this.models = this.#service(ModelService);
  }

  async query(application: string, input: Input, options: QueryOptions & CallOptions = {}): Promise<Answer> {
    return answer(await this.#call(this.#queries, QueryService.method.query, queryRequest({ application, input, ...options }), withDeadline(options), true));
  }

  async queryBatch(application: string, queries: readonly BatchQuery[], options: { timeout?: number } & CallOptions = {}): Promise<Result<Answer>[]> {
    const request = {
      application,
      queries: queries.map((q) => ({ ...encode(q.input), context: q.context ?? "", id: q.id ?? "", priority: q.priority ?? 0 })),
      ...time(options.timeout),
    };
    const { results } = await this.#call(this.#queries, QueryService.method.queryBatch, request, withDeadline(options), true);
    return results.map((r) => result(r.result, answer));
  }

  async *stream(queries: Iterable<Query> | AsyncIterable<Query>, options: CallOptions = {}): AsyncIterable<StreamResult> {
    const method = QueryService.method.queryStream;
    yield* this.#caller.stream(describe(method, false), undefined, options, (call, limits) => this.#exchange(method, queries, call, limits));
  }

  async feedback(application: string, feedback: Feedback, options: CallOptions = {}): Promise<FeedbackReceipt> {
    return receipt(await this.#call(this.#queries, FeedbackService.method.feedback, feedbackRequest(application, feedback), options, countsOnce(feedback)));
  }

  async feedbackBatch(application: string, items: readonly Feedback[], options: CallOptions = {}): Promise<Result<FeedbackReceipt>[]> {
    const request = { application, items: items.map((f) => feedbackRequest("", f)) };
    const { results } = await this.#call(this.#queries, FeedbackService.method.feedbackBatch, request, options, items.every(countsOnce));
    return results.map((r) => result(r.result, receipt));
  }

  close(): void {
    this.#queries.close();
    this.#admin.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #service<S extends DescService>(service: S): ServiceClient<S> {
    const methods = service.methods.map((method) => [
      method.localName,
      method.methodKind === "unary"
        ? (request: Record<string, unknown>, options: CallOptions = {}) => this.#call(this.#admin, method, request, options, reads(method))
        : (request: Record<string, unknown>, options: CallOptions = {}) => {
          const message = create(method.input, request);
          return this.#caller.stream(describe(method, false), message, options, (call, limits) => this.#receive(method, message, call, limits));
        },
    ]);
    return Object.fromEntries(methods) as ServiceClient<S>;
  }

  async #call<I extends DescMessage, O extends DescMessage>(
    channel: Channel, method: DescMethod & { input: I; output: O }, request: MessageInitShape<I>, options: CallOptions, safe: boolean,
  ): Promise<MessageShape<O>> {
    const message = create(method.input, request);
    return this.#caller.unary(describe(method, safe), message, options, (call, { signal, deadline }) =>
      new Promise((resolve, reject) => {
        const running = channel.makeUnaryRequest(path(method), serialize(method.input), deserialize(method.output), message, metadata(call), { deadline }, (e, value) => {
          signal.removeEventListener("abort", cancel);
          e ? reject(toError(e)) : resolve(value!);
        });
        const cancel = () => running.cancel();
        signal.addEventListener("abort", cancel, { once: true });
      }));
  }

  async *#receive(method: DescMethod, request: MessageShape<DescMessage>, call: Call, { signal, deadline }: Limits): AsyncGenerator<MessageShape<DescMessage>> {
    const running = this.#admin.makeServerStreamRequest(path(method), serialize(method.input), deserialize(method.output), request, metadata(call), { deadline });
    const cancel = () => running.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      yield* running;
    } catch (e) {
      throw toError(e);
    } finally {
      signal.removeEventListener("abort", cancel);
      leave(running);
    }
  }

  async *#exchange(method: DescMethod, queries: Iterable<Query> | AsyncIterable<Query>, call: Call, { signal, deadline }: Limits): AsyncGenerator<StreamResult> {
    const running = this.#queries.makeBidiStreamRequest<QueryStreamRequest, QueryStreamResponse>(
      path(method), serialize(QueryStreamRequestSchema), deserialize(QueryService.method.queryStream.output), metadata(call), { deadline });
    const cancel = () => running.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    const ended = new AbortController();
    let underWay = 0;
    let free = () => {};
    let failure: { error: unknown } | undefined;
    // Writes while answers are read; what it waits for ends with the stream.
    const write = async () => {
      let index = 0;
      for await (const query of queries) {
        while (underWay >= streamWindow && !ended.signal.aborted) {
          await new Promise<void>((resolve) => (free = resolve));
        }
        if (ended.signal.aborted) {
          return;
        }
        underWay++;
        if (!running.write(create(QueryStreamRequestSchema, { sequence: BigInt(index++), query: queryRequest(query) }))) {
          await once(running, "drain", { signal: ended.signal });
        }
      }
      running.end();
    };
    write().catch((error: unknown) => {
      if (!ended.signal.aborted) {
        failure = { error };
        running.cancel();
      }
    });
    try {
      for await (const r of running as AsyncIterable<QueryStreamResponse>) {
        underWay--;
        free();
        yield { index: Number(r.sequence), ...result(r.result!.result, answer) };
      }
    } catch (e) {
      throw failure ? failure.error : toError(e);
    } finally {
      ended.abort();
      free();
      signal.removeEventListener("abort", cancel);
      leave(running);
    }
  }
}

/** Ends a stream that nobody reads any more; its error is of no use then. */
function leave(running: { cancel(): void; on(event: "error", f: () => void): unknown }): void {
  running.on("error", () => {});
  running.cancel();
}

function encrypted(tls: TLSOptions): ChannelCredentials {
  const read = (file: string | undefined) => (file === undefined ? null : readFileSync(file));
  return credentials.createSsl(read(tls.caFile), read(tls.keyFile), read(tls.certFile));
}

function describe(method: DescMethod, safe: boolean): { service: string; name: string; safe: boolean } {
  return { service: method.parent.typeName, name: method.name, safe };
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function serialize<D extends DescMessage>(schema: D): (message: MessageShape<D>) => Buffer {
  return (message) => {
    const b = toBinary(schema, message);
    return Buffer.from(b.buffer, b.byteOffset, b.byteLength);
  };
}

function deserialize<D extends DescMessage>(schema: D): (data: Buffer) => MessageShape<D> {
  return (data) => fromBinary(schema, data);
}

function metadata(call: Call): Metadata {
  const m = new Metadata();
  for (const [name, value] of Object.entries(call.headers)) {
    m.set(name, value);
  }
  return m;
}

function toError(e: unknown): unknown {
  const { code, details, metadata } = e as Partial<ServiceError>;
  if (typeof code !== "number" || code === status.OK) {
    return e;
  }
  const detail = metadata?.get("grpc-status-details-bin")[0];
  return statusError(code, details ?? "", Buffer.isBuffer(detail) ? detail : undefined, e);
}

function encode(input: Input): Pick<QueryRequest, "inputs" | "inputJson"> {
  const inputs = toTensors(input);
  return inputs ? { inputs, inputJson: new Uint8Array() } : { inputs: [], inputJson: new TextEncoder().encode(toJsonText(input)) };
}

function time(ms: number | undefined): { timeout?: ReturnType<typeof durationFromMs> } {
  return ms === undefined ? {} : { timeout: durationFromMs(ms) };
}

function queryRequest(q: Query): QueryRequest {
  return create(QueryRequestSchema, {
    application: q.application, ...encode(q.input), context: q.context ?? "", id: q.id ?? "", priority: q.priority ?? 0, ...time(q.timeout),
  });
}

function feedbackRequest(application: string, f: Feedback): FeedbackRequest {
  return create(FeedbackRequestSchema, {
    application,
    ...("feedbackId" in f ? { feedbackId: f.feedbackId } : { ...encode(f.input), context: f.context ?? "", id: f.id ?? "" }),
    observation: "reward" in f ? { case: "reward", value: f.reward } : { case: "truth", value: fromJson(ValueSchema, f.truth as JsonValue) },
  });
}

function answer(r: QueryResponse): Answer {
  const reason = shortName(DefaultReason[r.defaultReason]);
  return {
    output: outputValue(r.outputs)!,
    outputs: r.outputs,
    isDefault: r.isDefault,
    ...(reason === undefined ? {} : { defaultReason: reason }),
    confidence: r.confidence,
    predictions: r.predictions.map((p) => {
      const output = outputValue(p.outputs);
      return {
        model: p.model,
        version: p.version,
        status: PredictionStatus[p.status] ?? String(p.status),
        ...(output === undefined ? {} : { output }),
        outputs: p.outputs,
        message: p.message,
        cached: p.cached,
        propensity: p.propensity,
        shadow: p.shadow,
        ...(p.retryAfter ? { retryAfter: milliseconds(p.retryAfter) } : {}),
      };
    }),
    feedbackId: r.feedbackId,
    id: r.id,
  };
}

function receipt(r: FeedbackResponse): FeedbackReceipt {
  return { duplicate: r.duplicate, buffered: r.buffered, losses: r.losses.map(({ model, loss }) => ({ model, loss })) };
}

type ItemResult<T> = { case: "response"; value: T } | { case: "error"; value: ErrorMessage } | { case: undefined; value?: undefined };

function result<T, U>(r: ItemResult<T>, read: (response: T) => U): Result<U> {
  if (r.case === "response") {
    return { value: read(r.value) };
  }
  return { error: itemError(r.value!) };
}
