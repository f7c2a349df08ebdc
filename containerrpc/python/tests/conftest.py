# SPDX-License-Identifier: Apache-2.0
import clipper_container  # noqa: F401  # before any test imports gRPC, as in a container
