// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import dev.clipper.v1.QueryRequest;
import dev.clipper.v1.QueryResponse;
import dev.clipper.v1.QueryServiceGrpc;
import dev.clipper.v1.QueryStreamRequest;
import dev.clipper.v1.QueryStreamResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Status;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Asks over one stream, which costs less than a call each. Any thread may ask, and each query gets its own answer. The stream
 * lasts until it is closed or broken; a broken stream is not opened again, a new one is.
 */
public final class QueryStream implements AutoCloseable {
    private final Map<Long, CompletableFuture<QueryResponse>> waiting = new ConcurrentHashMap<>();
    private final ClientCall<QueryStreamRequest, QueryStreamResponse> call;
    private final StreamObserver<QueryStreamRequest> queries;
    private long last;
    private ClipperException end; // Of the stream; null while it lasts.

    QueryStream(Channel channel) {
        call = channel.newCall(QueryServiceGrpc.getQueryStreamMethod(), CallOptions.DEFAULT);
        queries = ClientCalls.asyncBidiStreamingCall(call, new StreamObserver<QueryStreamResponse>() {
            @Override
            public void onNext(QueryStreamResponse r) {
                CompletableFuture<QueryResponse> answer = waiting.remove(r.getSequence());
                if (answer == null) {
                    return; // Cancelled.
                }
                if (r.getResult().hasError()) {
                    answer.completeExceptionally(ClipperException.of(r.getResult().getError()));
                } else {
                    answer.complete(r.getResult().getResponse());
                }
            }

            @Override
            public void onError(Throwable e) {
                finish(Caller.toError(e));
            }

            @Override
            public void onCompleted() {
                finish(ClipperException.of(Status.Code.UNAVAILABLE, "the server has ended the stream: open another one"));
            }
        });
    }

    /**
     * Asks and waits for the answer. The time that the query gives itself, and the application's objective, hold as in a call of
     * its own.
     *
     * @throws ClipperException the query's error, or the stream's
     */
    public QueryResponse query(QueryRequest request) {
        return Caller.await(queryAsync(request));
    }

    /** As {@link #query}, without waiting. What is asked faster than the server reads is kept in memory. */
    public CompletableFuture<QueryResponse> queryAsync(QueryRequest request) {
        var answer = new CompletableFuture<QueryResponse>();
        synchronized (this) {
            if (end != null) {
                return CompletableFuture.failedFuture(end);
            }
            long sequence = ++last;
            waiting.put(sequence, answer);
            answer.whenComplete((value, error) -> waiting.remove(sequence));
            queries.onNext(QueryStreamRequest.newBuilder().setSequence(sequence).setQuery(request).build());
        }
        return answer;
    }

    /** Ends the stream; queries without an answer fail. */
    @Override
    public void close() {
        finish(ClipperException.of(Status.Code.CANCELLED, "the stream was closed"));
        call.cancel("closed", null);
    }

    private void finish(ClipperException e) {
        synchronized (this) {
            if (end == null) {
                end = e;
            }
        }
        List.copyOf(waiting.values()).forEach(answer -> answer.completeExceptionally(e));
    }
}
