/**
 * Forty marks in what a run is given (texts, names, tables, pictures, the machine itself), looked for in all that it
 * writes: nothing but the files that train/run/README.md names holds any, and no adapter, model or checkpoint does.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratchFolder } from '../../support/run-state.ts';

const scratch = scratchFolder();
const N = 8;
const mark = (kind: string, i: number) => `canary-${kind}-${i}x`;
const marks = (kind: string, count: number) => Array.from({ length: count }, (_, i) => mark(kind, i));
/** kind of mark → marks, and the files of a run that may hold them */
const PLANTED = {
  caption: { marks: marks('caption', N), in: /^(samples\/samples\.json|report\.html|.*\.svg)$/ },
  file: { marks: marks('file', N), in: /^(split\.json|report\.html|nearest\.json)$/ },
  patient: { marks: marks('patient', N), in: /^split\.json$/ },
  column: { marks: marks('column', 4), in: /^$/ },
  exif: { marks: marks('exif', 4), in: /^$/ },
  xmp: { marks: marks('xmp', 2), in: /^$/ },
  folder: { marks: marks('folder', 2), in: /^(config\.json|facts\.json|report\.html|split\.json)$/ },
  environment: { marks: marks('environment', 3), in: /^$/ },
  // a short one is in other words too
  machine: { marks: [os.hostname().padEnd(6, '-')], in: /^(facts\.json|report\.html)$/ },
} as const;
const all = Object.values(PLANTED).flatMap((planted) => planted.marks);

const data = path.join(scratch, mark('folder', 0));
const base = path.join(scratch, mark('folder', 1));
const out = path.join(scratch, 'run');
beforeAll(async () => {
  await writeCalmBase(base);
  mkdirSync(data);
  const rows = ['file_name,text,patient,remark'];
  for (let i = 0; i < N; i++) {
    const pixels = Uint8Array.from({ length: 256 }, (_, k) => 127 + 100 * Math.sin(i + k * (0.1 + i / 9)));
    const grey = sharp(pixels, { raw: { width: 16, height: 16, channels: 1 } });
    const Artist = PLANTED.exif.marks[i % 4]!;
    const noted = grey.jpeg().withExif({ IFD0: { Artist, ImageDescription: Artist } });
    if (i < 2) noted.withXmp?.(`<x:xmpmeta xmlns:x="adobe:ns:meta/">${PLANTED.xmp.marks[i]}</x:xmpmeta>`);
    writeFileSync(path.join(data, `${mark('file', i)}.jpg`), await noted.toBuffer());
    rows.push(`${mark('file', i)}.jpg,left lung ${mark('caption', i)},${mark('patient', i)},${mark('column', i % 4)}`);
  }
  writeFileSync(path.join(data, 'metadata.csv'), `${rows.join('\n')}\n`);
  const names = ['SELORA_CANARY', 'HOME', 'USER'];
  const before = names.map((name) => process.env[name]);
  for (const [i, name] of names.entries()) process.env[name] = PLANTED.environment.marks[i]!;
  const settings =
    '--resolution 16 --steps 2 --batch 2 --test-every 1 --save-every 1 --samples 1 --validation-pairs 1 --obedience 0 --sample-steps 1 --targets **.attn1.to_q --merged --backend wasm --threads 1 --split 50/25/25';
  const { code, stderr } = await runCommand(train, [
    ...['--data', data, '--base', base, '--out', out],
    ...settings.split(' '),
  ]);
  for (const [i, name] of names.entries())
    if (before[i] === undefined) delete process.env[name];
    else process.env[name] = before[i];
  expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
}, 120_000);

/** Every mark in a file of the run that is not told to hold it, as `file: mark`. */
function strays(folder: string): readonly string[] {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return names.flatMap(({ parentPath, name }) => {
    const file = path.relative(folder, path.join(parentPath, name));
    const bytes = readFileSync(path.join(folder, file));
    return Object.values(PLANTED).flatMap(({ marks, in: allowed }) =>
      marks.filter((text) => !allowed.test(file) && bytes.includes(text)).map((text) => `${file}: ${text}`),
    );
  });
}

describe('what is told of a person', () => {
  it('stays in the files that are named for it', () => {
    expect(all).toHaveLength(40);
    // it was there to be found
    for (const file of readdirSync(data).filter((name) => name.endsWith('.jpg')))
      expect(readFileSync(path.join(data, file)).includes('canary-exif')).toBe(true);
    const written = readdirSync(out, { recursive: true, encoding: 'utf8' });
    for (const name of ['adapter.safetensors', 'merged', 'samples/01-adapted.png', 'split.json', 'report.html'])
      expect(written).toContain(name);
    expect(written.some((name) => name.startsWith('checkpoints/step-'))).toBe(true);
    expect(strays(out)).toEqual([]);
  });
  it('would be found in an adapter that names its data', () => {
    const folder = path.join(scratch, 'talkative');
    mkdirSync(folder);
    const adapter = readFileSync(path.join(out, 'adapter.safetensors'));
    writeFileSync(path.join(folder, 'adapter.safetensors'), Buffer.concat([adapter, Buffer.from(mark('patient', 3))]));
    writeFileSync(path.join(folder, 'split.json'), mark('patient', 3));
    expect(strays(folder)).toEqual([`adapter.safetensors: ${mark('patient', 3)}`]);
  });
});
