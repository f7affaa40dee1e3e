/** Sixty spellings of a path that leads outside, wherever a file may name another: none is followed. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { FileError } from '../../../models/io/error.ts';
import { loadRecords } from '../../../train/data/layouts/index.ts';
import { film, folder, report, scratch } from '../../support/data-fixtures.ts';
import { withCalls } from '../../support/faulty-fs.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';

const far = '../'.repeat(40);
const spellings: readonly string[] = [
  ...[
    '../outside.png',
    'img/../../outside.png',
    './../outside.png',
    'img/..',
    '..',
    '../',
    '../.',

    'img/../..',
  ],
  ...['../data-sibling/x.png', '../data/../outside.png', '../data/img/../../outside.png', `${far}etc/hostname`],
  ...['/etc/hostname', '//etc/hostname', '///etc/hostname', '/./etc/hostname', '/proc/self/environ', '/dev/zero'],
  ...['~/x.png', '~root/x.png', '$HOME/x.png', '%USERPROFILE%\\x.png'],
  ...['C:/x.png', 'C:\\x.png', 'c:x.png', '\\\\host\\share\\x.png', '\\\\?\\C:\\x.png', '//host/share/x.png'],
  ...['..\\outside.png', 'img\\..\\..\\outside.png', 'img\\a.png', '..\\/outside.png'],
  ...['http://127.0.0.1:9/x.png', 'https://example.org/x.png', 'file:///etc/hostname', 'FILE:/etc/hostname'],
  ...['data:image/png;base64,AA', 'ftp:x', 'git+ssh://example.org/x'],
  ...['img/a.png\0.jpg', '\0', '\u0001a.png', '../outside.png\0', 'img/a.png\n../outside.png'],
  ...['%2e%2e/outside.png', '..%2foutside.png', '%2fetc%2fhostname', '..%c0%afoutside.png', '%252e%252e/outside.png'],
  ...['\u2024\u2024/outside.png', '..\u2215outside.png', '\uff0e\uff0e/outside.png', '.\u200b./outside.png'],
  ...['link.png', 'linked/outside.png', 'img/linked/outside.png', 'loop.png', 'pipe.png'],
  `${'x/'.repeat(3000)}a.png`,
  `${'./'.repeat(2000)}../outside.png`,
];

const outside = path.join(scratch, 'outside.png');
/** A data folder with links out of it, and things outside that the spellings mean. */
function trap(): string {
  const dir = folder({ 'img/a.png': undefined, '../outside.png': undefined, '../data-sibling/x.png': undefined });
  symlinkSync('../outside.png', path.join(dir, 'link.png'));
  symlinkSync('..', path.join(dir, 'linked'));
  symlinkSync('../..', path.join(dir, 'img/linked'));
  symlinkSync('loop.png', path.join(dir, 'loop.png'));
  execFileSync('mkfifo', [path.join(dir, 'pipe.png')]);
  return dir;
}
let dir: string;
beforeAll(() => {
  writeFileSync(outside, film);
  dir = trap();
});
const put = (name: string, text: string) => {
  mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
  writeFileSync(path.join(dir, name), text);
};
const clear = () => {
  for (const name of readdirSync(dir).filter((each) => /^(metadata|indiana|ecgen)/.test(each)))
    rmSync(path.join(dir, name), { recursive: true });
};
const quotedCsv = (text: string) => `"${text.replaceAll('"', '""')}"`;
const xmlText = (text: string) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');

/** place → writes a table that names a picture so */
const sinks: Readonly<Record<string, (name: string) => void>> = {
  'file_name of JSON lines': (name) => put('metadata.jsonl', JSON.stringify({ file_name: name, text: 'x' })),
  'file_name of a table': (name) => put('metadata.csv', `file_name,text\n${quotedCsv(name)},x\n`),
  'parentImage of a report': (name) =>
    put('ecgen-radiology/1.xml', report('CXR1', 'Clear.', [[xmlText(name.replace(/\.png$/, '')), 'PA']])),
  'filename of a projection': (name) => {
    put('indiana_reports.csv', 'uid,findings,impression\n1,Clear.,None.\n');
    put('indiana_projections.csv', `uid,filename,projection\n1,${quotedCsv(name)},Frontal\n`);
  },
};

/** Names a picture in every way; what is read must lie inside, the rest is refused in one line or left out. */
async function tryAll(load: typeof loadRecords): Promise<number> {
  let refused = 0;
  const root = realpathSync(dir) + path.sep;
  for (const [sink, write] of Object.entries(sinks))
    for (const name of spellings) {
      clear();
      write(name);
      const about = `${JSON.stringify(name.slice(0, 80))} as ${sink}`;
      const opened: string[] = [];
      let found: Awaited<ReturnType<typeof load>> | FileError | undefined;
      await withCalls(
        (call) => {
          if (call.kind === 'open') opened.push(path.resolve(call.path));
        },
        async () => {
          found = await load(dir).catch((error: unknown) => {
            if (!(error instanceof FileError)) throw new Error(about, { cause: error });
            return error;
          });
        },
      );
      for (const file of opened)
        expect(file.startsWith(dir + path.sep) || file.startsWith(root), `${about} opens ${file}`).toBe(true);
      if (found instanceof FileError) {
        expect(found.message, about).not.toMatch(/\p{Cc}/u);
        refused++;
      } else
        for (const { image } of found!.records)
          expect(realpathSync(image).startsWith(root), `${about} is read`).toBe(true);
    }
  clear();
  return refused;
}

describe('a path that leads outside', () => {
  it('is followed from no table and no report', { timeout: 60_000 }, async () => {
    expect(new Set(spellings).size).toBe(60);
    expect(await tryAll(loadRecords)).toBeGreaterThanOrEqual(150);
  });
  it('is no name of a shard', { timeout: 60_000 }, async () => {
    const base = path.join(scratch, 'escaping-base');
    await writeTinyBase(base);
    const weights = path.join(base, 'unet/diffusion_pytorch_model.safetensors');
    rmSync(weights);
    for (const name of spellings) {
      writeFileSync(`${weights}.index.json`, JSON.stringify({ weight_map: { 'conv_in.bias': name } }));
      const opened: string[] = [];
      await withCalls(
        (call) => {
          if (call.kind === 'open') opened.push(path.resolve(call.path));
        },
        () => expect(openBase(base)).rejects.toThrow(/index\.json: weight_map: [^\n]*$/),
      );
      for (const file of opened) expect(file.startsWith(base + path.sep), file).toBe(true);
    }
  });
  it('would be found in a reader that joins what it is told', { timeout: 60_000 }, async () => {
    const joining: typeof loadRecords = async (from) => {
      const table = path.join(from, 'metadata.jsonl');
      if (!existsSync(table)) return loadRecords(from);
      const { readFileSync } = await import('node:fs');
      const { file_name: file } = JSON.parse(readFileSync(table, 'utf8')) as { file_name: string };
      const image = path.join(from, file);
      const records = existsSync(image) ? [{ id: file, file, image, text: 'x' }] : [];
      return { layout: 'joined', dir: from, records, skipped: [], warnings: [], problems: [] };
    };
    await expect(tryAll(joining)).rejects.toThrow(/outside\.png" as file_name of JSON lines is read/);
  });
});
