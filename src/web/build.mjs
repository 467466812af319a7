// Bundles the pages into dist/device and dist/fleet, ready to be embedded in the binary.
//
// Each page is one HTML file that names one script and one style sheet under /assets/, with the hash of their content in the
// name: a server may answer assets with `Cache-Control: immutable` and pages with `no-cache`. The pages ask nobody else for
// anything (no fonts, no CDN), and hold no inline script or style, so they run under `default-src 'self'`.
//
//   node build.mjs            production build
//   node build.mjs --watch    rebuild on change, with source maps

import * as esbuild from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const watching = process.argv.includes("--watch");

/** Sites, and in each the pages: output file, title, entry script. */
const sites = [
  {
    name: "device",
    pages: [
      { file: "index.html", title: "R58 switcher", entry: "device/switcher/switcher.tsx" },
      { file: "guest_join.html", title: "Join the programme", entry: "device/guest/guest.tsx" },
      { file: "watch.html", title: "R58", entry: "device/watch/watch.tsx" },
      { file: "status.html", title: "R58 status", entry: "device/status/status.tsx" },
    ],
  },
  {
    name: "fleet",
    pages: [
      { file: "index.html", title: "R58 fleet", entry: "fleet/fleet.tsx" },
      // The guest's page of a box that nobody can connect to.
      { file: "join.html", title: "Join the programme", entry: "device/guest/guest.tsx" },
    ],
  },
];

// `blob:` for pictures is not needed: thumbnails are drawn on canvases. HLS is played from a media source, which is one.
const policy = "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'";

const html = (page, script, style, icon) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="dark">
<meta name="theme-color" content="#0b0d10">
<title>${page.title}</title>
<link rel="icon" href="/assets/${icon}" type="image/svg+xml">
<link rel="stylesheet" href="/assets/${style}">
<script type="module" src="/assets/${script}"></script>
</head>
<body>
<div id="app"></div>
<noscript><p>This page needs JavaScript.</p></noscript>
</body>
</html>
`;

async function writePages(site, metafile) {
  const out = join(here, "dist", site.name);
  const svg = await readFile(join(here, "common/icon.svg"));
  const icon = `icon-${createHash("sha256").update(svg).digest("hex").slice(0, 8)}.svg`;
  await writeFile(join(out, "assets", icon), svg);
  for (const page of site.pages) {
    const found = Object.entries(metafile.outputs).find(([, output]) => output.entryPoint === page.entry);
    if (!found) throw new Error(`no bundle for ${page.entry}`);
    const [script, output] = found;
    await writeFile(join(out, page.file), html(page, basename(script), basename(output.cssBundle ?? ""), icon));
  }
}

/** Names of an XML namespace and of a metadata scheme (hls.js): they look like addresses, and nobody asks them for anything. */
const names = new Set(["http://www.w3.org", "https://aomedia.org"]);

/** A venue may have no internet: an address outside of the box in a bundle is a fault. */
async function refuseForeignAddresses(site, metafile) {
  for (const file of Object.keys(metafile.outputs)) {
    const text = await readFile(join(here, file), "utf8");
    const foreign = (text.match(/https?:\/\/[\w.-]+\w/g) ?? []).filter((address) => !names.has(address));
    if (foreign.length > 0) throw new Error(`${site.name}: ${file} names ${foreign.join(", ")}`);
  }
}

for (const site of sites) {
  const out = join(here, "dist", site.name);
  await rm(out, { recursive: true, force: true });
  await mkdir(join(out, "assets"), { recursive: true });
  const context = await esbuild.context({
    absWorkingDir: here,
    entryPoints: site.pages.map((page) => page.entry),
    outdir: join("dist", site.name, "assets"),
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    // What few pages need, and late, is loaded when they do.
    splitting: true,
    bundle: true,
    format: "esm",
    // Safari 15.4 (iPhone 6s and later), and what Android phones have had since 2021.
    target: ["es2020", "safari15.4", "chrome96", "firefox100"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: !watching,
    sourcemap: watching,
    metafile: true,
    legalComments: "none",
    logLevel: "warning",
    plugins: [
      {
        name: "pages",
        setup(build) {
          build.onEnd(async (result) => {
            if (result.errors.length > 0) return;
            await writePages(site, result.metafile);
            if (!watching) await refuseForeignAddresses(site, result.metafile);
            const bytes = Object.values(result.metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
            console.log(`dist/${site.name}: ${site.pages.length} page(s), ${(bytes / 1024).toFixed(0)} KiB of assets`);
          });
        },
      },
    ],
  });
  if (watching) {
    await context.watch();
  } else {
    await context.rebuild();
    await context.dispose();
  }
}
