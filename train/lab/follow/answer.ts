/** What the server says of runs: their list, the record of one, its rows as they come, its pictures and recorded steps. */
import { createReadStream } from 'node:fs';
import { lstat, readFile, realpath } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { printable } from '../../../models/io/error.ts';
import { METRICS_FILE } from '../../run/metrics.ts';
import { FACTS_FILE, readRun, SAMPLES_FILE } from '../../run/read.ts';
import { pictureFile } from '../../run/record.ts';
import { TRACE_FILE } from '../../trace/format.ts';
import { bytesOf, findRuns, runFolder, wholeLines, withFile } from './find.ts';

/** How often a run's files are looked at. */
const EVERY_MS = 400;
/** What is sent at once. */
const MOST_BYTES = 2 ** 23;
const MOST_PICTURE_BYTES = 32 * 2 ** 20;

/** An answer: its kind and what it holds. */
type Send = (code: number, type: string, body: string | Uint8Array) => void;
const JSON_TYPE = 'application/json; charset=utf-8';
const TEXT_TYPE = 'text/plain; charset=utf-8';

/** A record with the place in its file of rows up to which it goes. */
async function recordOf(folder: string, name: string): Promise<string> {
  const end = await wholeLines(path.join(folder, METRICS_FILE));
  // a run that it is compared with may be gone
  const run = await readRun(folder, true, end).catch(() => readRun(folder, false, end));
  return JSON.stringify({ record: { ...run, name, folder: '' }, end });
}

async function picture(folder: string, file: string): Promise<Uint8Array | undefined> {
  if (!pictureFile.safeParse(file).success) return undefined;
  const whole = path.join(folder, file);
  const info = await lstat(whole).catch(() => undefined);
  if (!info?.isFile() || info.size > MOST_PICTURE_BYTES) return undefined;
  // its folder is no link to elsewhere
  if (path.dirname(await realpath(whole)) !== path.join(await realpath(folder), 'samples')) return undefined;
  return readFile(whole);
}

/** When files were changed last, as one text. */
async function changedAt(folder: string): Promise<string> {
  const times = [FACTS_FILE, SAMPLES_FILE].map((file) =>
    lstat(path.join(folder, file)).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0,
    ),
  );
  return (await Promise.all(times)).join();
}

/**
 * Sends the finished rows from a place on, and each further one as it is written (server-sent events: `id` is the place
 * behind it), until nobody listens. `facts`: something beside the rows is new; `restart`: the file became shorter.
 */
async function follow(folder: string, from: number, response: ServerResponse): Promise<void> {
  const file = path.join(folder, METRICS_FILE);
  let [at, known] = [from, await changedAt(folder)];
  const look = async (): Promise<void> => {
    for (;;) {
      const size = await withFile(file, async (_, bytes) => bytes);
      if (size < at) {
        response.write('event: restart\ndata: \n\n');
        return response.end() as never;
      }
      const bytes = await withFile(file, (handle) => bytesOf(handle, at, Math.min(size, at + MOST_BYTES)));
      let begin = 0;
      for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, begin)) {
        const line = bytes.toString('utf8', begin, end).replaceAll('\r', ' ');
        begin = end + 1;
        response.write(`id: ${at + begin}\ndata: ${line}\n\n`);
      }
      at += begin;
      if (begin === 0 || at >= size) break;
    }
    const now = await changedAt(folder);
    if (now !== known) response.write('event: facts\ndata: \n\n');
    known = now;
  };
  let closed = false;
  response.on('close', () => {
    closed = true;
  });
  response.write(': here\n\n');
  while (!closed) {
    try {
      await look();
    } catch {
      // the folder is gone
      response.end();
      return;
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

/**
 * Answers `runs/index.json`, `runs/NAME/record.json`, `runs/NAME/rows?from=BYTES`, `runs/NAME/samples/FILE.png` and
 * `runs/NAME/trace-step-N.safetensors`, NAME as one part of the address (`/` as %2F).
 */
export async function answerRuns(
  root: string,
  request: IncomingMessage,
  response: ServerResponse,
  headers: Readonly<Record<string, string>>,
): Promise<void> {
  const send: Send = (code, type, body) => {
    response.writeHead(code, { ...headers, 'content-type': type, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  const none = (): void => send(404, TEXT_TYPE, 'there is no such run\n');
  try {
    const url = new URL(request.url ?? '/', 'http://here');
    const [, , ...parts] = url.pathname.split('/').map(decodeURIComponent);
    const [name = '', what = '', file] = parts;
    if (parts.length === 1 && name === 'index.json') return send(200, JSON_TYPE, JSON.stringify(await findRuns(root)));
    const folder = await runFolder(root, name);
    if (folder === undefined) return none();
    if (parts.length === 2 && what === 'record.json') return send(200, JSON_TYPE, await recordOf(folder, name));
    if (parts.length === 2 && what === 'rows' && request.method === 'GET') {
      const from = request.headers['last-event-id'] ?? url.searchParams.get('from') ?? '0';
      if (!/^\d{1,15}$/.test(String(from))) return none();
      response.writeHead(200, { ...headers, 'content-type': 'text/event-stream; charset=utf-8' });
      return await follow(folder, Number(from), response);
    }
    if (parts.length === 2 && TRACE_FILE.test(what)) {
      const recorded = path.join(folder, what);
      const info = await lstat(recorded).catch(() => undefined);
      if (!info?.isFile()) return none();
      response.writeHead(200, { ...headers, 'content-type': 'application/octet-stream', 'content-length': info.size });
      if (request.method === 'HEAD') return void response.end();
      return await pipeline(createReadStream(recorded), response);
    }
    const bytes = parts.length === 3 && what === 'samples' ? await picture(folder, `samples/${file}`) : undefined;
    return bytes ? send(200, 'image/png', bytes) : none();
  } catch (error) {
    if (response.headersSent) response.destroy();
    else if (error instanceof URIError) none();
    else send(500, TEXT_TYPE, `${printable((error as Error).message, 2000)}\n`);
  }
}
