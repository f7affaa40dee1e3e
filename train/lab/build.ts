/** The lab as one static folder: page and machine bundled, the ops' texts as JSON. It opens from any web host. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { build, type Plugin } from 'esbuild';
import { FileError } from '../../models/io/error.ts';
import { script as reportScript } from '../report/script.ts';
import { writeBase } from './base-files.ts';
import { style } from './style.ts';
import { allOps, entryOf, textOf } from './texts.ts';

/** Where the page may load from: itself. */
export const POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'";
/** The worker compiles kernels and what a person writes; it reaches nobody but this host. */
export const WORKER_POLICY = "default-src 'self'; script-src 'self' blob: 'unsafe-eval'; worker-src 'self' blob:";

/** What tells a folder of ours from any other. */
const MARK = 'machine.js';
/** Where the page asks for the list of runs. */
const NO_RUNS = 'runs/index.json';
/** Files that are not the page's own weight. */
const WEIGHTS = /^base\//;

const pageOf = (only: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>The lab</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="lab.css">
</head>
<body${only && ` data-only="${only}"`}>
<noscript>The lab computes in this tab: it needs JavaScript.</noscript>
<script type="module" src="lab.js"></script>
</body>
</html>
`;

/** Modules of Node behind what a page never asks for (files are read by `fetch` there): names without anything. */
const withoutNode: Plugin = {
  name: 'without node',
  setup({ onResolve, onLoad }) {
    // charts are drawn into the page's own document
    onResolve({ filter: /^linkedom$/ }, ({ path: name }) => ({ path: name, namespace: 'document' }));
    onLoad({ filter: /.*/, namespace: 'document' }, () => ({
      contents: 'export const parseHTML = () => ({ document: globalThis.document });',
      loader: 'js',
    }));
    onResolve({ filter: /^node:timers\/promises$/ }, ({ path: name }) => ({ path: name, namespace: 'timers' }));
    onLoad({ filter: /.*/, namespace: 'timers' }, () => ({
      contents: 'export const setImmediate = () => new Promise((done) => setTimeout(done));',
      loader: 'js',
    }));
    onResolve({ filter: /^node:/ }, ({ path: name }) => ({ path: name, namespace: 'node' }));
    onLoad({ filter: /.*/, namespace: 'node' }, () => ({ contents: 'module.exports = {};', loader: 'js' }));
  },
};

/** What was built. */
export interface Built {
  readonly folder: string;
  readonly files: number;
  /** bytes of all files but the weights, each gzipped */
  readonly gzipped: number;
  /** bytes of the base's weights and configurations as they are */
  readonly weights: number;
}

/** Files below a folder, with `/` between the parts. */
async function filesOf(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((e) => e.isFile())
    .map((e) => path.relative(folder, path.join(e.parentPath, e.name)).split(path.sep).join('/'))
    .sort();
}

/**
 * Builds the lab into a folder that is empty, missing or of an earlier build.
 * @param only the pages it is for (default: all); what no page of these needs is left out
 * @throws FileError where the folder holds something else
 */
export async function buildLab(folder: string, { only }: { readonly only?: readonly string[] } = {}): Promise<Built> {
  const needs = (...pages: readonly string[]): boolean => only === undefined || pages.some((p) => only.includes(p));
  if (existsSync(folder)) {
    const there = await readdir(folder);
    if (there.length > 0 && !there.includes(MARK))
      throw new FileError(folder, '', 'holds other files, expected an empty folder or one of an earlier build');
    await rm(folder, { recursive: true });
  }
  for (const part of ['ops', 'runs']) await mkdir(path.join(folder, part), { recursive: true });
  const root = import.meta.dirname;
  await build({
    entryPoints: { lab: path.join(root, 'page/main.ts'), machine: path.join(root, 'machine/worker.ts') },
    outdir: folder,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    // a page has no native module; the backend that wants it is not offered
    external: ['gpu.js'],
    plugins: [withoutNode],
    logLevel: 'silent',
  });
  const put = (name: string, text: string) => writeFile(path.join(folder, name), text);
  await put('index.html', pageOf(only?.join(' ') ?? ''));
  await put('lab.css', style);
  await put('report.js', reportScript);
  // what a host without runs answers; `serveLab` answers for those it has
  await put(NO_RUNS, 'null');
  if (needs('op')) {
    await put('ops/index.json', JSON.stringify(allOps.map(entryOf)));
    for (const op of allOps) await put(`ops/${op.name}.json`, JSON.stringify(await textOf(op)));
  }
  if (needs('step', 'train')) await writeBase(folder);
  let [gzipped, weights] = [0, 0];
  const files = await filesOf(folder);
  for (const file of files) {
    const bytes = await readFile(path.join(folder, file));
    if (WEIGHTS.test(file)) weights += bytes.length;
    else gzipped += gzipSync(bytes).length;
  }
  return { folder, files: files.length, gzipped, weights };
}
