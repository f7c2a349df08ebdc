// SPDX-License-Identifier: Apache-2.0
// Compiles the package twice, as ES modules and as CommonJS; which of the two a file is, the package.json beside it says.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const { version } = JSON.parse(readFileSync("package.json", "utf8"));
for (const folder of ["build/src", "dist"]) {
  rmSync(folder, { recursive: true, force: true });
}
for (const [kind, type] of Object.entries({ esm: "module", cjs: "commonjs" })) {
  const source = `build/src/${kind}`;
  cpSync("src", source, { recursive: true });
  cpSync("../../gen/typescript/src", `${source}/gen`, { recursive: true });
  writeFileSync(`${source}/gen/version.ts`, `export const version = ${JSON.stringify(version)};\n`);
  writeFileSync(`${source}/package.json`, JSON.stringify({ type }));
  writeFileSync(`${source}/tsconfig.json`, JSON.stringify({
    extends: "../../../tsconfig.json",
    compilerOptions: { rootDir: ".", outDir: `../../../dist/${kind}`, verbatimModuleSyntax: kind === "esm" },
    include: ["."],
  }));
  execFileSync("node_modules/.bin/tsc", ["--project", source], { stdio: "inherit" });
  mkdirSync(`dist/${kind}`, { recursive: true });
  writeFileSync(`dist/${kind}/package.json`, JSON.stringify({ type }) + "\n");
}
