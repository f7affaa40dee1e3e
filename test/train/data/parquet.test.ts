/** Parquet files of pyarrow, as the datasets hub writes them; lies about lengths, and files that are spoilt. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { loadDataset, pictureOf } from '../../../train/data/dataset.ts';
import { folder, refusal } from '../../support/data-fixtures.ts';
import { longTest } from '../../support/long.ts';

const GOLDEN = path.join(import.meta.dirname, '../../golden/io/parquet');
const golden = Object.fromEntries(
  readdirSync(GOLDEN)
    .filter((name) => name.endsWith('.parquet'))
    .map((name) => [name.replace('.parquet', ''), readFileSync(path.join(GOLDEN, name))]),
);

const TEXTS = ['one', 'zwei, drei', 'no sign of a nodule', 'ünter', 'five'];
const pixels = (i: number) => Array.from({ length: 12 }, (_, at) => 16 * i + at);

/** A file with some bytes of it exchanged; `from` must be there once. */
function exchanged(file: Buffer, from: readonly number[], to: readonly number[]): Buffer {
  const at = file.indexOf(Buffer.from(from));
  expect(at).toBeGreaterThanOrEqual(0);
  return Buffer.concat([file.subarray(0, at), Buffer.from(to), file.subarray(at + from.length)]);
}

describe('parquet', () => {
  it.each(['none', 'snappy', 'gzip', 'zstd', 'brotli', 'v2'])('%s: texts, patients and pictures', async (name) => {
    const { layout, records } = await loadDataset(folder({ 'data/train-00000-of-00001.parquet': golden[name]! }));
    expect(layout).toBe('parquet');
    expect(records.map(({ text }) => text)).toEqual(TEXTS);
    expect(records.map(({ patient }) => patient)).toEqual(['7', '7', '8', undefined, undefined]);
    expect(records.map(({ file }) => file.slice(-7))).toEqual([0, 1, 2, 3, 4].map((i) => `#00000${i}`));
    for (const i of [4, 0, 3, 1, 2]) {
      const { width, height, channels, data } = await pictureOf(records[i]!);
      expect([width, height, channels, ...data]).toEqual([4, 3, 1, ...pixels(i)]);
    }
  });
  it('several parts are taken together, and it is said', async () => {
    const dir = folder({
      'default/train/0000.parquet': golden.snappy!,
      'data/train-0.parquet': golden.none!,
      'data/test-0.parquet': golden.zstd!,
    });
    const { records, warnings } = await loadDataset(dir);
    expect(records).toHaveLength(15);
    expect(warnings[0]).toMatch(/test, train.* are taken together/);
  });
  it('other columns: told by what they hold and by their names, or named', async () => {
    const dir = folder({ 'a.parquet': golden.columns! });
    expect(await refusal(loadDataset(dir))).toMatch(
      /a\.parquet: column "text" of texts is missing, found "picture", "report", "who"; --caption-column names another$/,
    );
    const { records } = await loadDataset(dir, { captionColumn: 'report' });
    expect(records.map(({ text }) => text)).toEqual(TEXTS);
  });
  it('names of pictures beside the table', async () => {
    const dir = folder({ 'names.parquet': golden.names!, 'a.png': undefined, 'b.png': undefined });
    const { records } = await loadDataset(dir);
    expect(records.map(({ file, text, image }) => [file.slice(-1), text, path.basename(image)])).toEqual([
      ['0', 'one', 'a.png'],
      ['1', 'two', 'b.png'],
    ]);
    expect(await refusal(loadDataset(folder({ 'names.parquet': golden.names! })))).toMatch(
      /2 problems.*row 0: file_name/,
    );
  });
  it('rows without picture or text are told at once', async () => {
    const dir = folder({ 'h.parquet': golden.holes! });
    const message = await refusal(loadDataset(dir));
    for (const part of [
      '4 problems',
      'row 4: text: is empty',
      'row 1: image: holds no picture',
      'row 2: image',
      'is no PNG',
    ])
      expect(message).toContain(part);
    expect((await loadDataset(dir, { skipUnreadable: true })).records.map(({ text }) => text)).toEqual(['a']);
  });
});

describe('broken parquet', () => {
  const said = async (bytes: Uint8Array) => refusal(loadDataset(folder({ 'x.parquet': bytes })));
  it.each<[string, () => Buffer, RegExp]>([
    ['empty', () => Buffer.alloc(0), /x\.parquet: is too short for a parquet file$/],
    ['another file', () => Buffer.from('PAR1 nothing at all here'), /is no parquet file, or cut/],
    ['cut', () => golden.snappy!.subarray(0, 3000), /is no parquet file, or cut: it does not end with PAR1$/],
    ['no middle', () => Buffer.concat([golden.none!.subarray(0, 90), golden.none!.subarray(-1800)]), /broken|beyond/],
    [
      'a codec that is not read',
      () => golden.lz4!,
      /is compressed with LZ4_RAW, read are SNAPPY, GZIP, BROTLI, ZSTD and none$/,
    ],
    [
      'a footer beyond the start',
      () => exchanged(golden.none!, [...golden.none!.subarray(-8)], [255, 255, 255, 127, ...Buffer.from('PAR1')]),
      /footer is longer than the file/,
    ],
  ])('%s', async (_, make, message) => {
    expect(await said(make())).toMatch(message);
  });
  longTest('a run of 134 million levels neither fills the memory nor ends the process', async () => {
    // the definition levels of the first page: their length, a run of two, the level
    const levels = [2, 0, 0, 0, 4, 1];
    const run = [2, 0, 0, 0, 0xfe, 0xff, 0xff, 0x7f, 1];
    const file = golden.none!;
    const at = file.indexOf(Buffer.from(levels));
    expect(at).toBeGreaterThan(0);
    const lie = Buffer.from(file);
    lie.set(run, at);
    const before = process.memoryUsage().rss;
    expect(await said(lie)).toMatch(
      /x\.parquet: would fill the memory: it is broken, or has too many rows in a group$/,
    );
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
    expect((await loadDataset(folder({ 'y.parquet': file }))).records).toHaveLength(5);
  });
  it('spoilt bytes: read or refused in one line', async () => {
    const outcomes = { read: 0, refused: 0 };
    for (const name of ['none', 'snappy', 'zstd', 'v2'])
      for (let i = 0; i < 20; i++) {
        const bytes = Buffer.from(golden[name]!);
        const at = (i * 7919 + name.length * 104_729) % bytes.length;
        bytes[at]! ^= 1 << (i % 8);
        bytes[(at + 1) % bytes.length] = i % 3 === 0 ? 0xff : bytes[(at + 1) % bytes.length]!;
        const error = await loadDataset(folder({ 'x.parquet': bytes })).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (error === undefined) outcomes.read++;
        else {
          expect(error).toBeInstanceOf(FileError);
          expect((error as Error).message).not.toMatch(/\p{Cc}|at .*\.js/u);
          outcomes.refused++;
        }
      }
    expect(outcomes.refused).toBeGreaterThan(10);
    expect(outcomes.read + outcomes.refused).toBe(80);
  });
});
