// Runs test/*.test.ts with Node's own test runner: bundles them first, so that they may import the pages' TypeScript.

import * as esbuild from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const files = (await readdir(join(here, "test"))).filter((name) => name.endsWith(".test.ts"));
const out = await mkdtemp(join(here, "node_modules/.r58-tests-"));
await esbuild.build({
  absWorkingDir: here,
  entryPoints: files.map((name) => join("test", name)),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  packages: "external",
  target: "node18",
  sourcemap: "inline",
  logLevel: "warning",
});
const built = (await readdir(out)).filter((name) => name.endsWith(".mjs")).map((name) => join(out, name));
const run = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit" });
await rm(out, { recursive: true, force: true });
process.exit(run.status ?? 1);
