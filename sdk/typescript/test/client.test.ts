// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bytes, ClipperError, DataType, JsonText, RestClient, tensor, toValue, typedArray } from "@clipper-serving/client";
import { GrpcClient } from "@clipper-serving/client/grpc";

/** A fetch that answers by a function and keeps what it was asked. */
function fake(answer: (url: string, init: RequestInit, n: number) => Response) {
  const asked: { url: string; init: RequestInit }[] = [];
  return { asked, fetch: (async (url: string, init: RequestInit) => answer(url, init, asked.push({ url, init }))) as typeof fetch };
}

const answered = { output: 7, is_default: false, confidence: 1, predictions: [] };
const refused = (status: number, body: object) => new Response(JSON.stringify(body), { status, headers: { "content-type": "application/problem+json" } });
const unavailable = () => refused(503, { code: "UNAVAILABLE", reason: "UNAVAILABLE", detail: "not now" });

for (const [name, input, text] of [
  ["a number", 7, "7"],
  ["lists", [[1, 2], [3, 4]], "[[1,2],[3,4]]"],
  ["text", 'ü"', '"ü\\""'],
  ["a large integer", 2n ** 63n, "9223372036854775808"],
  ["an array", Float32Array.of(0.5, 1e30), "[0.5,1.0000000150474662e+30]"],
  ["a tensor", tensor(Int32Array.of(1, 2, 3, 4), [2, 2]), "[[1,2],[3,4]]"],
  ["bytes", bytes(Uint8Array.of(0, 1)), '{"b64":"AAE="}'],
  ["names", { a: [true], b: BigInt64Array.of(5n) }, '{"a":[true],"b":[5]}'],
  ["no number", [NaN], "[NaN]"],
  ["JSON text", new JsonText("[1 , 2]"), "[1 , 2]"],
] as const) {
  test(`input: ${name}`, async () => {
    const { asked, fetch } = fake(() => Response.json(answered));
    await new RestClient({ fetch }).query("a/b", input, { context: "c" });
    assert.equal(asked[0]!.url, "http://127.0.0.1:1337/v1/applications/a%2Fb/query");
    assert.equal(asked[0]!.init.body, `{"input":${text},"context":"c"}`);
  });
}

test("a tensor comes back as an array and as a value", () => {
  const t = tensor(BigInt64Array.of(1n, -(2n ** 60n)), [1, 2], "x");
  assert.deepEqual(typedArray(t), BigInt64Array.of(1n, -(2n ** 60n)));
  assert.deepEqual(toValue(t), [[1, -(2n ** 60n)]]);
  assert.throws(() => tensor(Int8Array.of(1, 2), [3]), RangeError);
  assert.throws(() => tensor(new Uint8ClampedArray(1) as unknown as Uint8Array), TypeError);
  assert.equal(t.dataType, DataType.INT64);
});

test("what is safe is repeated, and nothing else", async () => {
  for (const [safe, call] of [
    [true, (c: RestClient) => c.query("a", 1)],
    [true, (c: RestClient) => c.feedback("a", { feedbackId: "f", truth: 1 })],
    [true, (c: RestClient) => c.feedback("a", { input: 1, truth: 1, id: "i" })],
    [false, (c: RestClient) => c.feedback("a", { input: 1, truth: 1 })],
    [true, (c: RestClient) => c.applications.getApplication({ application: "a" })],
    [false, (c: RestClient) => c.applications.deleteApplication({ application: "a" })],
  ] as const) {
    const { asked, fetch } = fake(unavailable);
    await assert.rejects(call(new RestClient({ fetch, attempts: 2 })), (e) => e instanceof ClipperError && e.reason === "UNAVAILABLE" && e.message === "not now");
    assert.equal(asked.length, safe ? 2 : 1);
  }
});

test("a call ends at its deadline, or when its caller ends it", async () => {
  const hang = ((_: string, { signal }: RequestInit) => new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)))) as typeof fetch;
  const client = new RestClient({ fetch: hang });
  await assert.rejects(client.query("a", 1, { deadline: 1 }), { code: "DEADLINE_EXCEEDED", reason: "DEADLINE" });
  const stop = new AbortController();
  const running = client.query("a", 1, { signal: stop.signal });
  stop.abort();
  await assert.rejects(running, { code: "CANCELLED", reason: undefined });
});

test("interceptors see each attempt, and add headers", async () => {
  const { asked, fetch } = fake((_, __, n) => (n === 1 ? unavailable() : Response.json(answered)));
  const seen: string[] = [];
  await new RestClient({ fetch, apiKey: "k", interceptors: [(call, next) => {
    seen.push(`${call.service}/${call.method} ${call.attempt}`);
    call.headers["traceparent"] = "00-1";
    return next(call);
  }] }).query("a", 1);
  assert.deepEqual(seen, ["clipper.v1.QueryService/Query 1", "clipper.v1.QueryService/Query 2"]);
  assert.deepEqual(Object.entries(asked[1]!.init.headers!).filter(([k]) => k !== "user-agent" && k !== "content-type"), [["authorization", "Bearer k"], ["traceparent", "00-1"]]);
});

test("an update names the fields that become empty", async () => {
  const { asked, fetch } = fake(() => Response.json({}));
  await new RestClient({ fetch }).applications.updateApplication({
    application: { name: "a", confidenceThreshold: 0, etag: "3" }, updateMask: { paths: ["confidence_threshold", "canary"] }, resetState: true,
  });
  assert.equal(asked[0]!.url, "http://127.0.0.1:1338/v1/applications/a?reset_state=true");
  assert.deepEqual(JSON.parse(String(asked[0]!.init.body)), { confidence_threshold: 0, canary: null, etag: "3" });
});

test("answers that are not Clipper's are errors", async () => {
  for (const [response, code, retryAfter] of [
    [() => new Response("<html>", { status: 502 }), "UNAVAILABLE", undefined],
    [() => new Response("slow down", { status: 429, headers: { "retry-after": "2" } }), "RESOURCE_EXHAUSTED", 2000],
    [() => new Response("<html>"), "INTERNAL", undefined],
  ] as const) {
    await assert.rejects(new RestClient({ fetch: fake(response).fetch, attempts: 1 }).query("a", 1), { code, retryAfter });
  }
});

test("a stream is bounded, ends early, and its queries may fail alone", async () => {
  let taken = 0;
  const client = new RestClient({ fetch: fake((_, __, n) => (n === 2 ? refused(404, { code: "NOT_FOUND", reason: "APPLICATION_NOT_FOUND", detail: "no" }) : Response.json(answered))).fetch });
  const queries = function* () {
    for (;;) {
      taken++;
      yield { application: "a", input: 1 };
    }
  };
  const results = [];
  for await (const r of client.stream(queries())) {
    results.push(r.error?.reason ?? r.value?.output);
    if (results.length === 3) {
      break;
    }
  }
  assert.deepEqual(results.sort(), [7, 7, "APPLICATION_NOT_FOUND"]);
  assert.ok(taken < 70, `took ${taken}`);
});

test("a key goes out encrypted, or not beyond this machine", () => {
  assert.throws(() => new GrpcClient({ apiKey: "k", address: "clipper.example:1347" }), /encryption/);
  new GrpcClient({ apiKey: "k", address: "127.0.0.1:1347" }).close();
});

test("the paths are those of proto/gateway.yaml", async () => {
  const { routes } = await import(new URL("../../dist/esm/routes.js", import.meta.url).href) as { routes: Record<string, string[]> };
  const rules = [...readFileSync("../../proto/gateway.yaml", "utf8").matchAll(/- selector: clipper\.v1\.(?:Application|Model)Service\.(\w+)\n +(\w+): (\S+)(?:\n +body: "?([\w*]+)"?)?/g)];
  assert.ok(rules.length > 20);
  assert.deepEqual(routes, Object.fromEntries(rules.map(([, name, verb, path, body]) => [name, [verb!.toUpperCase(), path, ...(body ? [body] : [])]])));
});
