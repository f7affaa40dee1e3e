/**
 * Reads parquet files in a process of its own, whose heap has a limit: lengths in a hostile file may claim anything, and
 * what they fill is this process (a thread that runs out of memory would take the whole process with it). Plain
 * JavaScript, so that it starts without a loader.
 */
import { open } from 'node:fs/promises';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { decompress as zstd } from 'fzstd';
import { parquetMetadataAsync, parquetReadObjects, parquetSchema } from 'hyparquet';
import { snappyUncompress } from 'hyparquet/src/snappy.js';

/** What is read of one column in one group of rows, and of the footer. */
const MAX_CHUNK = 2 ** 30;
const MAX_FOOTER = 64 * 2 ** 20;
const MAX_ROWS = 10_000_000;
const MAX_GROUPS = 100_000;
const IDLE_MS = 30_000;

/** Words for a person; every other error here is told as a file that is broken. */
class Problem extends Error {}

const bounded = (decode) => (input, length) => {
  if (!(length >= 0 && length <= MAX_CHUNK)) throw new Problem('claims a page that is too long');
  return decode(input, length);
};
const compressors = {
  SNAPPY: bounded((input, length) => {
    const out = new Uint8Array(length);
    snappyUncompress(input, out);
    return out;
  }),
  GZIP: bounded((input, length) => gunzipSync(input, { maxOutputLength: Math.max(1, length) })),
  BROTLI: bounded((input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) })),
  ZSTD: bounded((input, length) => zstd(input, new Uint8Array(length))),
};

const utf8 = new TextDecoder('utf-8', { fatal: true });
/** Text; the bytes themselves where they are none. */
const stringFromBytes = (bytes) => {
  try {
    return bytes && utf8.decode(bytes);
  } catch {
    return bytes;
  }
};
const reading = { compressors, parsers: { stringFromBytes }, utf8: false, geoparquet: false };

/** The bytes from start to end of an open file. */
const bufferOf = (handle, size) => ({
  byteLength: size,
  async slice(start, end = size) {
    if (!(start >= 0 && start <= end && end <= size)) throw new Problem('points beyond its end');
    const bytes = new Uint8Array(end - start);
    for (let at = 0; at < bytes.length; ) {
      const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at);
      if (bytesRead === 0) throw new Problem('points beyond its end');
      at += bytesRead;
    }
    return bytes.buffer;
  },
});

async function withFile(file, work) {
  const handle = await open(file, 'r');
  try {
    return await work(bufferOf(handle, (await handle.stat()).size));
  } finally {
    await handle.close();
  }
}

async function footerOf(buffer) {
  if (buffer.byteLength < 12) throw new Problem('is too short for a parquet file');
  const tail = new DataView(await buffer.slice(buffer.byteLength - 8));
  if (tail.getUint32(4, true) !== 0x31524150) throw new Problem('is no parquet file, or cut: it does not end with PAR1');
  const length = tail.getUint32(0, true);
  if (length > buffer.byteLength - 8) throw new Problem('is broken: its footer is longer than the file');
  if (length > MAX_FOOTER) throw new Problem(`has a footer of ${length} bytes, at most ${MAX_FOOTER} are read`);
  const metadata = await parquetMetadataAsync(buffer, { parsers: reading.parsers, geoparquet: false });
  const groups = metadata.row_groups.map(({ num_rows }) => Number(num_rows));
  const rows = groups.reduce((sum, n) => sum + n, 0);
  if (groups.length > MAX_GROUPS || groups.some((n) => !(n >= 0)) || rows !== Number(metadata.num_rows))
    throw new Problem('is broken: its groups do not make its rows');
  if (rows > MAX_ROWS) throw new Problem(`has ${rows} rows, at most ${MAX_ROWS} are read`);
  return { metadata, groups, rows };
}

/** What a column holds: a picture as the datasets hub stores it, bytes, text, a number, or something else. */
function kindOf({ element, children }) {
  const names = children.map((child) => child.element.name);
  if (children.length > 0) return names.includes('bytes') && names.includes('path') ? 'picture' : 'other';
  if (element.repetition_type === 'REPEATED') return 'other';
  if (element.type === 'BYTE_ARRAY') {
    const text = element.converted_type === 'UTF8' || element.logical_type?.type === 'STRING';
    return text ? 'text' : 'bytes';
  }
  return ['INT32', 'INT64'].includes(element.type) ? 'number' : 'other';
}

/** The chunks of some columns in one group must lie in the file and be of a length that is read. */
function checkChunks({ metadata }, group, columns, size) {
  const rows = Number(metadata.row_groups[group].num_rows);
  for (const { meta_data: chunk, file_path } of metadata.row_groups[group].columns) {
    if (!chunk || file_path) throw new Problem('keeps its columns in other files, or encrypted');
    if (!columns.includes(chunk.path_in_schema[0])) continue;
    const { codec } = chunk;
    if (codec !== 'UNCOMPRESSED' && !(codec in compressors))
      throw new Problem(`is compressed with ${String(codec)}, read are ${Object.keys(compressors).join(', ')} and none`);
    const from = Number(chunk.dictionary_page_offset || chunk.data_page_offset);
    const [stored, plain] = [Number(chunk.total_compressed_size), Number(chunk.total_uncompressed_size)];
    if (!(from >= 4 && stored >= 0 && from + stored <= size)) throw new Problem('points beyond its end');
    if (Number(chunk.num_values) !== rows) throw new Problem('is broken: a column has another number of values than rows');
    if (!(plain <= MAX_CHUNK)) {
      const gib = (plain / 2 ** 30).toFixed(1);
      throw new Problem(`holds ${gib} GiB of one column in one group of rows, at most 1 are read: write fewer rows a group`);
    }
  }
}

const FOOTERS = new Map();
const footer = async (file, buffer) => {
  if (!FOOTERS.has(file)) FOOTERS.set(file, await footerOf(buffer));
  return FOOTERS.get(file);
};

/** The group that was read last: pictures of one group are asked for one after another. */
let last = { key: '', rows: [] };
let idle;

const groupRows = (file, columns, group) =>
  withFile(file, async (buffer) => {
    const key = JSON.stringify([file, columns, group]);
    if (last.key !== key) {
      const known = await footer(file, buffer);
      checkChunks(known, group, columns, buffer.byteLength);
      last = { key: '', rows: [] };
      const rowStart = known.groups.slice(0, group).reduce((sum, n) => sum + n, 0);
      const range = { rowStart, rowEnd: rowStart + known.groups[group] };
      const rows = await parquetReadObjects({ ...reading, file: buffer, metadata: known.metadata, columns, ...range });
      if (rows.length !== known.groups[group]) throw new Problem('is broken: a group has fewer rows than it says');
      last = { key, rows };
    }
    clearTimeout(idle);
    idle = setTimeout(() => {
      last = { key: '', rows: [] };
    }, IDLE_MS).unref();
    return last.rows;
  });

/** A cell as it can be sent: bytes without the buffer they are a part of. */
const cell = (value) => {
  if (value instanceof Uint8Array) return value.slice();
  if (typeof value === 'bigint') return Number(value);
  if (typeof value === 'object' && value !== null)
    return 'bytes' in value || 'path' in value ? { bytes: cell(value.bytes), path: cell(value.path) } : undefined;
  return value;
};

const ORDERS = {
  open: ({ file }) =>
    withFile(file, async (buffer) => {
      const { metadata, groups, rows } = await footer(file, buffer);
      const columns = parquetSchema(metadata).children.map((child) => ({ name: child.element.name, kind: kindOf(child) }));
      return { groups, rows, columns };
    }),
  column: async ({ file, columns, group }) =>
    (await groupRows(file, columns, group)).map((row) => columns.map((name) => cell(row[name]))),
  row: async ({ file, column, group, row }) => cell((await groupRows(file, [column], group))[row]?.[column]),
};

async function answer({ id, order, ...rest }) {
  try {
    process.send({ id, result: await ORDERS[order](rest) });
  } catch (error) {
    const known = error instanceof Problem ? error.message : undefined;
    const code = known === undefined && typeof error?.syscall === 'string' ? error.code : undefined;
    process.send({ id, problem: known ?? 'is a broken parquet file', code });
  }
}

// one after another: two pictures of one group decode it once
let queue = Promise.resolve();
process.on('disconnect', () => process.exit());
process.on('message', (message) => {
  queue = queue.then(() => answer(message));
});
