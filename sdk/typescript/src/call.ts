// SPDX-License-Identifier: Apache-2.0
import { ClipperError } from "./errors.js";

/** One attempt at a call, as interceptors see it. */
export interface Call {
  /** The service, such as `clipper.v1.QueryService`. */
  readonly service: string;
  /** The method, such as `Query`. */
  readonly method: string;
  /** What is asked: a message or, for queries over REST, an object. Not to be changed. */
  readonly request: unknown;
  /** 1 for the first attempt, 2 for its first repetition. */
  readonly attempt: number;
  /** The headers, or the gRPC metadata, by lower-case name. An interceptor may add some, such as `traceparent`. */
  readonly headers: Record<string, string>;
}

/**
 * An interceptor sees every attempt at a call, for logs, metrics and traces. It calls `next` once and gives what that
 * gives, or throws. Of a stream it sees the beginning only.
 */
export type Interceptor = (call: Call, next: (call: Call) => Promise<unknown>) => Promise<unknown>;

/** How a single call is made. */
export interface CallOptions {
  /** The most milliseconds that it may take, repetitions included. Default: a second more than a query's `timeout`, else the client's `deadline`. */
  deadline?: number | undefined;
  /** Ends the call when it is aborted. */
  signal?: AbortSignal | undefined;
  /** Further headers, or gRPC metadata. */
  headers?: Readonly<Record<string, string>> | undefined;
}

/** What every client can be told. */
export interface ClientOptions {
  /** An API key or a JWT. */
  apiKey?: string | undefined;
  /** The most milliseconds that a call may take, repetitions included. Default 30,000. Streams have none of their own. */
  deadline?: number | undefined;
  /** How often a call that is safe to repeat is tried when Clipper cannot be reached, at least 1. Default 4. */
  attempts?: number | undefined;
  /** The first sees a call first. */
  interceptors?: readonly Interceptor[] | undefined;
}

/** The method that is called. */
export interface Method {
  readonly service: string;
  readonly name: string;
  /** True when it is safe to repeat: what it does twice is what it does once. */
  readonly safe: boolean;
}

/** When a call ends at the latest. */
export interface Limits {
  readonly signal: AbortSignal;
  /** In milliseconds since the epoch; Infinity for a stream without one. */
  readonly deadline: number;
}

/** Makes calls: deadlines, repetitions, interceptors. */
export class Caller {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    if (!((options.deadline ?? 1) > 0)) {
      throw new RangeError("deadline must be more than 0 milliseconds");
    }
    if (!((options.attempts ?? 1) >= 1)) {
      throw new RangeError("attempts must be at least 1");
    }
    this.#options = options;
  }

  /** Makes a call, and repeats it while that is safe and promises anything. */
  async unary<T>(method: Method, request: unknown, options: CallOptions, attempt: (call: Call, limits: Limits) => Promise<T>): Promise<T> {
    const within = options.deadline ?? this.#options.deadline ?? 30_000;
    const deadline = Date.now() + within;
    const timer = new AbortController();
    const late = () => new ClipperError(`no answer within ${within} ms`, { code: "DEADLINE_EXCEEDED" });
    const timeout = setTimeout(() => timer.abort(late()), Math.min(within, 2 ** 31 - 1));
    const both = either(timer.signal, options.signal);
    try {
      for (let n = 1; ; n++) {
        both.signal.throwIfAborted();
        try {
          return await this.#intercept(method, request, n, options, (call) => attempt(call, { signal: both.signal, deadline })) as T;
        } catch (e) {
          const wait = method.safe && n < (this.#options.attempts ?? 4) && !both.signal.aborted ? pause(e, n) : undefined;
          if (wait === undefined || Date.now() + wait >= deadline) {
            throw e;
          }
          await sleep(wait, both.signal);
        }
      }
    } catch (e) {
      // The server may notice the deadline first, and end the call.
      if (e instanceof ClipperError && e.code === "CANCELLED" && !both.signal.aborted && Date.now() > deadline - 50) {
        throw late();
      }
      throw toError(e, both.signal);
    } finally {
      clearTimeout(timeout);
      both.release();
    }
  }

  /** Opens a stream; the caller's signal ends it when the consumer leaves. */
  async *stream<T>(method: Method, request: unknown, options: CallOptions, open: (call: Call, limits: Limits) => AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
    const timer = new AbortController();
    const within = options.deadline;
    const timeout = within === undefined ? undefined
      : setTimeout(() => timer.abort(new ClipperError(`the stream did not end within ${within} ms`, { code: "DEADLINE_EXCEEDED" })), Math.min(within, 2 ** 31 - 1));
    const both = either(timer.signal, options.signal);
    const deadline = within === undefined ? Infinity : Date.now() + within;
    try {
      both.signal.throwIfAborted();
      const items = await this.#intercept(method, request, 1, options, async (call) => open(call, { signal: both.signal, deadline }));
      yield* items as AsyncIterable<T>;
    } catch (e) {
      throw toError(e, both.signal);
    } finally {
      clearTimeout(timeout);
      timer.abort();
      both.release();
    }
  }

  #intercept(method: Method, request: unknown, attempt: number, options: CallOptions, last: (call: Call) => Promise<unknown>): Promise<unknown> {
    const headers: Record<string, string> = {};
    if (this.#options.apiKey !== undefined) {
      headers["authorization"] = `Bearer ${this.#options.apiKey}`;
    }
    const next = (this.#options.interceptors ?? []).reduceRight<(call: Call) => Promise<unknown>>((then, i) => (call) => i(call, then), last);
    return next({ service: method.service, method: method.name, request, attempt, headers: { ...headers, ...options.headers } });
  }
}

/** The milliseconds to wait before a repetition; undefined when there is to be none. */
function pause(e: unknown, attempt: number): number | undefined {
  if (!(e instanceof ClipperError) || e.code !== "UNAVAILABLE") {
    return undefined;
  }
  // At random, so that clients that failed together do not come back together.
  return (e.retryAfter ?? 0) + Math.random() * Math.min(1000, 50 * 2 ** attempt);
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

/** A signal that is aborted when one of the two is. AbortSignal.any does the same, in newer engines. */
function either(own: AbortSignal, caller: AbortSignal | undefined): { signal: AbortSignal; release: () => void } {
  if (!caller) {
    return { signal: own, release: () => {} };
  }
  const controller = new AbortController();
  const end = (e: Event) => controller.abort((e.target as AbortSignal).reason);
  for (const s of [own, caller]) {
    if (s.aborted) {
      controller.abort(s.reason);
    }
    s.addEventListener("abort", end);
  }
  const release = () => [own, caller].forEach((s) => s.removeEventListener("abort", end));
  return { signal: controller.signal, release };
}

/** What a caller gets to see. */
function toError(e: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) {
    const reason: unknown = signal.reason;
    return reason instanceof ClipperError ? reason : new ClipperError("the caller ended the call", { code: "CANCELLED", cause: reason });
  }
  return e;
}
