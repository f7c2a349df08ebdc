// SPDX-License-Identifier: Apache-2.0
// Runs the acceptance list: node node.mjs SERVER grpc|rest|browser. It is run from a project that has the package from
// its packed file; SERVER is the program of sdk/acceptance/server.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as grpc from "@clipper-serving/client/grpc";
import * as rest from "@clipper-serving/client";
import { run } from "./run.mjs";

const [program, over] = process.argv.slice(2);
const list = JSON.parse(execFileSync(program, ["--list"], { maxBuffer: 16 << 20 }));
const server = spawn(program, { stdio: ["pipe", "pipe", "inherit"] });
let at;
for await (const line of createInterface(server.stdout)) {
  at = JSON.parse(line);
  break;
}
const { count, failures } = await { grpc: overGrpc, rest: overRest, browser: inBrowser }[over]();
server.stdin.end();
await once(server, "exit");
failures.forEach((f) => console.error(`typescript over ${over}: ${f}`));
console.log(`typescript over ${over}: ${count} cases, ${failures.length} failures`);
process.exitCode = failures.length === 0 && count > 50 ? 0 : 1;

async function overGrpc() {
  const tls = { caFile: at.ca_file, certFile: at.cert_file, keyFile: at.key_file };
  const clients = {
    clipper: new grpc.GrpcClient({ address: at.query_grpc, adminAddress: at.admin_grpc }),
    canned: new grpc.GrpcClient({ address: at.canned_grpc }),
    secure: new grpc.GrpcClient({ address: at.secure_grpc, tls, apiKey: at.api_key }),
    keyless: new grpc.GrpcClient({ address: at.secure_grpc, tls }),
  };
  try {
    return await run(list, "grpc", clients, at.container, grpc);
  } finally {
    Object.values(clients).forEach((c) => c.close());
  }
}

function overRest() {
  const clients = {
    clipper: new rest.RestClient({ url: at.query_http, adminUrl: at.admin_http }),
    canned: new rest.RestClient({ url: at.canned_http }),
  };
  return run(list, "rest", clients, at.container, rest);
}

/** In Chromium, from a page of the origin at which a proxy has the listeners: as an application would put it up. */
async function inBrowser() {
  const targets = { query: at.query_http, admin: at.admin_http, canned: at.canned_http };
  let done;
  const result = new Promise((resolve) => (done = resolve));
  const site = createServer((req, res) => {
    const [, name, path] = /^\/([a-z.]*)(.*)$/.exec(req.url);
    if (targets[name]) {
      req.pipe(request(targets[name] + path, { method: req.method, headers: req.headers }, (r) => r.pipe(res.writeHead(r.statusCode, r.headers))));
    } else if (name === "result") {
      const parts = [];
      req.on("data", (p) => parts.push(p)).on("end", () => done(JSON.parse(Buffer.concat(parts)), res.end()));
    } else if (name === "list") {
      res.end(JSON.stringify({ list, container: at.container }));
    } else if (name === "bundle.js") {
      res.writeHead(200, { "content-type": "text/javascript" }).end(readFileSync("bundle.js"));
    } else {
      res.writeHead(200, { "content-type": "text/html" }).end('<!doctype html><script type="module" src="/bundle.js"></script>');
    }
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  const profile = mkdtempSync(join(tmpdir(), "clipper-browser-"));
  const browser = spawn("chromium", ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${profile}`, "--remote-debugging-port=0",
    `http://127.0.0.1:${site.address().port}/`], { stdio: "ignore" });
  const gone = once(browser, "exit");
  try {
    return await Promise.race([result, gone.then(() => ({ count: 0, failures: ["the browser ended"] }))]);
  } finally {
    browser.kill("SIGKILL");
    await gone;
    site.closeAllConnections();
    site.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
