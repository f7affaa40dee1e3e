import { execFileSync } from 'node:child_process';
import { linkSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { FileError } from '../../../models/io/error.ts';
import { loadDataset } from '../../../train/data/dataset.ts';
import { loadRecords } from '../../../train/data/layouts/index.ts';
import { film, folder, refusal, report, rows, scratch } from '../../support/data-fixtures.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';

describe('which layout', () => {
  it('tells what it looked for when there is none', async () => {
    const message = await refusal(loadDataset(folder({ 'a.png': undefined })));
    for (const word of ['metadata.csv', 'metadata.jsonl', 'ClinicalReadings', 'ecgen-radiology', 'captions.csv']) {
      expect(message).toContain(word);
    }
    expect(await refusal(loadDataset(join(scratch, 'nowhere')))).toMatch(/nowhere: data: no such folder/);
  });

  it('asks when there are two, and takes the one named', async () => {
    const dir = folder({
      'a.png': undefined,
      'metadata.csv': rows('a.png,hello'),
      'captions.csv': 'id,subtype,text\n',
    });
    expect(await refusal(loadDataset(dir))).toMatch(/imagefolder and patchgastric/);
    expect((await loadDataset(dir, { layout: 'imagefolder' })).records.length).toBe(1);
  });
});

describe('imagefolder', () => {
  it('reads records with patients, texts and pictures', async () => {
    const dir = folder({
      'img/a b.png': undefined,
      'c.png': undefined,
      'metadata.csv':
        'file_name,patient_id,text\r\nimg/a b.png,7,"Left, small.\nNo ""fluid""."\r\n\r\nc.png,,Clear.\r\n',
    });
    const { records, warnings, layout } = await loadDataset(dir);
    expect(layout).toBe('imagefolder');
    expect(warnings).toEqual([]);
    expect(records).toMatchObject([
      {
        id: 'img/a b.png',
        text: 'Left, small.\nNo "fluid".',
        patient: '7',
        picture: { width: 8, height: 8, depth: 8 },
      },
      { id: 'c.png', text: 'Clear.' },
    ]);
    expect(records[1]).not.toHaveProperty('patient');
    expect(records[0]!.picture.hash).toBe(records[1]!.picture.hash);
  });

  it('keeps a file named twice, and says so', async () => {
    const dir = folder({ 'a.png': undefined, 'metadata.csv': rows('a.png,one', 'a.png,two') });
    const { records, warnings } = await loadRecords(dir);
    expect(records.map(({ id }) => id)).toEqual(['a.png', 'a.png#2']);
    expect(warnings).toEqual(['named in more than one line of metadata.csv: "a.png"']);
  });

  it.each([
    ['', /metadata\.csv: is empty/],
    ['file_name,text\n', /metadata\.csv: has a header line but no rows/],
    ['name;words\na.png;hi\n', /line 1: column "file_name", "text" is missing, found "name;words"/],
    ['file_name,text,text\na.png,hi,ho\n', /line 1: column "text" is there twice/],
    ['file_name,text\na.png,hi\n\nb.png,x,y\n', /line 4: row has another number of columns/],
    ['file_name,text\na.png,"hi\nho', /quote is opened and never closed/],
    ['file_name,text\na.png,a "quoted" word\n', /line 2: a double quote within a cell/],
    ['file_name,text\na.png,"two\nlines"\na.png,\n', /line 4: text: is empty/],
    ['file_name,text\na.png,nul\0byte\n', /line 2: text: holds a NUL/],
    ['file_name,text\n,hi\n', /line 2: file_name: "" is empty/],
  ])('refuses table %j', async (table, message) => {
    expect(await refusal(loadDataset(folder({ 'a.png': undefined, 'metadata.csv': table })))).toMatch(message);
  });

  it('names the first line that is not UTF-8', async () => {
    const table = Buffer.from(rows('a.png,fine', 'a.png,\u00e9panchement', 'a.png,fine'), 'latin1');
    const message = await refusal(loadDataset(folder({ 'a.png': undefined, 'metadata.csv': table })));
    expect(message).toMatch(/metadata\.csv: line 3: is not UTF-8/);
  });

  it.each([
    ['[]', /line 1: expected a JSON object/],
    ['null', /line 1: expected a JSON object/],
    ['{"file_name":"a.png","text":"ok"}\n{"file_name":"a.png"}', /line 2: text: is missing/],
    ['{"file_name":"a.png","text":["x"]}', /line 1: text: expected a string/],
    ['{"file_name":"a.png","text":"x","text":"y"}', /line 1: text: duplicate key "text"/],
    ['{"file_name":"a.png","text":"\\ud800"}', /line 1: text: holds half a character/],
    ['\n\n{"file_name":"a.png",', /line 3: not valid JSON/],
    [`{"file_name":"a.png","text":${'['.repeat(5000)}${']'.repeat(5000)}}`, /line 1: text: JSON depth/],
  ])('refuses JSON lines %#', async (table, message) => {
    expect(await refusal(loadDataset(folder({ 'a.png': undefined, 'metadata.jsonl': table })))).toMatch(message);
  });

  it('names a broken image among good ones', async () => {
    const broken = Uint8Array.from(film.subarray(0, film.length - 20));
    const dir = folder({ 'a.png': undefined, 'b.png': broken, 'metadata.csv': rows('a.png,x', 'b.png,y') });
    expect(await refusal(loadDataset(dir))).toMatch(/b\.png: image: PNG .*trunc/);
  });
});

describe('paths stay inside the data folder', () => {
  const spellings = [
    '../outside.png',
    'img/../../outside.png',
    './../outside.png',
    'img/..',
    '..',
    '../data-sibling/x.png',
    '/etc/hostname',
    '//etc/hostname',
    '~/x.png',
    'C:/x.png',
    'C:\\x.png',
    '\\\\host\\share\\x.png',
    '..\\outside.png',
    'img\\a.png',
    'http://127.0.0.1:9/x.png',
    'https://example.org/x.png',
    'file:///etc/hostname',
    'data:image/png;base64,AA',
    'ftp:x',
    'img/a.png\0.jpg',
    '\u0001a.png',
    '%2e%2e/outside.png',
    '..%2foutside.png',
    '%2fetc%2fhostname',
    '\u2024\u2024/outside.png',
    '..\u2215outside.png',
    'link.png',
    'linked/outside.png',
    'loop.png',
    'img',
    'img/',
    '.',
    'pipe.png',
    `${'x/'.repeat(3000)}a.png`,
    'x'.repeat(300),
    'img/a.png/x',
    'nothing.png',
  ];

  it('refuses every other spelling, without waiting for pipes', async () => {
    const dir = folder({ 'img/a.png': undefined, '../outside.png': undefined, '../data-sibling/x.png': undefined });
    symlinkSync('../outside.png', join(dir, 'link.png'));
    symlinkSync('..', join(dir, 'linked'));
    symlinkSync('loop.png', join(dir, 'loop.png'));
    execFileSync('mkfifo', [join(dir, 'pipe.png')]);
    for (const name of spellings) {
      writeFileSync(join(dir, 'metadata.jsonl'), JSON.stringify({ file_name: name, text: 'x' }));
      const message = await refusal(loadRecords(dir));
      expect(message).toMatch(/metadata\.jsonl: line 1: file_name: /);
    }
  });

  it('takes links within the folder, hard links, and a folder that is a link itself', async () => {
    const dir = folder({ 'img/a.png': undefined, 'metadata.csv': rows('soft.png,x', 'hard.png,y', './img/a.png,z') });
    symlinkSync('img/a.png', join(dir, 'soft.png'));
    linkSync(join(dir, 'img/a.png'), join(dir, 'hard.png'));
    symlinkSync(dir, join(dirname(dir), 'link-to-data'));
    expect((await loadDataset(join(dirname(dir), 'link-to-data'))).records.length).toBe(3);
  });
});

describe('mutants', () => {
  const random = randomOf(seedKey(seedOf(11)));
  const mutate = (bytes: Uint8Array): Uint8Array => {
    const mutant = [...bytes];
    for (let edits = 1 + random.int(4); edits > 0; edits--) {
      const at = random.int(mutant.length);
      const edit = random.int(3);
      if (edit === 0) mutant[at] = random.choice([0, 10, 13, 34, 38, 44, 60, 62, 92, 255, random.int(256)]);
      else if (edit === 1) mutant.splice(at, 1 + random.int(6));
      else mutant.splice(at, 0, ...mutant.slice(random.int(mutant.length)).slice(0, random.int(12)));
    }
    return Uint8Array.from(mutant);
  };

  async function tryMutants(load: (dir: string) => Promise<unknown>, runs: number): Promise<void> {
    const table = Buffer.from(rows('a.png,"Left, small."', 'b.png,Clear.'));
    const lines = Buffer.from('{"file_name":"a.png","text":"x"}\n{"file_name":"b.png","text":"y"}\n');
    const xml = Buffer.from(report('CXR1', 'Lungs &lt; clear.', [['a', 'PA']]));
    const dirs = [
      [folder({ 'a.png': undefined, 'b.png': undefined }), 'metadata.csv', table],
      [folder({ 'a.png': undefined, 'b.png': undefined }), 'metadata.jsonl', lines],
      [folder({ 'images/a.png': undefined, 'ecgen-radiology/1.xml': xml }), 'ecgen-radiology/1.xml', xml],
    ] as const;
    let accepted = 0;
    let refused = 0;
    for (const [dir, name, original] of dirs) {
      for (let run = 0; run < runs; run++) {
        writeFileSync(join(dir, name), mutate(original));
        const outcome = await load(dir).then(
          () => 'accepted',
          (error: unknown) => (error instanceof FileError && !/[\n\r]/.test(error.message) ? 'refused' : String(error)),
        );
        expect(['accepted', 'refused']).toContain(outcome);
        if (outcome === 'accepted') accepted++;
        else refused++;
      }
    }
    expect(accepted).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(runs);
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  }
  it(
    'of tables and reports are read or refused in one line, never anything else',
    {
      timeout: patience('tables', 120_000),
    },
    () => tryMutants(loadRecords, casesOf('tables')),
  );
  it.each<readonly [string, (dir: string) => Promise<unknown>]>([
    ['takes everything', (dir) => loadRecords(dir).catch(() => [])],
    [
      'repeats a line of the file in its message',
      (dir) =>
        loadRecords(dir).catch((error: Error) => {
          throw Object.assign(error, { message: `${error.message}\nleft, small` });
        }),
    ],
    [
      'falls over what is not there',
      async (dir) => {
        const file = readdirSync(dir).find((name) => name.startsWith('metadata'));
        return JSON.parse(readFileSync(join(dir, file ?? ''), 'utf8'));
      },
    ],
  ])('find out a reader that %s', async (_, load) => {
    await expect(tryMutants(load, 30)).rejects.toThrow();
  });
});
