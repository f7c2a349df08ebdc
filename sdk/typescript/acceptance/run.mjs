// SPDX-License-Identifier: Apache-2.0
// Runs the acceptance list (sdk/acceptance) with a client of this package; it needs nothing of Node.
import { fromJson, toJson } from "@bufbuild/protobuf";

/**
 * Returns the failures. `over` is grpc or rest; `clients` has a client for each server of the list that there is;
 * `lib` is the package.
 */
export async function run(list, over, clients, container, lib) {
  const saved = { container };
  const failures = [];
  let count = 0;
  for (const c of list.cases) {
    const client = clients[c.server ?? "clipper"];
    if ((c.over && c.over !== over) || !client) {
      continue;
    }
    count++;
    const problems = [];
    try {
      const answer = await calls[c.call](client, substitute(c.request, saved), lib, over);
      if (c.error) {
        problems.push(`no error, but ${show(answer)}`);
      } else {
        match("", substitute(c.expect, saved), answer, problems, over);
      }
      for (const [name, path] of Object.entries(c.save ?? {})) {
        saved[name] = path.split(".").reduce((v, k) => v[k], answer);
      }
    } catch (e) {
      if (!(e instanceof lib.ClipperError) || !c.error) {
        problems.push(`error ${e.code} ${e.reason}: ${e.stack}`);
      } else {
        const { rest_field, http, ...expected } = c.error;
        if (over === "rest" && rest_field) {
          expected.field = rest_field;
        }
        match("error", expected, errorOf(e), problems, over);
      }
    }
    failures.push(...problems.map((p) => `${c.name}: ${p}`));
  }
  return { count, failures };
}

const show = (v) => JSON.stringify(v, (_, e) => (typeof e === "bigint" ? String(e) : e));

function substitute(v, saved) {
  if (Array.isArray(v)) {
    return v.map((e) => substitute(e, saved));
  }
  if (typeof v === "object" && v !== null) {
    return Object.fromEntries(Object.entries(v).map(([k, e]) => [k, substitute(e, saved)]));
  }
  return typeof v === "string" && v.startsWith("$") && v.slice(1) in saved ? saved[v.slice(1)] : v;
}

function isNothing(v) {
  return v === undefined || v === null || v === false || v === 0 || v === "" || (Array.isArray(v) && v.length === 0);
}

function matches(want, got, over) {
  const problems = [];
  match("", want, got, problems, over);
  return problems.length === 0;
}

function match(at, want, got, problems, over) {
  if (want === "$any") {
    isNothing(got) && problems.push(`${at} is missing`);
  } else if (Array.isArray(want) && want[0] === "$includes") {
    for (const w of want.slice(1)) {
      (got ?? []).some((g) => matches(w, g, over)) || problems.push(`${at} does not include ${show(w)}: ${show(got)}`);
    }
  } else if (Array.isArray(want)) {
    // A JSON object's members have no order: named tensors are told apart by their names.
    if (over === "rest" && want.length > 1 && want.every((w) => w.name && w.values)) {
      got = want.map((w) => got?.find((g) => g.name === w.name));
    }
    if ((got ?? []).length !== want.length) {
      problems.push(`${at} is ${show(got)}, expected ${show(want)}`);
    } else {
      want.forEach((w, i) => match(`${at}[${i}]`, w, got[i], problems, over));
    }
  } else if (typeof want === "object" && want !== null) {
    for (const [k, w] of Object.entries(want)) {
      // Over REST nothing says of what type an output is, and a single one has no name.
      if (over === "rest" && "values" in want && (k === "type" || (k === "name" && got?.name === undefined))) {
        continue;
      }
      match(`${at}.${k}`, w, got?.[k], problems, over);
    }
  } else if (!(isNothing(want) && isNothing(got)) && want !== got) {
    problems.push(`${at} is ${show(got)}, expected ${show(want)}`);
  }
}

function errorOf(e) {
  return { code: e.code, reason: e.reason, field: e.field, message: e.message, retry_after_ms: e.retryAfter };
}

const arrays = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array, float32: Float32Array, float64: Float64Array,
};

/** A tensor of the list as an input. */
function input({ name = "", type, shape, values }, lib) {
  if (type === "string" || type === "bool" || type === "bytes") {
    const elements = type === "bytes" ? values.map((v) => lib.bytes(Uint8Array.from(atob(v), (c) => c.charCodeAt(0)))) : values;
    return shape.length === 0 ? elements[0] : elements;
  }
  if (type === "float16" || type === "bfloat16") {
    return half(name, type, shape, values, lib);
  }
  const Elements = arrays[type];
  const big = Elements === BigInt64Array || Elements === BigUint64Array;
  return lib.tensor(Elements.from(values, big ? BigInt : Number), shape, name);
}

/** These two types have no array in the language: their bits are written. */
function half(name, type, shape, values, lib) {
  const bits = Uint16Array.from(values, (v) => {
    const wide = new Uint32Array(Float32Array.of(v).buffer)[0];
    if (type === "bfloat16") {
      return wide >>> 16;
    }
    const exponent = ((wide >>> 23) & 255) - 112;
    const fraction = wide & 0x7fffff;
    return ((wide >>> 16) & 0x8000) | (exponent > 0 ? (exponent << 10) | (fraction >>> 13) : (fraction | 0x800000) >>> (14 - exponent));
  });
  const t = lib.tensor(bits, shape, name);
  t.dataType = lib.DataType[type.toUpperCase()];
  return t;
}

function inputOf(r, lib) {
  if (r.input_json !== undefined) {
    return new lib.JsonText(r.input_json);
  }
  if (r.inputs.length === 1 && !r.inputs[0].name) {
    return input(r.inputs[0], lib);
  }
  return Object.fromEntries(r.inputs.map((t) => [t.name, input(t, lib)]));
}

const optionsOf = ({ context, id, priority, timeout_ms }) => ({ context, id, priority, timeout: timeout_ms });

function tensors(outputs, output, lib) {
  if (outputs) {
    return outputs.map((t) => ({ name: t.name, type: lib.DataType[t.dataType].toLowerCase(), shape: t.shape.map(Number), values: flat(lib.toValue(t)) }));
  }
  if (output === undefined) {
    return [];
  }
  const one = (v, name) => ({ name, shape: shapeOf(v), values: flat(v) });
  return typeof output === "object" && !Array.isArray(output) && !(output instanceof Uint8Array)
    ? Object.entries(output).map(([name, v]) => one(v, name)) : [one(output)];
}

const shapeOf = (v) => (Array.isArray(v) ? [v.length, ...(v.length ? shapeOf(v[0]) : [])] : []);

function flat(v) {
  return [v].flat(Infinity).map((e) => (e instanceof Uint8Array ? btoa(String.fromCharCode(...e)) : typeof e === "bigint" ? String(e) : Number.isNaN(e) ? "NaN" : e));
}

function answerOf(a, lib) {
  return {
    outputs: tensors(a.outputs, a.output, lib), is_default: a.isDefault, default_reason: a.defaultReason, confidence: a.confidence, id: a.id, feedback_id: a.feedbackId,
    predictions: a.predictions.map((p) => ({ ...p, outputs: tensors(p.outputs, p.output, lib) })),
  };
}

const resultOf = (r, read) => (r.error ? { error: errorOf(r.error) } : read(r.value));

function feedbackOf(r, lib) {
  const observation = "reward" in r ? { reward: r.reward } : { truth: r.truth };
  return r.feedback_id !== undefined ? { feedbackId: r.feedback_id, ...observation } : { input: inputOf(r, lib), context: r.context, id: r.id, ...observation };
}

const json = (schema, message) => toJson(schema, message, { useProtoFieldName: true });

/** Reads every page. */
async function all(call, request, member) {
  const items = [];
  for (let pageToken = ""; ;) {
    const page = await call({ ...request, pageToken });
    items.push(...page[member]);
    pageToken = page.nextPageToken;
    if (!pageToken) {
      return items;
    }
  }
}

/** A call of the administration whose request and answer are in the JSON form of the protos. */
const admin = (service, method, name) => async (client, r, lib) => {
  const { update_mask: paths, ...rest } = r;
  const request = fromJson(lib[`${name}RequestSchema`], rest);
  if (paths) {
    request.updateMask = { $typeName: "google.protobuf.FieldMask", paths };
  }
  return json(lib[`${name}ResponseSchema`], await client[service][method](request), lib);
};

const calls = {
  query: async (client, r, lib) => answerOf(await client.query(r.application, inputOf(r, lib), optionsOf(r)), lib),
  query_batch: async (client, r, lib) => {
    const results = await client.queryBatch(r.application, r.queries.map((q) => ({ input: inputOf(q, lib), ...optionsOf(q) })));
    return { results: results.map((x) => resultOf(x, (a) => answerOf(a, lib))) };
  },
  query_stream: async (client, r, lib) => {
    const results = [];
    for await (const x of client.stream(r.queries.map((q) => ({ application: q.application, input: inputOf(q, lib), ...optionsOf(q) })))) {
      results[x.index] = resultOf(x, (a) => answerOf(a, lib));
    }
    return { results };
  },
  feedback: (client, r, lib) => client.feedback(r.application, feedbackOf(r, lib)),
  feedback_batch: async (client, r, lib) => {
    const results = await client.feedbackBatch(r.application, r.items.map((f) => feedbackOf(f, lib)));
    return { results: results.map((x) => resultOf(x, (v) => v)) };
  },
  create_application: admin("applications", "createApplication", "CreateApplication"),
  update_application: admin("applications", "updateApplication", "UpdateApplication"),
  get_application: admin("applications", "getApplication", "GetApplication"),
  delete_application: admin("applications", "deleteApplication", "DeleteApplication"),
  get_selection_state: admin("applications", "getSelectionState", "GetSelectionState"),
  reset_selection_state: admin("applications", "resetSelectionState", "ResetSelectionState"),
  get_canary: admin("applications", "getCanary", "GetCanary"),
  list_applications: async (client, r, lib) =>
    ({ applications: (await all(client.applications.listApplications, { pageSize: r.page_size }, "applications")).map((a) => json(lib.ApplicationSchema, a)) }),
  list_models: async (client, r, lib) =>
    ({ models: (await all(client.models.listModels, { pageSize: r.page_size }, "models")).map((m) => json(lib.ModelSchema, m)) }),
  deploy_model: admin("models", "deployModel", "DeployModel"),
  get_model_version: admin("models", "getModelVersion", "GetModelVersion"),
  update_model_version: admin("models", "updateModelVersion", "UpdateModelVersion"),
  get_model: admin("models", "getModel", "GetModel"),
  set_current_version: admin("models", "setCurrentVersion", "SetCurrentVersion"),
  delete_model_version: admin("models", "deleteModelVersion", "DeleteModelVersion"),
  delete_model: admin("models", "deleteModel", "DeleteModel"),
  wait_model_ready: async (client, r, lib) => {
    for (let tries = 0; ; tries++) {
      const { version } = await client.models.getModelVersion(r);
      if (version.state === lib.ModelState.READY || version.state === lib.ModelState.FAILED || tries === 1200) {
        return { version: json(lib.ModelVersionSchema, version, lib) };
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  },
};
