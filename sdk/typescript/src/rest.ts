// SPDX-License-Identifier: Apache-2.0
import { create, fromJson, type DescMessage, type DescMethod, type DescService, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { Caller, type Call, type CallOptions, type ClientOptions, type Limits } from "./call.js";
import {
  countsOnce, reads, shortName, streamWindow, withDeadline,
  type Answer, type BatchQuery, type Client, type Feedback, type FeedbackReceipt, type Query, type QueryOptions, type Result, type ServiceClient, type StreamResult,
} from "./client.js";
import { ClipperError, type Code } from "./errors.js";
import { ApplicationService } from "./gen/clipper/v1/application_service_pb.js";
import { ModelService } from "./gen/clipper/v1/model_service_pb.js";
import { version } from "./gen/version.js";
import { toHttp } from "./routes.js";
import { fromJsonValue, toJsonText, type Input, type Value } from "./tensor.js";

export * from "./shared.js";

/** Options of a client over REST. */
export interface RestOptions extends ClientOptions {
  /** The query listener. Default `http://127.0.0.1:1337`. */
  url?: string | undefined;
  /** The administration listener. Default `http://127.0.0.1:1338`. */
  adminUrl?: string | undefined;
  /** Instead of the engine's own, for example one that trusts a certificate of yours. */
  fetch?: typeof fetch | undefined;
  /** What the user agent ends with, outside browsers: your application's name and version. */
  userAgent?: string | undefined;
}

/** A client over REST, for browsers and everything else that has fetch. */
export class RestClient implements Client {
  readonly applications: ServiceClient<typeof ApplicationService>;
  readonly models: ServiceClient<typeof ModelService>;
  readonly #caller: Caller;
  readonly #fetch: typeof fetch;
  readonly #url: string;
  readonly #adminUrl: string;
  readonly #headers: Record<string, string>;

  constructor(options: RestOptions = {}) {
    this.#caller = new Caller(options);
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.#url = (options.url ?? "http://127.0.0.1:1337").replace(/\/+$/, "");
    this.#adminUrl = (options.adminUrl ?? "http://127.0.0.1:1338").replace(/\/+$/, "");
    const agent = [`clipper-typescript/${version}`, options.userAgent].filter(Boolean).join(" ");
    // A browser keeps its own.
    this.#headers = "document" in globalThis || "importScripts" in globalThis ? {} : { "user-agent": agent };
    this.applications = this.#service(ApplicationService);
    this.models = this.#service(ModelService);
  }

  async query(application: string, input: Input, options: QueryOptions & CallOptions = {}): Promise<Answer> {
    return answer(await this.#post(application, "query", "Query", queryMembers({ input, ...options }), withDeadline(options), true) as AnswerJson);
  }

  async queryBatch(application: string, queries: readonly BatchQuery[], options: { timeout?: number } & CallOptions = {}): Promise<Result<Answer>[]> {
    const body = `{"queries":[${queries.map((q) => queryMembers(q)).join(",")}]${timeMember(options.timeout)}}`;
    const { results } = await this.#post(application, "query-batch", "QueryBatch", body, withDeadline(options), true) as ResultsJson<AnswerJson>;
    return results.map((r) => result(r, answer));
  }

  async *stream(queries: Iterable<Query> | AsyncIterable<Query>, options: CallOptions = {}): AsyncIterable<StreamResult> {
    const method = { service: "clipper.v1.QueryService", name: "QueryStream", safe: false };
    // REST has no stream: each query is a call.
    yield* this.#caller.stream(method, undefined, options, (_, { signal }) => this.#exchange(queries, { ...options, deadline: undefined, signal }));
  }

  async feedback(application: string, feedback: Feedback, options: CallOptions = {}): Promise<FeedbackReceipt> {
    return receipt(await this.#post(application, "feedback", "Feedback", feedbackMembers(feedback), options, countsOnce(feedback)) as FeedbackReceipt);
  }

  async feedbackBatch(application: string, items: readonly Feedback[], options: CallOptions = {}): Promise<Result<FeedbackReceipt>[]> {
    const body = `{"items":[${items.map(feedbackMembers).join(",")}]}`;
    const { results } = await this.#post(application, "feedback-batch", "FeedbackBatch", body, options, items.every(countsOnce)) as ResultsJson<FeedbackReceipt>;
    return results.map((r) => result(r, receipt));
  }

  close(): void {
    // The engine owns the connections.
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async *#exchange(queries: Iterable<Query> | AsyncIterable<Query>, options: CallOptions): AsyncGenerator<StreamResult> {
    const source = (async function* () { yield* queries; })();
    const underWay = new Map<number, Promise<StreamResult>>();
    let next: Promise<IteratorResult<Query>> | undefined = source.next();
    let index = 0;
    try {
      while (next || underWay.size > 0) {
        const ready: IteratorResult<Query> | StreamResult = await Promise.race([...underWay.values(), ...(next && underWay.size < streamWindow ? [next] : [])]);
        if ("index" in ready) {
          underWay.delete(ready.index);
          yield ready;
        } else if (ready.done) {
          next = undefined;
        } else {
          const i = index++;
          underWay.set(i, this.query(ready.value.application, ready.value.input, { ...ready.value, ...options }).then(
            (value) => ({ index: i, value }),
            (error: unknown) => {
              if (error instanceof ClipperError && !options.signal?.aborted) {
                return { index: i, error };
              }
              throw error;
            },
          ));
          next = source.next();
        }
      }
    } finally {
      for (const p of [next, ...underWay.values()]) {
        p?.catch(() => {}); // Nobody waits for it any more.
      }
      void source.return(undefined);
    }
  }

  #service<S extends DescService>(service: S): ServiceClient<S> {
    const methods = service.methods.map((method) => [
      method.localName,
      method.methodKind === "unary"
        ? (request: Record<string, unknown>, options: CallOptions = {}) => {
          const message = create(method.input, request);
          return this.#caller.unary(describe(method), message, options, async (call, limits) =>
            fromJson(method.output, await json(await this.#send(method, message, call, limits)) as JsonValue, { ignoreUnknownFields: true }));
        }
        : (request: Record<string, unknown>, options: CallOptions = {}) => {
          const message = create(method.input, request);
          return this.#caller.stream(describe(method), message, options, (call, limits) => this.#receive(method, message, call, limits));
        },
    ]);
    return Object.fromEntries(methods) as ServiceClient<S>;
  }

  #send(method: DescMethod, message: MessageShape<DescMessage>, call: Call, limits: Limits): Promise<Response> {
    const { verb, path, body } = toHttp(method, message);
    return this.#request(this.#adminUrl + path, verb, body, call, limits);
  }

  async *#receive(method: DescMethod, message: MessageShape<DescMessage>, call: Call, limits: Limits): AsyncGenerator<MessageShape<DescMessage>> {
    const response = await this.#send(method, message, call, limits);
    for await (const line of lines(response)) {
      const item = JSON.parse(line) as { result?: JsonValue; error?: ProblemJson };
      if (item.error) {
        throw problem(item.error);
      }
      yield fromJson(method.output, item.result ?? {}, { ignoreUnknownFields: true });
    }
  }

  #post(application: string, path: string, name: string, body: string, options: CallOptions, safe: boolean): Promise<unknown> {
    return this.#caller.unary({ service: `clipper.v1.${name.startsWith("Query") ? "Query" : "Feedback"}Service`, name, safe }, body, options, async (call, limits) =>
      json(await this.#request(`${this.#url}/v1/applications/${encodeURIComponent(application)}/${path}`, "POST", body, call, limits)));
  }

  async #request(url: string, method: string, body: string | undefined, call: Call, { signal }: Limits): Promise<Response> {
    let response: Response;
    try {
      response = await this.#fetch(url, {
        method,
        headers: { ...this.#headers, ...(body === undefined ? {} : { "content-type": "application/json" }), ...call.headers },
        ...(body === undefined ? {} : { body }),
        signal,
      });
    } catch (e) {
      throw unreachable(url, e);
    }
    if (!response.ok) {
      throw await failure(response);
    }
    return response;
  }
}

function describe(method: DescMethod): { service: string; name: string; safe: boolean } {
  return { service: method.parent.typeName, name: method.name, safe: reads(method) };
}

function unreachable(url: string, e: unknown): ClipperError {
  const cause = e instanceof Error && e.cause instanceof Error ? e.cause.message || e.message : String(e);
  return new ClipperError(`no answer from ${new URL(url).origin}: ${cause}`, { code: "UNAVAILABLE", cause: e });
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (e) {
    if (e instanceof SyntaxError) {
      throw new ClipperError(`the answer from ${response.url} is not JSON: is it Clipper that listens there?`, { code: "INTERNAL", cause: e });
    }
    throw unreachable(response.url, e); // The connection broke on the way.
  }
}

async function* lines(response: Response): AsyncGenerator<string> {
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      let chunk;
      try {
        chunk = await reader.read();
      } catch (e) {
        throw unreachable(response.url, e);
      }
      const parts = (rest + decoder.decode(chunk.value, { stream: !chunk.done })).split("\n");
      rest = parts.pop()!;
      yield* parts.filter((p) => p !== "");
      if (chunk.done) {
        if (rest !== "") {
          yield rest;
        }
        return;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** The problem details of RFC 9457, as Clipper writes them. */
interface ProblemJson {
  detail?: string;
  message?: string;
  title?: string;
  code?: Code;
  reason?: string;
  field?: string;
  retry_after_ms?: number;
}

function problem(p: ProblemJson): ClipperError {
  return new ClipperError(p.detail ?? p.message ?? p.title ?? "", { code: p.code ?? "UNKNOWN", reason: p.reason, field: p.field, retryAfter: p.retry_after_ms });
}

/** The codes of HTTP statuses, for answers of something between the client and Clipper. */
const statusCodes: Record<number, Code> = {
  400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED",
  502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE",
};

async function failure(response: Response): Promise<ClipperError> {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text) as (ProblemJson & { error?: ProblemJson }) | null;
    const p = body?.error ?? body;
    if (p?.code) {
      return problem(p);
    }
  } catch {
    // Not from Clipper.
  }
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new ClipperError(`${response.url} answered ${response.status} ${response.statusText}`, {
    code: statusCodes[response.status] ?? "UNKNOWN",
    retryAfter: Number.isFinite(seconds) ? seconds * 1000 : undefined,
  });
}

/** The members of a query as JSON text. */
function queryMembers(q: Omit<Query, "application">): string {
  const { context, id, priority } = q;
  const rest = JSON.stringify({ context, id, priority }).slice(1, -1);
  return `{"input":${toJsonText(q.input)}${rest && `,${rest}`}${timeMember(q.timeout)}}`;
}

function timeMember(ms: number | undefined): string {
  return ms === undefined ? "" : `,"timeout":"${(ms / 1000).toFixed(9)}s"`;
}

function feedbackMembers(f: Feedback): string {
  if ("feedbackId" in f) {
    return JSON.stringify({ feedback_id: f.feedbackId, ...("reward" in f ? { reward: f.reward } : { truth: f.truth }) });
  }
  const rest = JSON.stringify({ truth: f.truth, context: f.context, id: f.id }).slice(1);
  return `{"input":${toJsonText(f.input)},${rest}`;
}

interface AnswerJson {
  output: unknown;
  is_default: boolean;
  default_reason?: string;
  confidence: number;
  predictions: { model: string; version?: string; status: string; output?: unknown; message?: string; cached?: boolean; propensity?: number; shadow?: boolean; retry_after_ms?: number }[];
  feedback_id?: string;
  id?: string;
}

interface ResultsJson<T> {
  results: ({ response: T; error?: undefined } | { response?: undefined; error: ProblemJson })[];
}

function answer(r: AnswerJson): Answer {
  const reason = shortName(r.default_reason);
  return {
    output: fromJsonValue(r.output),
    isDefault: r.is_default,
    ...(reason === undefined ? {} : { defaultReason: reason }),
    confidence: r.confidence,
    predictions: r.predictions.map((p) => ({
      model: p.model,
      version: p.version ?? "",
      status: shortName(p.status) ?? "",
      ...(p.output === undefined ? {} : { output: fromJsonValue(p.output) as Value }),
      message: p.message ?? "",
      cached: p.cached ?? false,
      propensity: p.propensity ?? 0,
      shadow: p.shadow ?? false,
      ...(p.retry_after_ms === undefined ? {} : { retryAfter: p.retry_after_ms }),
    })),
    feedbackId: r.feedback_id ?? "",
    id: r.id ?? "",
  };
}

function receipt(r: Partial<FeedbackReceipt>): FeedbackReceipt {
  return { duplicate: r.duplicate ?? false, buffered: r.buffered ?? false, losses: r.losses ?? [] };
}

function result<T, U>(r: ResultsJson<T>["results"][number], read: (response: T) => U): Result<U> {
  return r.error ? { error: problem(r.error) } : { value: read(r.response!) };
}
