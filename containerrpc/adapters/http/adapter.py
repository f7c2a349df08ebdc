# SPDX-License-Identifier: Apache-2.0
"""Serves a model that an HTTP endpoint answers for in JSON: one POST for each batch, over connections that are kept.

HTTP_URL is the endpoint. HTTP_REQUEST is the body, with $rows where the rows go; HTTP_RESPONSE the key of the predictions in the
answer, empty when the answer is the list itself. HTTP_TIMEOUT is the time that a batch may take, in seconds, 30 by default.
"""

import json
from os import environ as env

from clipper_container import RowError, serve


class HTTP:
    expects = "HTTP_URL, an http:// or https:// address, HTTP_REQUEST in JSON with $rows, and HTTP_TIMEOUT in seconds"

    def __init__(self):
        import urllib3

        self.url, self.key = env["HTTP_URL"], env.get("HTTP_RESPONSE", "predictions")
        self.before, self.after = env.get("HTTP_REQUEST", '{"instances": $rows}').split("$rows")
        json.loads(self.before + "[]" + self.after)
        self.http = urllib3.PoolManager(timeout=float(env.get("HTTP_TIMEOUT", 30)), retries=False)
        try:
            self.http.request("HEAD", self.url)  # any answer says that there is a server
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.TimeoutError) as e:
            raise ConnectionError(f"no server at {self.url}: {e}") from e

    def predict(self, rows):
        rows = [dict(zip(rows, row)) for row in zip(*rows.values())] if isinstance(rows, dict) else rows
        body = self.before + json.dumps(rows, default=lambda array: array.tolist(), allow_nan=False) + self.after
        answer = self.http.request("POST", self.url, body=body, headers={"Content-Type": "application/json"})
        said = answer.json() if answer.status == 200 else None
        if said is None or (self.key and self.key not in said):
            raise RuntimeError(f"{self.url} answered {answer.status}: {answer.data[:200].decode(errors='replace')}; expected 200 with {(self.key or 'a list')!r}")
        return [RowError(str(p["error"])) if isinstance(p, dict) and "error" in p else p for p in (said[self.key] if self.key else said)]


serve(HTTP)
