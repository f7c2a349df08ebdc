// SPDX-License-Identifier: Apache-2.0

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import dev.clipper.ClipperClient;
import dev.clipper.ClipperException;
import dev.clipper.QueryStream;
import dev.clipper.Result;
import dev.clipper.Tensors;
import dev.clipper.v1.*;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.function.Function;
import java.util.stream.Stream;

/** Runs the list of sdk/acceptance against its server: {@code java Acceptance PROGRAM}. Then the README's example. */
public final class Acceptance {
    private static final java.time.Duration READY_WITHIN = java.time.Duration.ofMinutes(1);

    private final Map<String, JsonElement> saved = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        String program = arguments[0];
        JsonArray cases;
        try (var out = new InputStreamReader(new ProcessBuilder(program, "--list").redirectError(ProcessBuilder.Redirect.INHERIT).start().getInputStream(), StandardCharsets.UTF_8)) {
            cases = JsonParser.parseReader(out).getAsJsonObject().getAsJsonArray("cases");
        }
        Process server = new ProcessBuilder(program).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        int failures;
        try {
            var lines = new BufferedReader(new InputStreamReader(server.getInputStream(), StandardCharsets.UTF_8));
            JsonObject at = JsonParser.parseString(lines.readLine()).getAsJsonObject();
            failures = new Acceptance().run(at, cases) + example(at);
        } finally {
            server.getOutputStream().close();
            server.waitFor();
        }
        System.out.println("java: " + cases.size() + " cases and an example, " + failures + " failures");
        System.exit(failures == 0 && cases.size() > 50 ? 0 : 1);
    }

    private int run(JsonObject at, JsonArray cases) {
        saved.put("container", at.get("container"));
        var clients = Map.of(
            "clipper", ClipperClient.builder().address(text(at, "query_grpc")).adminAddress(text(at, "admin_grpc")).build(),
            "canned", ClipperClient.builder().address(text(at, "canned_grpc")).build(),
            "secure", secure(at).apiKey(text(at, "api_key")).build(),
            "keyless", secure(at).build());
        int failures = 0;
        for (JsonElement e : cases) {
            JsonObject c = e.getAsJsonObject();
            String problem = run(clients.get(c.has("server") && !text(c, "server").isEmpty() ? text(c, "server") : "clipper"), c);
            if (!problem.isEmpty()) {
                failures++;
                System.err.println("java: " + text(c, "name") + ": " + problem);
            }
        }
        clients.values().forEach(ClipperClient::close);
        return failures;
    }

    private static dev.clipper.ClientBuilder secure(JsonObject at) {
        return ClipperClient.builder().address(text(at, "secure_grpc")).caFile(Path.of(text(at, "ca_file")))
            .clientCertificate(Path.of(text(at, "cert_file")), Path.of(text(at, "key_file")));
    }

    /** Runs the README's example against an application of its own, and looks at what it prints. */
    private static int example(JsonObject at) throws Exception {
        try (var client = ClipperClient.builder().adminAddress(text(at, "admin_grpc")).build()) {
            client.createApplication(Application.newBuilder().setName("digits").addModels(ApplicationModel.newBuilder().setModel("label"))
                .setDefaultOutput(dev.clipper.Json.value(-1)).setLatencyObjective(Duration.newBuilder().setSeconds(20)).build());
        }
        var printed = new ByteArrayOutputStream();
        PrintStream stdout = System.out;
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        try {
            Example.main(new String[] {text(at, "query_grpc")});
        } finally {
            System.setOut(stdout);
        }
        String have = printed.toString(StandardCharsets.UTF_8).strip();
        if (have.equals("0 false 1.0")) {
            return 0;
        }
        System.err.println("java: the README's example printed " + have);
        return 1;
    }

    /** Returns what is wrong with a case; "" when nothing is. */
    private String run(ClipperClient client, JsonObject c) {
        JsonElement have;
        try {
            try {
                have = call(client, text(c, "call"), fill(c.get("request")).getAsJsonObject());
            } catch (ClipperException e) {
                have = object("error", error(e));
            }
            JsonElement want = has(c, "error") ? object("error", c.get("error")) : fill(c.get("expect"));
            if (!has(c, "error") && have.getAsJsonObject().has("error")) {
                return "failed: " + have;
            }
            String problem = mismatch("", have, want);
            if (problem.isEmpty() && has(c, "save")) {
                for (var save : c.getAsJsonObject("save").entrySet()) {
                    JsonElement v = have;
                    for (String key : save.getValue().getAsString().split("\\.")) {
                        v = v.getAsJsonObject().get(key);
                    }
                    saved.put(save.getKey(), v);
                }
            }
            return problem;
        } catch (Exception e) {
            e.printStackTrace();
            return e.toString();
        }
    }

    /** Makes a call as a program would. */
    private static JsonElement call(ClipperClient client, String call, JsonObject q) throws Exception {
        String application = has(q, "application") && q.get("application").isJsonPrimitive() ? text(q, "application") : "";
        String model = text(q, "model");
        String version = has(q, "version") && q.get("version").isJsonPrimitive() ? text(q, "version") : "";
        return switch (call) {
            case "query" -> answer(client.query(query(application, q)));
            case "query_batch" -> {
                var request = QueryBatchRequest.newBuilder().setApplication(application);
                for (JsonElement item : q.getAsJsonArray("queries")) {
                    QueryRequest one = query("", item.getAsJsonObject());
                    request.addQueries(BatchQuery.newBuilder().addAllInputs(one.getInputsList()).setInputJson(one.getInputJson())
                        .setContext(one.getContext()).setId(one.getId()).setPriority(one.getPriority()));
                }
                yield results(client.queryBatch(request.build()), Acceptance::answer);
            }
            case "query_stream" -> stream(client, q.getAsJsonArray("queries"));
            case "feedback" -> json(client.feedback(feedback(application, q)));
            case "feedback_batch" -> {
                var request = FeedbackBatchRequest.newBuilder().setApplication(application);
                q.getAsJsonArray("items").forEach(item -> request.addItems(feedback("", item.getAsJsonObject())));
                yield results(client.feedbackBatch(request.build()), Acceptance::json);
            }
            case "create_application" -> object("application", json(client.createApplication(read(q.get("application"), Application.newBuilder()).build())));
            case "update_application" -> {
                var request = UpdateApplicationRequest.newBuilder().setApplication(read(q.get("application"), Application.newBuilder()))
                    .setResetState(has(q, "reset_state") && q.get("reset_state").getAsBoolean());
                q.getAsJsonArray("update_mask").forEach(path -> request.getUpdateMaskBuilder().addPaths(path.getAsString()));
                yield object("application", json(client.updateApplication(request.build())));
            }
            case "get_application" -> object("application", json(client.getApplication(application)));
            case "delete_application" -> {
                if (has(q, "etag")) {
                    yield json(client.call(ApplicationServiceGrpc.getDeleteApplicationMethod(),
                        DeleteApplicationRequest.newBuilder().setApplication(application).setEtag(text(q, "etag")).build()));
                }
                client.deleteApplication(application);
                yield new JsonObject();
            }
            case "list_applications" -> object("applications", list(client.listApplications(q.get("page_size").getAsInt()), Acceptance::json));
            case "list_models" -> object("models", list(client.listModels(q.get("page_size").getAsInt()), Acceptance::json));
            case "get_selection_state" -> json(client.call(ApplicationServiceGrpc.getGetSelectionStateMethod(),
                GetSelectionStateRequest.newBuilder().setApplication(application).setContext(text(q, "context")).build()));
            case "reset_selection_state" -> json(client.call(ApplicationServiceGrpc.getResetSelectionStateMethod(),
                ResetSelectionStateRequest.newBuilder().setApplication(application).setContext(text(q, "context")).build()));
            case "get_canary" -> json(client.call(ApplicationServiceGrpc.getGetCanaryMethod(), GetCanaryRequest.newBuilder().setApplication(application).build()));
            case "deploy_model" -> object("version", json(client.deployModel(DeployModelRequest.newBuilder()
                .setVersion(read(q.get("version"), ModelVersion.newBuilder())).setKeepCurrent(has(q, "keep_current") && q.get("keep_current").getAsBoolean()).build())));
            case "wait_model_ready" -> object("version", json(client.waitModelReady(model, version, READY_WITHIN)));
            case "get_model" -> object("model", json(client.getModel(model)));
            case "get_model_version" -> object("version", json(client.getModelVersion(model, version)));
            case "update_model_version" -> object("version", json(client.scaleModelVersion(model, version, q.get("replicas").getAsInt())));
            case "set_current_version" -> object("model", json(client.setCurrentVersion(model, version)));
            case "delete_model_version" -> {
                client.deleteModelVersion(model, version);
                yield new JsonObject();
            }
            case "delete_model" -> {
                client.deleteModel(model);
                yield new JsonObject();
            }
            default -> throw new IllegalArgumentException("there is no call " + call);
        };
    }

    /** Asks all at once over one stream. */
    private static JsonElement stream(ClipperClient client, JsonArray queries) {
        try (QueryStream stream = client.stream()) {
            var answers = new ArrayList<CompletableFuture<QueryResponse>>();
            queries.forEach(q -> answers.add(stream.queryAsync(query(text(q.getAsJsonObject(), "application"), q.getAsJsonObject()))));
            return object("results", list(answers, a -> {
                try {
                    return answer(a.join());
                } catch (CompletionException e) {
                    return object("error", error((ClipperException) e.getCause()));
                }
            }));
        }
    }

    private static <T> JsonElement results(List<Result<T>> results, Function<T, JsonElement> write) {
        return object("results", list(results, r -> r.error() == null ? write.apply(r.value()) : object("error", error(r.error()))));
    }

    private static QueryRequest query(String application, JsonObject q) {
        var b = QueryRequest.newBuilder().setApplication(application).addAllInputs(tensors(q)).setInputJson(ByteString.copyFromUtf8(text(q, "input_json")))
            .setContext(text(q, "context")).setId(text(q, "id"));
        if (has(q, "priority")) {
            b.setPriority(q.get("priority").getAsInt());
        }
        if (has(q, "timeout_ms")) {
            b.setTimeout(Duration.newBuilder().setNanos(q.get("timeout_ms").getAsInt() * 1_000_000));
        }
        return b.build();
    }

    private static FeedbackRequest feedback(String application, JsonObject q) {
        var b = FeedbackRequest.newBuilder().setApplication(application).setFeedbackId(text(q, "feedback_id")).addAllInputs(tensors(q))
            .setInputJson(ByteString.copyFromUtf8(text(q, "input_json"))).setContext(text(q, "context")).setId(text(q, "id"));
        if (has(q, "reward")) {
            b.setReward(q.get("reward").getAsDouble());
        } else {
            JsonPrimitive truth = q.getAsJsonPrimitive("truth");
            b.setTruth(dev.clipper.Json.value(truth.isNumber() ? truth.getAsNumber() : truth.getAsString()));
        }
        return b.build();
    }

    private static List<Tensor> tensors(JsonObject q) {
        return has(q, "inputs") ? q.getAsJsonArray("inputs").asList().stream().map(t -> tensor(t.getAsJsonObject())).toList() : List.of();
    }

    /** Makes a tensor with the functions that programs use. */
    private static Tensor tensor(JsonObject o) {
        long[] shape = o.getAsJsonArray("shape").asList().stream().mapToLong(JsonElement::getAsLong).toArray();
        JsonElement[] v = o.getAsJsonArray("values").asList().toArray(JsonElement[]::new);
        double[] doubles = new double[v.length];
        float[] floats = new float[v.length];
        long[] longs = new long[v.length];
        int[] ints = new int[v.length];
        short[] shorts = new short[v.length];
        byte[] bytes = new byte[v.length];
        boolean[] booleans = new boolean[v.length];
        String type = text(o, "type");
        for (int i = 0; i < v.length; i++) {
            switch (type) {
                case "bool" -> booleans[i] = v[i].getAsBoolean();
                case "float64" -> doubles[i] = v[i].getAsDouble();
                case "float32", "float16", "bfloat16" -> floats[i] = v[i].getAsFloat();
                case "uint64" -> longs[i] = Long.parseUnsignedLong(v[i].getAsString());
                case "string", "bytes" -> { }
                default -> {
                    longs[i] = v[i].getAsLong();
                    ints[i] = (int) longs[i];
                    shorts[i] = (short) longs[i];
                    bytes[i] = (byte) longs[i];
                }
            }
        }
        Tensor t = switch (type) {
            case "bool" -> Tensors.of(booleans);
            case "string" -> Tensors.of(Stream.of(v).map(JsonElement::getAsString).toArray(String[]::new));
            case "bytes" -> Tensors.of(Stream.of(v).map(x -> Base64.getDecoder().decode(x.getAsString())).toArray(byte[][]::new));
            case "float64" -> Tensors.of(doubles);
            case "float32" -> Tensors.of(floats);
            case "float16" -> Tensors.float16(floats);
            case "bfloat16" -> Tensors.bfloat16(floats);
            case "int64" -> Tensors.of(longs);
            case "int32" -> Tensors.of(ints);
            case "int16" -> Tensors.of(shorts);
            case "int8" -> Tensors.of(bytes);
            case "uint64" -> Tensors.unsigned(longs);
            case "uint32" -> Tensors.unsigned(ints);
            case "uint16" -> Tensors.unsigned(shorts);
            case "uint8" -> Tensors.unsigned(bytes);
            default -> throw new IllegalArgumentException("there is no type " + type);
        };
        t = shape.length == 0 ? Tensors.scalar(t) : t.toBuilder().clearShape().addAllShape(Arrays.stream(shape).boxed().toList()).build();
        return Tensors.named(text(o, "name"), t);
    }

    private static JsonElement answer(QueryResponse a) {
        JsonObject o = new JsonObject();
        o.add("outputs", list(a.getOutputsList(), Acceptance::written));
        o.addProperty("is_default", a.getIsDefault());
        o.addProperty("default_reason", a.getDefaultReason() == DefaultReason.DEFAULT_REASON_UNSPECIFIED ? "" : a.getDefaultReason().name().substring("DEFAULT_REASON_".length()));
        o.addProperty("confidence", a.getConfidence());
        o.add("predictions", list(a.getPredictionsList(), p -> {
            JsonObject part = new JsonObject();
            part.addProperty("model", p.getModel());
            part.addProperty("version", p.getVersion());
            part.addProperty("status", p.getStatus().name().substring("PREDICTION_STATUS_".length()));
            part.add("outputs", list(p.getOutputsList(), Acceptance::written));
            part.addProperty("message", p.getMessage());
            part.addProperty("cached", p.getCached());
            part.addProperty("propensity", p.getPropensity());
            part.addProperty("shadow", p.getShadow());
            return part;
        }));
        o.addProperty("feedback_id", a.getFeedbackId());
        o.addProperty("id", a.getId());
        return o;
    }

    private static JsonElement written(Tensor t) {
        JsonObject o = new JsonObject();
        o.addProperty("name", t.getName());
        o.addProperty("type", t.getDataType().name().substring("DATA_TYPE_".length()).toLowerCase());
        o.add("shape", list(t.getShapeList(), JsonPrimitive::new));
        List<JsonElement> values = switch (t.getDataType()) {
            case DATA_TYPE_BOOL -> {
                var out = new ArrayList<JsonElement>();
                for (boolean b : Tensors.toBooleans(t)) {
                    out.add(new JsonPrimitive(b));
                }
                yield out;
            }
            case DATA_TYPE_STRING -> Stream.of(Tensors.toStrings(t)).<JsonElement>map(JsonPrimitive::new).toList();
            case DATA_TYPE_BYTES -> Stream.of(Tensors.toByteStrings(t)).<JsonElement>map(b -> new JsonPrimitive(Base64.getEncoder().encodeToString(b))).toList();
            case DATA_TYPE_FLOAT64, DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16 -> Arrays.stream(Tensors.toDoubles(t)).<JsonElement>mapToObj(JsonPrimitive::new).toList();
            case DATA_TYPE_UINT64 -> Arrays.stream(Tensors.toLongs(t)).<JsonElement>mapToObj(n -> integer(n, Long.compareUnsigned(n, 1L << 53) <= 0, Long.toUnsignedString(n))).toList();
            default -> Arrays.stream(Tensors.toLongs(t)).<JsonElement>mapToObj(n -> integer(n, Math.abs(n) <= 1L << 53 && n != Long.MIN_VALUE, Long.toString(n))).toList();
        };
        o.add("values", list(values, v -> v));
        return o;
    }

    private static JsonElement integer(long n, boolean exact, String text) {
        return exact ? new JsonPrimitive(n) : new JsonPrimitive(text);
    }

    private static JsonElement error(ClipperException e) {
        JsonObject o = new JsonObject();
        o.addProperty("code", e.code().name());
        o.addProperty("reason", e.reason());
        o.addProperty("field", e.field());
        o.addProperty("message", e.getMessage());
        o.addProperty("retry_after_ms", e.retryAfter().map(java.time.Duration::toMillis).orElse(0L));
        return o;
    }

    private static JsonElement json(Message m) {
        try {
            return JsonParser.parseString(JsonFormat.printer().preservingProtoFieldNames().print(m));
        } catch (InvalidProtocolBufferException e) {
            throw new IllegalStateException(e);
        }
    }

    private static <B extends Message.Builder> B read(JsonElement from, B into) throws InvalidProtocolBufferException {
        JsonFormat.parser().merge(from.toString(), into);
        return into;
    }

    private static <T> JsonArray list(List<T> items, Function<? super T, ? extends JsonElement> write) {
        JsonArray out = new JsonArray();
        items.forEach(item -> out.add(write.apply(item)));
        return out;
    }

    private static JsonObject object(String key, JsonElement value) {
        JsonObject o = new JsonObject();
        o.add(key, value);
        return o;
    }

    private static boolean has(JsonObject o, String key) {
        return o.has(key) && !o.get(key).isJsonNull();
    }

    private static String text(JsonObject o, String key) {
        return has(o, key) ? o.get(key).getAsString() : "";
    }

    /** Replaces each "$name" by what was saved. */
    private JsonElement fill(JsonElement v) {
        if (v.isJsonObject()) {
            JsonObject out = new JsonObject();
            v.getAsJsonObject().entrySet().forEach(e -> out.add(e.getKey(), fill(e.getValue())));
            return out;
        }
        if (v.isJsonArray()) {
            return list(v.getAsJsonArray().asList(), this::fill);
        }
        if (v.isJsonPrimitive() && v.getAsJsonPrimitive().isString() && v.getAsString().startsWith("$")) {
            return saved.getOrDefault(v.getAsString().substring(1), v);
        }
        return v;
    }

    /** Returns where what is there does not match what is wanted; "" when it does. */
    private static String mismatch(String path, JsonElement have, JsonElement want) {
        if (want.isJsonObject()) {
            for (var e : want.getAsJsonObject().entrySet()) {
                if (e.getKey().equals("http") || e.getKey().equals("rest_field")) {
                    continue;
                }
                JsonElement item = have.isJsonObject() && have.getAsJsonObject().has(e.getKey()) ? have.getAsJsonObject().get(e.getKey()) : JsonNull.INSTANCE;
                String problem = mismatch(path + "." + e.getKey(), item, e.getValue());
                if (!problem.isEmpty()) {
                    return problem;
                }
            }
            return "";
        }
        if (want.isJsonArray()) {
            List<JsonElement> wanted = want.getAsJsonArray().asList();
            List<JsonElement> there = have.isJsonArray() ? have.getAsJsonArray().asList() : List.of();
            if (!wanted.isEmpty() && wanted.get(0).equals(new JsonPrimitive("$includes"))) {
                for (JsonElement w : wanted.subList(1, wanted.size())) {
                    if (there.stream().noneMatch(h -> mismatch(path, h, w).isEmpty())) {
                        return path + ": nothing of " + have + " is " + w;
                    }
                }
                return "";
            }
            if (wanted.size() != there.size()) {
                return path + ": have " + have + ", want " + want;
            }
            for (int i = 0; i < wanted.size(); i++) {
                String problem = mismatch(path + "[" + i + "]", there.get(i), wanted.get(i));
                if (!problem.isEmpty()) {
                    return problem;
                }
            }
            return "";
        }
        if (want.equals(new JsonPrimitive("$any"))) {
            return isNothing(have) ? path + ": is empty" : "";
        }
        if (isNothing(have) && isNothing(want) || isEqual(have, want)) {
            return "";
        }
        return path + ": have " + have + ", want " + want;
    }

    private static boolean isNothing(JsonElement v) {
        if (!v.isJsonPrimitive()) {
            return v.isJsonNull() || v.isJsonArray() && v.getAsJsonArray().isEmpty();
        }
        JsonPrimitive p = v.getAsJsonPrimitive();
        return p.isString() ? p.getAsString().isEmpty() : p.isBoolean() ? !p.getAsBoolean() : p.getAsDouble() == 0;
    }

    private static boolean isEqual(JsonElement have, JsonElement want) {
        if (have.isJsonPrimitive() && have.getAsJsonPrimitive().isNumber() && want.isJsonPrimitive() && want.getAsJsonPrimitive().isNumber()) {
            return have.getAsDouble() == want.getAsDouble();
        }
        return have.equals(want);
    }
}
