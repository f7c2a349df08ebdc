// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import dev.clipper.v1.FeedbackBatchRequest;
import dev.clipper.v1.FeedbackRequest;
import dev.clipper.v1.QueryBatchRequest;
import dev.clipper.v1.QueryRequest;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.Stream;

/** Makes calls: deadlines, repetitions, errors. */
final class Caller {
    /** The mean wait before the first repetition; it doubles each time, up to the longest. */
    private static final long FIRST_DELAY_MS = 50;
    private static final long LONGEST_DELAY_MS = 1000;
    /** How much longer a query may take than its timeout, so that the default output, which the server gives at that time, arrives. */
    private static final Duration ANSWER_GRACE = Duration.ofSeconds(1);
    /** The server may notice a deadline this much before us, and end the call. */
    private static final long DEADLINE_SLACK_MS = 50;
    /** Longer is as good as for ever, and fits the clock's nanoseconds. */
    private static final Duration LONGEST = Duration.ofDays(365);

    private static final System.Logger LOG = System.getLogger("dev.clipper");

    private final Duration timeout;
    private final boolean explicit;
    private final int attempts;

    /**
     * A caller.
     *
     * @param explicit the timeout was asked for, so a query's own does not replace it
     */
    Caller(Duration timeout, boolean explicit, int attempts) {
        if (timeout.isNegative() || timeout.isZero()) {
            throw new IllegalArgumentException("the timeout is " + timeout + "; it must be more than 0");
        }
        this.timeout = timeout;
        this.explicit = explicit;
        this.attempts = attempts;
    }

    Caller withTimeout(Duration timeout) {
        return new Caller(timeout, true, attempts);
    }

    /** Makes a call, and repeats it while that is safe and may help. Cancelling the future cancels the call. */
    <Q, R, T> CompletableFuture<T> unary(Channel channel, MethodDescriptor<Q, R> method, Q request, Function<? super R, ? extends T> read) {
        var call = new Unary<Q, R, T>(channel, method, request, read, limit(request));
        call.result.whenComplete((value, error) -> call.cancel());
        call.run();
        return call.result;
    }

    /** Gives each message of a stream to a function; the future ends with the stream. */
    <Q, R> CompletableFuture<Void> receive(Channel channel, MethodDescriptor<Q, R> method, Q request, Consumer<? super R> each) {
        var result = new CompletableFuture<Void>();
        CallOptions options = explicit ? CallOptions.DEFAULT.withDeadline(deadline(timeout)) : CallOptions.DEFAULT;
        ClientCall<Q, R> call = channel.newCall(method, options);
        ClientCalls.asyncServerStreamingCall(call, request, new StreamObserver<R>() {
            @Override
            public void onNext(R message) {
                try {
                    if (!result.isDone()) {
                        each.accept(message);
                    }
                } catch (Throwable e) { // The caller's own, which gets it back.
                    result.completeExceptionally(e);
                }
            }

            @Override
            public void onError(Throwable e) {
                result.completeExceptionally(toError(e));
            }

            @Override
            public void onCompleted() {
                result.complete(null);
            }
        });
        result.whenComplete((value, error) -> call.cancel("nobody reads any more", null));
        return result;
    }

    /** Reads what gRPC says of a call that failed. */
    static ClipperException toError(Throwable e) {
        if (e instanceof StatusRuntimeException s) {
            return ClipperException.of(s.getStatus(), trailers(s.getTrailers()));
        }
        if (e instanceof StatusException s) {
            return ClipperException.of(s.getStatus(), trailers(s.getTrailers()));
        }
        return ClipperException.of(Status.fromThrowable(e), new Metadata());
    }

    /** Waits for a call. A thread that is interrupted cancels it. */
    static <T> T await(CompletableFuture<T> call) {
        try {
            return call.get();
        } catch (InterruptedException e) {
            call.cancel(true);
            Thread.currentThread().interrupt();
            throw ClipperException.of(Status.Code.CANCELLED, "the thread was interrupted").here();
        } catch (CancellationException e) {
            throw ClipperException.of(Status.Code.CANCELLED, "the call was cancelled").here();
        } catch (java.util.concurrent.ExecutionException e) {
            if (e.getCause() instanceof ClipperException c) {
                throw c.here();
            }
            if (e.getCause() instanceof RuntimeException r) {
                throw r;
            }
            throw new IllegalStateException(e.getCause());
        }
    }

    private static Metadata trailers(Metadata m) {
        return m == null ? new Metadata() : m;
    }

    private static Deadline deadline(Duration d) {
        return Deadline.after((d.compareTo(LONGEST) < 0 ? d : LONGEST).toNanos(), TimeUnit.NANOSECONDS);
    }

    private Duration limit(Object request) {
        if (!explicit) {
            if (request instanceof QueryRequest q && q.hasTimeout()) {
                return limit(q.getTimeout());
            }
            if (request instanceof QueryBatchRequest q && q.hasTimeout()) {
                return limit(q.getTimeout());
            }
        }
        return timeout;
    }

    private Duration limit(com.google.protobuf.Duration own) {
        Duration d = Duration.ofSeconds(Math.min(own.getSeconds(), LONGEST.toSeconds()), own.getNanos());
        return d.isNegative() || d.isZero() ? timeout : d.plus(ANSWER_GRACE);
    }

    /** Says whether a call that may have been carried out can be made again. */
    private static boolean isSafe(MethodDescriptor<?, ?> method, Object request) {
        if (request instanceof QueryRequest || request instanceof QueryBatchRequest) {
            return true;
        }
        if (request instanceof FeedbackRequest f) {
            return countsOnce(f);
        }
        if (request instanceof FeedbackBatchRequest f) {
            return f.getItemsList().stream().allMatch(Caller::countsOnce);
        }
        return Stream.of("Get", "List", "Explain").anyMatch(method.getBareMethodName()::startsWith);
    }

    private static boolean countsOnce(FeedbackRequest f) {
        return !f.getFeedbackId().isEmpty() || !f.getId().isEmpty();
    }

    /**
     * Returns how long to wait after an attempt: between half and all of a time that doubles, so that clients do not come back
     * together, and no less than the server asks for.
     */
    private static long delayMs(int attempt, Duration least) {
        long d = Math.min(FIRST_DELAY_MS << Math.min(attempt - 1, 10), LONGEST_DELAY_MS);
        return Math.max(d / 2 + ThreadLocalRandom.current().nextLong(d / 2), least.toMillis());
    }

    /** One call with its repetitions, one after the other. */
    private final class Unary<Q, R, T> implements Runnable, StreamObserver<R> {
        final CompletableFuture<T> result = new CompletableFuture<>();
        private final Channel channel;
        private final MethodDescriptor<Q, R> method;
        private final Q request;
        private final Function<? super R, ? extends T> read;
        private final Duration limit;
        private final Deadline deadline;
        private final boolean safe;
        private int attempt;
        private R answer;
        private volatile ClientCall<Q, R> current;

        Unary(Channel channel, MethodDescriptor<Q, R> method, Q request, Function<? super R, ? extends T> read, Duration limit) {
            this.channel = channel;
            this.method = method;
            this.request = request;
            this.read = read;
            this.limit = limit;
            deadline = deadline(limit);
            safe = isSafe(method, request);
        }

        /** Makes an attempt. */
        @Override
        public void run() {
            if (result.isDone()) {
                return;
            }
            attempt++;
            answer = null;
            try {
                ClientCall<Q, R> call = channel.newCall(method, CallOptions.DEFAULT.withDeadline(deadline));
                ClientCalls.asyncUnaryCall(call, request, this);
                current = call; // Only now, since a call that is cancelled cannot be started.
            } catch (RuntimeException e) { // Of an interceptor.
                result.completeExceptionally(e);
            }
            cancel();
        }

        /** Ends the call under way when its result is not wanted any more. */
        void cancel() {
            ClientCall<Q, R> call = current;
            if (result.isCancelled() && call != null) {
                call.cancel("the caller cancelled the call", null);
            }
        }

        @Override
        public void onNext(R message) {
            answer = message;
        }

        /** The answer counts only now: its status may be an error. */
        @Override
        public void onCompleted() {
            if (answer == null) {
                onError(Status.INTERNAL.withDescription("the server has ended the call without an answer").asException());
                return;
            }
            try {
                result.complete(read.apply(answer));
            } catch (RuntimeException e) {
                result.completeExceptionally(e);
            }
        }

        @Override
        public void onError(Throwable thrown) {
            ClipperException e = toError(thrown);
            long wait = delayMs(attempt, e.retryAfter().orElse(Duration.ZERO));
            if (e.code() == Status.Code.UNAVAILABLE && safe && attempt < attempts && !result.isDone() && deadline.timeRemaining(TimeUnit.MILLISECONDS) > wait) {
                LOG.log(Level.WARNING, () -> method.getFullMethodName() + " is repeated after attempt " + attempt + ": " + e.getMessage());
                CompletableFuture.delayedExecutor(wait, TimeUnit.MILLISECONDS).execute(this);
                return;
            }
            LOG.log(Level.DEBUG, () -> method.getFullMethodName() + " failed at attempt " + attempt + ": " + e);
            result.completeExceptionally(ranOut(e) ? ClipperException.of(Status.Code.DEADLINE_EXCEEDED, "no answer within " + limit.toMillis() + " ms") : e);
        }

        /** Says whether the call ended for our deadline, not for what the server says. */
        private boolean ranOut(ClipperException e) {
            return switch (e.code()) {
                case CANCELLED -> deadline.timeRemaining(TimeUnit.MILLISECONDS) < DEADLINE_SLACK_MS;
                case DEADLINE_EXCEEDED -> deadline.isExpired();
                default -> false;
            };
        }
    }
}
