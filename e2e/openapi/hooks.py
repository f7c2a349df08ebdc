# SPDX-License-Identifier: Apache-2.0
"""What a request that fits the description may be refused for all the same."""

import schemathesis

# What no description can say: it is up to the application's signature, or to what there is already.
RULES = {
    "FEEDBACK_ID_INVALID",
    "INPUT_SHAPE",
    "INPUT_TYPE",
    "INPUT_VALUE",
    "INVALID_FIELD",
    "IN_USE",
    "LAUNCH_FAILED",
    "MISSING_FIELD",
    "NO_CANARY",
    "POLICY_FAILED",
    "POLICY_INVALID",
    "SIGNATURE_MISMATCH",
    "TRUTH_INVALID",
}


@schemathesis.check
def understood(ctx, response, case):
    """Data that fits the description is understood: if it is refused, then for a rule."""
    if response.status_code != 400 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    reason = response.json().get("reason")
    if reason not in RULES:
        raise AssertionError(f"valid data was refused with the reason {reason}: {response.text}")
