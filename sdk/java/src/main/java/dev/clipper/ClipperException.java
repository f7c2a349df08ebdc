// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.clipper.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** Why a call, or one item of a batch or stream, failed. */
public final class ClipperException extends RuntimeException {
    private static final String PREFIX = "ERROR_REASON_";

    private final Status.Code code;
    private final String reason;
    private final String field;
    private final Duration retryAfter;

    private ClipperException(Status.Code code, String reason, String message, String field, Duration retryAfter, Throwable cause, boolean trace) {
        super(message, cause, true, trace);
        this.code = code;
        this.reason = reason;
        this.field = field;
        this.retryAfter = retryAfter;
    }

    /** Returns the gRPC code, the class of the error. */
    public Status.Code code() {
        return code;
    }

    /** Returns the cause, one of {@link Reason} or a newer server's; "" when the error does not come from Clipper and says none. */
    public String reason() {
        return reason;
    }

    /** Returns the path of the request's field at fault; "" when there is none. */
    public String field() {
        return field;
    }

    /** Returns the time after which a repetition may succeed, where that is known. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    @Override
    public String toString() {
        return getClass().getName() + ": " + (reason.isEmpty() ? code : reason) + ": " + getMessage();
    }

    /** Returns the same error with the stack of the caller: one that comes from another thread has none. */
    ClipperException here() {
        return new ClipperException(code, reason, getMessage(), field, retryAfter, getCause(), true);
    }

    static ClipperException of(Status.Code code, String message) {
        return new ClipperException(code, reasonOf(code), message, "", null, null, false);
    }

    /** Returns the error of an item. */
    static ClipperException of(dev.clipper.v1.Error e) {
        String reason = "";
        if (e.getReason() != ErrorReason.ERROR_REASON_UNSPECIFIED) {
            reason = e.getReason() == ErrorReason.UNRECOGNIZED ? String.valueOf(e.getReasonValue()) : e.getReason().name().substring(PREFIX.length());
        }
        return new ClipperException(Status.fromCodeValue(e.getCode()).getCode(), reason, e.getMessage(), e.getField(),
            e.hasRetryAfter() ? duration(e.getRetryAfter()) : null, null, false);
    }

    /** Reads a status. One of a call that was not answered has no details: then the code says the reason. */
    static ClipperException of(Status status, Metadata trailers) {
        String reason = reasonOf(status.getCode());
        String field = "";
        Duration retryAfter = null;
        for (Any detail : details(status, trailers)) {
            try {
                if (detail.is(ErrorInfo.class)) {
                    ErrorInfo info = detail.unpack(ErrorInfo.class);
                    if (info.getDomain().equals("clipper.dev")) {
                        reason = info.getReason();
                        field = info.getMetadataOrDefault("field", "");
                    }
                } else if (detail.is(RetryInfo.class)) {
                    retryAfter = duration(detail.unpack(RetryInfo.class).getRetryDelay());
                }
            } catch (InvalidProtocolBufferException ignored) {
                // A detail that cannot be read says nothing; the code and the message still do.
            }
        }
        String message = status.getDescription() == null ? "" : status.getDescription();
        if (status.getCause() != null && status.getCause().getMessage() != null) {
            message += ": " + status.getCause().getMessage();
        }
        return new ClipperException(status.getCode(), reason, message, field, retryAfter, status.getCause(), false);
    }

    private static List<Any> details(Status status, Metadata trailers) {
        try {
            return StatusProto.fromStatusAndTrailers(status, trailers).getDetailsList();
        } catch (RuntimeException ignored) {
            return List.of(); // What is not a status, or another one's.
        }
    }

    private static String reasonOf(Status.Code code) {
        return switch (code) {
            case DEADLINE_EXCEEDED -> Reason.DEADLINE;
            case UNAVAILABLE -> Reason.UNAVAILABLE;
            default -> "";
        };
    }

    private static Duration duration(com.google.protobuf.Duration d) {
        return Duration.ofSeconds(d.getSeconds(), d.getNanos());
    }
}
