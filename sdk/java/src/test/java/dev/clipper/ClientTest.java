// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Duration;
import dev.clipper.v1.Application;
import dev.clipper.v1.ApplicationServiceGrpc;
import dev.clipper.v1.Error;
import dev.clipper.v1.ErrorReason;
import dev.clipper.v1.ExplainSelectionRequest;
import dev.clipper.v1.FeedbackBatchRequest;
import dev.clipper.v1.FeedbackRequest;
import dev.clipper.v1.FeedbackServiceGrpc;
import dev.clipper.v1.GetModelVersionRequest;
import dev.clipper.v1.GetModelVersionResponse;
import dev.clipper.v1.ListApplicationsRequest;
import dev.clipper.v1.ListApplicationsResponse;
import dev.clipper.v1.ModelServiceGrpc;
import dev.clipper.v1.ModelState;
import dev.clipper.v1.ModelVersion;
import dev.clipper.v1.QueryBatchRequest;
import dev.clipper.v1.QueryRequest;
import dev.clipper.v1.QueryResponse;
import dev.clipper.v1.QueryServiceGrpc;
import dev.clipper.v1.QueryStreamRequest;
import dev.clipper.v1.QueryStreamResponse;
import dev.clipper.v1.ReadLogsRequest;
import dev.clipper.v1.ReadLogsResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerBuilder;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.Epoll;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollIoHandler;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(60)
class ClientTest {
    private static final QueryRequest QUERY = QueryRequest.newBuilder().setApplication("a").build();

    private final Fake fake = new Fake();
    private Server server;

    @BeforeEach
    void start() throws IOException {
        server = fake.on(at("127.0.0.1", 0));
    }

    @AfterEach
    void stop() throws InterruptedException {
        server.shutdownNow().awaitTermination();
    }

    private static ServerBuilder<?> at(String host, int port) {
        return NettyServerBuilder.forAddress(new InetSocketAddress(host, port), InsecureServerCredentials.create());
    }

    private ClientBuilder client() {
        return ClipperClient.builder().address("127.0.0.1:" + server.getPort()).adminAddress("127.0.0.1:" + server.getPort());
    }

    static Stream<Arguments> calls() {
        FeedbackRequest plain = FeedbackRequest.newBuilder().setReward(1).build();
        FeedbackRequest named = plain.toBuilder().setId("i").build();
        FeedbackRequest answered = plain.toBuilder().setFeedbackId("f").build();
        return Stream.of(
            call("a query", true, c -> c.query(QUERY)),
            call("a batch", true, c -> c.queryBatch(QueryBatchRequest.getDefaultInstance())),
            call("feedback by its id", true, c -> c.feedback(answered)),
            call("feedback with an id", true, c -> c.feedback(named)),
            call("feedback without", false, c -> c.feedback(plain)),
            call("a batch of feedback", true, c -> c.feedbackBatch(FeedbackBatchRequest.newBuilder().addItems(answered).addItems(named).build())),
            call("a batch of some without", false, c -> c.feedbackBatch(FeedbackBatchRequest.newBuilder().addItems(answered).addItems(plain).build())),
            call("a read", true, c -> c.getApplication("a")),
            call("a list", true, c -> c.listModels(1)),
            call("an explanation", true, c -> c.call(ApplicationServiceGrpc.getExplainSelectionMethod(), ExplainSelectionRequest.getDefaultInstance())),
            call("a change", false, c -> c.deleteApplication("a")));
    }

    private static Arguments call(String name, boolean safe, Consumer<ClipperClient> call) {
        return Arguments.of(name, safe, call);
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("calls")
    void whatIsSafeIsRepeatedAndNothingElse(String name, boolean safe, Consumer<ClipperClient> call) {
        fake.refusal = Status.UNAVAILABLE.withDescription("not now");
        try (ClipperClient c = client().attempts(3).build()) {
            ClipperException e = assertThrows(ClipperException.class, () -> call.accept(c));
            assertEquals(Reason.UNAVAILABLE, e.reason());
            assertEquals("not now", e.getMessage());
        }
        assertEquals(safe ? 3 : 1, fake.headers.size());
    }

    @Test
    void otherErrorsAreNotRepeated() {
        fake.refusal = Status.RESOURCE_EXHAUSTED;
        try (ClipperClient c = client().build()) {
            ClipperException e = assertThrows(ClipperException.class, () -> c.query(QUERY));
            assertEquals(Status.Code.RESOURCE_EXHAUSTED, e.code());
            assertEquals("", e.reason());
            assertTrue(Arrays.stream(e.getStackTrace()).anyMatch(at -> at.getClassName().equals(ClientTest.class.getName())), "the stack is the caller's");
        }
        assertEquals(1, fake.headers.size());
    }

    @Test
    void theKeyAndTheUserAgentAreSentAndInterceptorsSeeEachAttempt() {
        var seen = new ArrayList<String>();
        fake.failures.set(1);
        try (ClipperClient c = client().apiKey("secret").intercept(log(seen, "first"), log(seen, "second")).build()) {
            c.query(QUERY);
        }
        assertEquals(List.of("first null", "second null", "first null", "second null"), seen);
        for (Metadata h : fake.headers) {
            assertEquals("Bearer secret", h.get(key("authorization")));
            assertTrue(h.get(key("user-agent")).startsWith("clipper-java/" + ClipperClient.VERSION + " "));
        }
    }

    /** Keeps who saw a call, and the key that it saw. */
    private static ClientInterceptor log(List<String> seen, String name) {
        return new ClientInterceptor() {
            @Override
            public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
                return new SimpleForwardingClientCall<Q, R>(next.newCall(method, options)) {
                    @Override
                    public void start(Listener<R> listener, Metadata headers) {
                        seen.add(name + " " + headers.get(key("authorization")));
                        super.start(listener, headers);
                    }
                };
            }
        };
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }

    @ParameterizedTest
    @ValueSource(strings = {"clipper.example:1347", "10.0.0.1:1347", "localhost.example:1347", "127.0.0.1.example:1347"})
    void aKeyIsNotSentWithoutTlsToAnotherMachine(String address) {
        String message = assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().address(address).apiKey("k").build()).getMessage();
        assertTrue(message.contains("without TLS"), message);
        assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().adminAddress(address).apiKey("k").build());
        ClipperClient.builder().address(address).apiKey("k").tls().build().close();
    }

    @ParameterizedTest
    @ValueSource(strings = {"127.0.0.1:1347", "127.1.2.3:1", "localhost:1347", "[::1]:1347"})
    void aKeyIsSentOnThisMachine(String address) {
        ClipperClient.builder().address(address).apiKey("k").build().close();
    }

    @Test
    void configurationsThatCannotBeUsedAreRefused(@TempDir Path dir) throws IOException {
        Path file = Files.writeString(dir.resolve("ca.pem"), "no certificate");
        for (ClientBuilder b : List.of(
            ClipperClient.builder().caFile(dir.resolve("none.pem")),
            ClipperClient.builder().caFile(file),
            ClipperClient.builder().clientCertificate(file, file),
            ClipperClient.builder().timeout(java.time.Duration.ZERO),
            ClipperClient.builder().address("a b"))) {
            assertThrows(IllegalArgumentException.class, b::build);
        }
        String message = assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().caFile(file).build()).getMessage();
        assertTrue(message.contains(file + " has no certificate"), message);
        assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().attempts(0));
        assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().apiKey("a\nb"));
        assertThrows(IllegalArgumentException.class, () -> ClipperClient.builder().apiKey(""));
    }

    @Test
    void deadlines() {
        QueryRequest patient = QUERY.toBuilder().setTimeout(Duration.newBuilder().setSeconds(100)).build();
        QueryRequest forEver = QUERY.toBuilder().setTimeout(Duration.newBuilder().setSeconds(300_000_000_000L)).build();
        try (ClipperClient c = client().timeout(java.time.Duration.ofSeconds(500)).build()) {
            c.query(QUERY);
            c.query(patient);
            c.withTimeout(java.time.Duration.ofSeconds(50)).query(patient);
            c.query(forEver);
        }
        long[] most = {500, 101, 50, TimeUnit.DAYS.toSeconds(365) + 1};
        for (int i = 0; i < most.length; i++) {
            long have = fake.deadlines.get(i);
            assertTrue(have <= most[i] && have > most[i] - 45, "call " + i + " has " + have + " s, not " + most[i]);
        }
    }

    @Test
    void anAnswerCountsWithItsStatusOnly() {
        try (ClipperClient c = client().build()) {
            ClipperException e = assertThrows(ClipperException.class, () -> c.query("answer and error"));
            assertEquals(Status.Code.DATA_LOSS, e.code());
        }
        try (ClipperClient c = client().intercept(new Deaf()).build()) {
            assertEquals(Status.Code.INTERNAL, assertThrows(ClipperException.class, () -> c.query("a")).code());
        }
    }

    @Test
    void theCallsOwnDeadlineIsADeadline() {
        fake.silent = true;
        try (ClipperClient c = client().timeout(java.time.Duration.ofMillis(30)).build()) {
            ClipperException e = assertThrows(ClipperException.class, () -> c.query(QUERY));
            assertEquals(Reason.DEADLINE, e.reason());
            assertEquals("no answer within 30 ms", e.getMessage());
        }
    }

    @Test
    void cancelledAtTheDeadlineIsADeadline() {
        fake.refusal = Status.CANCELLED;
        try (ClipperClient c = client().build()) {
            assertEquals(Status.Code.CANCELLED, assertThrows(ClipperException.class, () -> c.query(QUERY)).code());
            assertEquals(Status.Code.DEADLINE_EXCEEDED, assertThrows(ClipperException.class, () -> c.withTimeout(java.time.Duration.ofMillis(45)).query(QUERY)).code());
        }
    }

    @Test
    void cancellingAFutureCancelsTheCall() throws Exception {
        fake.silent = true;
        try (AsyncClipperClient c = client().buildAsync()) {
            var call = c.query(QUERY);
            fake.arrived.take();
            call.cancel(true);
            fake.cancelled.await();
        }
    }

    @Test
    void interruptingAThreadCancelsItsCall() throws Exception {
        fake.silent = true;
        var thrown = new LinkedBlockingQueue<Object>();
        try (ClipperClient c = client().build()) {
            var thread = new Thread(() -> {
                try {
                    c.query(QUERY);
                } catch (ClipperException e) {
                    thrown.add(e.code() + " " + Thread.currentThread().isInterrupted());
                }
            });
            thread.start();
            fake.arrived.take();
            thread.interrupt();
            assertEquals("CANCELLED true", thrown.take());
            fake.cancelled.await();
        }
    }

    @Test
    void aStreamGivesEachQueryItsAnswer() throws Exception {
        try (ClipperClient c = client().build(); QueryStream stream = c.stream()) {
            var first = stream.queryAsync(QUERY.toBuilder().setId("hold").build()); // Answered after the next.
            assertEquals("second", stream.query(QUERY.toBuilder().setId("second").build()).getId());
            assertEquals("hold", first.get().getId());
            ClipperException e = assertThrows(ClipperException.class, () -> stream.query(QUERY.toBuilder().setId("bad").build()));
            assertEquals(Reason.INPUT_TYPE, e.reason());
            assertEquals(java.time.Duration.ofMillis(12), e.retryAfter().orElseThrow());
        }
    }

    @Test
    void aStreamThatIsOverFailsItsQueries() {
        try (ClipperClient c = client().build()) {
            QueryStream ended = c.stream();
            assertEquals(Reason.UNAVAILABLE, assertThrows(ClipperException.class, () -> ended.query(QUERY.toBuilder().setId("end").build())).reason());
            assertEquals(Reason.UNAVAILABLE, assertThrows(ClipperException.class, () -> ended.query(QUERY)).reason());
            QueryStream closed = c.stream();
            var held = closed.queryAsync(QUERY.toBuilder().setId("hold").build());
            closed.close();
            assertEquals(Status.Code.CANCELLED, ((ClipperException) assertThrows(ExecutionException.class, held::get).getCause()).code());
            assertEquals(Status.Code.CANCELLED, assertThrows(ClipperException.class, () -> closed.query(QUERY)).code());
        }
    }

    @Test
    void streamsOfTheServerAreReceived() {
        try (ClipperClient c = client().build()) {
            var lines = new ArrayList<ReadLogsResponse>();
            c.receive(ModelServiceGrpc.getReadLogsMethod(), ReadLogsRequest.getDefaultInstance(), lines::add);
            assertEquals(3, lines.size());
            var mine = new IllegalStateException("enough");
            assertSame(mine, assertThrows(IllegalStateException.class, () -> c.receive(ModelServiceGrpc.getReadLogsMethod(), ReadLogsRequest.getDefaultInstance(), line -> {
                throw mine;
            })));
            assertThrows(IllegalArgumentException.class, () -> c.receive(QueryServiceGrpc.getQueryMethod(), QUERY, answer -> { }));
            assertThrows(IllegalArgumentException.class, () -> c.call(QueryServiceGrpc.getQueryStreamMethod(), QueryStreamRequest.getDefaultInstance()));
        }
    }

    @Test
    void listsAreOfAllPages() {
        try (ClipperClient c = client().build()) {
            assertEquals(List.of("app-", "app-1", "app-2"), c.listApplications(1).stream().map(Application::getName).toList());
        }
    }

    @Test
    void aModelThatIsNotReadySaysWhy() {
        try (ClipperClient c = client().build()) {
            fake.states.addAll(List.of(ModelState.MODEL_STATE_STARTING, ModelState.MODEL_STATE_READY));
            assertEquals(ModelState.MODEL_STATE_READY, c.waitModelReady("m", "1", java.time.Duration.ofMinutes(1)).getState());
            fake.states.add(ModelState.MODEL_STATE_FAILED);
            ClipperException e = assertThrows(ClipperException.class, () -> c.waitModelReady("m", "1", java.time.Duration.ofMinutes(1)));
            assertEquals("m 1 cannot serve: so it is", e.getMessage());
            fake.states.add(ModelState.MODEL_STATE_STARTING);
            assertEquals(Reason.DEADLINE, assertThrows(ClipperException.class, () -> c.waitModelReady("m", "1", java.time.Duration.ZERO)).reason());
        }
    }

    @Test
    void aServerThatComesBackIsFound() throws Exception {
        try (ClipperClient c = client().attempts(1).build()) {
            c.query(QUERY);
            int port = server.getPort();
            server.shutdownNow().awaitTermination();
            // The first may still be told that the connection ends; then there is no other, and the error says to where.
            while (!assertThrows(ClipperException.class, () -> c.query(QUERY)).getMessage().contains("127.0.0.1:" + port)) {
                Thread.yield();
            }
            server = fake.on(at("127.0.0.1", port));
            for (boolean found = false; !found;) {
                try {
                    c.query(QUERY);
                    found = true;
                } catch (ClipperException e) {
                    assertEquals(Reason.UNAVAILABLE, e.reason());
                    Thread.yield();
                }
            }
        }
    }

    @Test
    void addressesOfIpv6() throws Exception {
        Server local = null;
        try {
            local = fake.on(at("::1", 0));
        } catch (IOException e) {
            Assumptions.abort("this machine has no IPv6");
        }
        try (ClipperClient c = ClipperClient.builder().address("[::1]:" + local.getPort()).build()) {
            c.query(QUERY);
        } finally {
            local.shutdownNow().awaitTermination();
        }
    }

    @Test
    void socketsOfUnix(@TempDir Path dir) throws Exception {
        Assumptions.assumeTrue(Epoll.isAvailable());
        String path = dir.resolve("socket").toString();
        var loops = new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory());
        Server local = fake.on(NettyServerBuilder.forAddress(new DomainSocketAddress(path), InsecureServerCredentials.create())
            .channelType(EpollServerDomainSocketChannel.class).bossEventLoopGroup(loops).workerEventLoopGroup(loops));
        try (ClipperClient c = ClipperClient.builder().address("unix:" + path).apiKey("k").build()) {
            c.query(QUERY);
        } finally {
            local.shutdownNow().awaitTermination();
            loops.shutdownGracefully(0, 0, TimeUnit.SECONDS).await();
        }
    }

    @Test
    void theVersionIsThatOfThePackage() {
        assertEquals(System.getProperty("project.version"), ClipperClient.VERSION);
    }

    @Test
    void everyReasonHasAName() throws ReflectiveOperationException {
        for (ErrorReason r : ErrorReason.values()) {
            if (r != ErrorReason.UNRECOGNIZED && r != ErrorReason.ERROR_REASON_UNSPECIFIED) {
                String name = r.name().substring("ERROR_REASON_".length());
                assertEquals(name, Reason.class.getField(name).get(null));
            }
        }
    }

    @Test
    void itemsOfBatchesHaveAValueOrAnError() {
        assertEquals(1, new Result<>(1, null).get());
        ClipperException e = ClipperException.of(Error.newBuilder().setCode(3).setReasonValue(9999).setField("queries[1]").build());
        var failed = new Result<Integer>(null, e);
        assertEquals("9999", e.reason());
        assertEquals("queries[1]", assertThrows(ClipperException.class, failed::get).field());
        assertNull(failed.value());
    }

    /** Lets no answer through. */
    private static final class Deaf implements ClientInterceptor {
        @Override
        public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            return new SimpleForwardingClientCall<Q, R>(next.newCall(method, options)) {
                @Override
                public void start(Listener<R> listener, Metadata headers) {
                    super.start(new SimpleForwardingClientCallListener<R>(listener) {
                        @Override
                        public void onMessage(R message) {}
                    }, headers);
                }
            };
        }
    }

    /** A Clipper that answers as it is told, and keeps what it was asked. */
    private static final class Fake implements ServerInterceptor {
        final List<Metadata> headers = new ArrayList<>();
        final List<Long> deadlines = new ArrayList<>();
        final BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        final CountDownLatch cancelled = new CountDownLatch(1);
        final AtomicInteger failures = new AtomicInteger(); // How many calls fail first.
        final List<ModelState> states = new ArrayList<>(); // What the next looks at a version see.
        volatile Status refusal; // What every call is answered with; null for none.
        volatile boolean silent; // Queries have no answer.

        Server on(ServerBuilder<?> b) throws IOException {
            return b.intercept(this).addService(queries).addService(feedback).addService(applications).addService(models).build().start();
        }

        @Override
        public <Q, R> ServerCall.Listener<Q> interceptCall(ServerCall<Q, R> call, Metadata h, ServerCallHandler<Q, R> next) {
            synchronized (this) {
                headers.add(h);
                if (Context.current().getDeadline() != null) {
                    deadlines.add(Context.current().getDeadline().timeRemaining(TimeUnit.SECONDS));
                }
            }
            Status status = failures.getAndUpdate(n -> Math.max(n - 1, 0)) > 0 ? Status.UNAVAILABLE : refusal;
            if (status != null) {
                call.close(status, new Metadata());
                return new ServerCall.Listener<Q>() {};
            }
            return Contexts.interceptCall(Context.current(), call, h, next);
        }

        private final QueryServiceGrpc.QueryServiceImplBase queries = new QueryServiceGrpc.QueryServiceImplBase() {
            @Override
            public void query(QueryRequest request, StreamObserver<QueryResponse> answer) {
                if (silent) {
                    ((ServerCallStreamObserver<QueryResponse>) answer).setOnCancelHandler(cancelled::countDown);
                    arrived.add("query");
                    return;
                }
                answer.onNext(QueryResponse.getDefaultInstance());
                if (request.getApplication().equals("answer and error")) {
                    answer.onError(Status.DATA_LOSS.asException());
                    return;
                }
                answer.onCompleted();
            }

            @Override
            public StreamObserver<QueryStreamRequest> queryStream(StreamObserver<QueryStreamResponse> answers) {
                return new StreamObserver<>() {
                    private QueryStreamResponse held;

                    @Override
                    public void onNext(QueryStreamRequest q) {
                        var r = QueryStreamResponse.newBuilder().setSequence(q.getSequence());
                        r.getResultBuilder().getResponseBuilder().setId(q.getQuery().getId());
                        switch (q.getQuery().getId()) {
                            case "hold" -> held = r.build();
                            case "end" -> answers.onCompleted();
                            case "bad" -> {
                                r.getResultBuilder().setError(Error.newBuilder().setCode(3).setReason(ErrorReason.ERROR_REASON_INPUT_TYPE)
                                    .setRetryAfter(Duration.newBuilder().setNanos(12_000_000)));
                                answers.onNext(r.build());
                            }
                            default -> {
                                answers.onNext(r.build());
                                if (held != null) {
                                    answers.onNext(held);
                                }
                            }
                        }
                    }

                    @Override
                    public void onError(Throwable e) {}

                    @Override
                    public void onCompleted() {}
                };
            }
        };

        private final FeedbackServiceGrpc.FeedbackServiceImplBase feedback = new FeedbackServiceGrpc.FeedbackServiceImplBase() {};

        private final ApplicationServiceGrpc.ApplicationServiceImplBase applications = new ApplicationServiceGrpc.ApplicationServiceImplBase() {
            @Override
            public void listApplications(ListApplicationsRequest request, StreamObserver<ListApplicationsResponse> answer) {
                String next = switch (request.getPageToken()) {
                    case "" -> "1";
                    case "1" -> "2";
                    default -> "";
                };
                answer.onNext(ListApplicationsResponse.newBuilder().setNextPageToken(next)
                    .addApplications(Application.newBuilder().setName("app-" + request.getPageToken())).build());
                answer.onCompleted();
            }
        };

        private final ModelServiceGrpc.ModelServiceImplBase models = new ModelServiceGrpc.ModelServiceImplBase() {
            @Override
            public void getModelVersion(GetModelVersionRequest request, StreamObserver<GetModelVersionResponse> answer) {
                answer.onNext(GetModelVersionResponse.newBuilder().setVersion(ModelVersion.newBuilder().setState(states.remove(0)).setStateMessage("so it is")).build());
                answer.onCompleted();
            }

            @Override
            public void readLogs(ReadLogsRequest request, StreamObserver<ReadLogsResponse> lines) {
                for (int i = 0; i < 3; i++) {
                    lines.onNext(ReadLogsResponse.getDefaultInstance());
                }
                lines.onCompleted();
            }
        };
    }
}
