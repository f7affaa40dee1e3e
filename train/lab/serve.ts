/** A small server on loopback: files of one folder, isolated from other origins so that threads may share memory. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { POLICY, WORKER_POLICY } from './build.ts';
import { answerRuns } from './follow/answer.ts';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
};

/** The file a request names; nothing outside the folder, and nothing with a NUL in its name. */
export function fileOf(folder: string, address: string): string | undefined {
  try {
    const name = decodeURIComponent(address.split(/[?#]/, 1)[0]!);
    if (name.includes('\0')) return undefined;
    const file = path.join(folder, path.posix.normalize(`/${name}`));
    return file.endsWith(path.sep) ? path.join(file, 'index.html') : file;
  } catch {
    return undefined;
  }
}

/** For every answer: isolated from other origins, nothing kept, nothing guessed. */
const HEADERS = {
  'cache-control': 'no-cache',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
} as const;

/** A name that a foreign site gave this machine's address would let its pages read what is served. */
const isOwn = (host: string | undefined): boolean => /^(127\.0\.0\.1|localhost)(:\d+)?$/.test(host ?? '');

/**
 * Serves a folder on 127.0.0.1.
 * @param port 0 for any that is free
 * @param runs a folder of runs that is shown beside it
 * @returns its address and how to end it
 * @throws Error, as Node's, where the port is taken
 */
export async function serveLab(
  folder: string,
  port: number,
  runs?: string,
): Promise<{ address: string; close: () => Promise<void> }> {
  const server: Server = createServer(async (request, response) => {
    const end = (code: number, text: string): void => {
      response.writeHead(code, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
    };
    if (!isOwn(request.headers.host)) return end(403, 'only for this machine');
    if (request.method !== 'GET' && request.method !== 'HEAD') return end(405, 'only GET and HEAD');
    if (runs !== undefined && /^\/runs\//.test(request.url ?? ''))
      return answerRuns(runs, request, response, { ...HEADERS, 'content-security-policy': "default-src 'none'" });
    const file = fileOf(folder, request.url ?? '/');
    const found = file === undefined ? undefined : await stat(file).catch(() => undefined);
    if (!file || !found?.isFile()) return end(404, 'there is no such file');
    response.writeHead(200, {
      'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      'content-length': found.size,
      ...HEADERS,
      'content-security-policy': path.basename(file) === 'machine.js' ? WORKER_POLICY : POLICY,
    });
    if (request.method === 'HEAD') response.end();
    else
      createReadStream(file)
        .on('error', () => response.destroy())
        .pipe(response);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const { port: bound } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${bound}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
