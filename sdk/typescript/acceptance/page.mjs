// SPDX-License-Identifier: Apache-2.0
// The page that runs the acceptance list in a browser.
import * as rest from "@clipper-serving/client";
import { run } from "./run.mjs";

const report = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
try {
  const { list, container } = await (await fetch("/list")).json();
  const clients = {
    clipper: new rest.RestClient({ url: `${location.origin}/query`, adminUrl: `${location.origin}/admin` }),
    canned: new rest.RestClient({ url: `${location.origin}/canned` }),
  };
  await report(await run(list, "rest", clients, container, rest));
} catch (e) {
  await report({ count: 0, failures: [String(e.stack)] });
}
