// SPDX-License-Identifier: Apache-2.0
package dev.clipper;

/**
 * The reasons that {@link ClipperException#reason()} may have. What to do about each is said in docs/errors.md. A newer
 * server may give others.
 */
public final class Reason {
    /** The request body is not well-formed JSON, or has an unknown or repeated key. */
    public static final String MALFORMED_JSON = "MALFORMED_JSON";
    /** A field has a value that is not allowed. */
    public static final String INVALID_FIELD = "INVALID_FIELD";
    /** A required field is missing. */
    public static final String MISSING_FIELD = "MISSING_FIELD";
    /** An input's element type is not the signature's. */
    public static final String INPUT_TYPE = "INPUT_TYPE";
    /** An input's shape or number of elements is not the signature's, or it is empty. */
    public static final String INPUT_SHAPE = "INPUT_SHAPE";
    /** An input holds a value that cannot be used: not a number, infinite, or out of its type's range. */
    public static final String INPUT_VALUE = "INPUT_VALUE";
    /** The request or its input is larger than the limit. */
    public static final String TOO_LARGE = "TOO_LARGE";
    /** No application has this name. */
    public static final String APPLICATION_NOT_FOUND = "APPLICATION_NOT_FOUND";
    /** An application of this name exists. */
    public static final String APPLICATION_EXISTS = "APPLICATION_EXISTS";
    /** No model has this name. */
    public static final String MODEL_NOT_FOUND = "MODEL_NOT_FOUND";
    /** The model has no such version. */
    public static final String VERSION_NOT_FOUND = "VERSION_NOT_FOUND";
    /** The model has this version already; versions are immutable. */
    public static final String VERSION_EXISTS = "VERSION_EXISTS";
    /** The model version is the current one or is used by an application. */
    public static final String IN_USE = "IN_USE";
    /** The model's signature does not fit the application. */
    public static final String SIGNATURE_MISMATCH = "SIGNATURE_MISMATCH";
    /** The selection policy is not known or a parameter of it is out of range. */
    public static final String POLICY_INVALID = "POLICY_INVALID";
    /** Someone else changed the resource since it was read. */
    public static final String CONFLICT = "CONFLICT";
    /** The feedback_id is not one that this installation made. */
    public static final String FEEDBACK_ID_INVALID = "FEEDBACK_ID_INVALID";
    /** The feedback_id is older than the application's feedback lifetime. */
    public static final String FEEDBACK_ID_EXPIRED = "FEEDBACK_ID_EXPIRED";
    /** The feedback_id belongs to another application. */
    public static final String FEEDBACK_ID_APPLICATION = "FEEDBACK_ID_APPLICATION";
    /** The truth or reward is of the wrong kind or out of range. */
    public static final String TRUTH_INVALID = "TRUTH_INVALID";
    /** The deadline had passed, or passed before the call was done. */
    public static final String DEADLINE = "DEADLINE";
    /** More is asked than can be answered in time; {@code retryAfter} says when to come back. */
    public static final String OVERLOADED = "OVERLOADED";
    /** A service or replica that is needed cannot be reached now. */
    public static final String UNAVAILABLE = "UNAVAILABLE";
    /** The store cannot be reached now. */
    public static final String STORE_UNAVAILABLE = "STORE_UNAVAILABLE";
    /** The model refused or failed the query; the message is the container's. */
    public static final String MODEL_FAILED = "MODEL_FAILED";
    /** The model answered something that breaks the container protocol or its own signature. */
    public static final String MODEL_PROTOCOL = "MODEL_PROTOCOL";
    /** An error in Clipper itself; the log has the cause. */
    public static final String INTERNAL = "INTERNAL";
    /** The method or path does not exist. */
    public static final String UNKNOWN_METHOD = "UNKNOWN_METHOD";
    /** The context, a user or session, has no selection state of its own. */
    public static final String CONTEXT_NOT_FOUND = "CONTEXT_NOT_FOUND";
    /** The replica cannot be started as described. */
    public static final String LAUNCH_FAILED = "LAUNCH_FAILED";
    /** The application's custom policy cannot be reached or answers what it must not. */
    public static final String POLICY_FAILED = "POLICY_FAILED";
    /** The application has no canary. */
    public static final String NO_CANARY = "NO_CANARY";
    /** The call has no credentials that are valid. */
    public static final String UNAUTHENTICATED = "UNAUTHENTICATED";
    /** The credentials do not allow the call. */
    public static final String PERMISSION_DENIED = "PERMISSION_DENIED";
    /** The limit of calls is reached; {@code retryAfter} says when to come back. */
    public static final String RATE_LIMITED = "RATE_LIMITED";
    /** No API key has this id. */
    public static final String KEY_NOT_FOUND = "KEY_NOT_FOUND";

    private Reason() {}
}
