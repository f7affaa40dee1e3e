/** Data as people have it: what spreadsheets, other programs and operating systems make of tables and folders. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { configSchema } from '../../../train/config/config.ts';
import { loadDataset, usedBits } from '../../../train/data/dataset.ts';
import { LAYOUTS, loadRecords } from '../../../train/data/layouts/index.ts';
import type { Layout } from '../../../train/data/layouts/layout.ts';
import { decodeImage } from '../../../train/data/pictures/images.ts';
import { trainingPixels } from '../../../train/data/pictures/training-pixels.ts';
import { resolveInside } from '../../../train/data/records.ts';
import { main as inspect } from '../../../train/inspect.ts';
import { findData } from '../../../train/trainer/pairs.ts';
import { runCommand } from '../../support/commands.ts';
import { film, folder, refusal, rows } from '../../support/data-fixtures.ts';

const two = { 'a.png': undefined, 'b.png': undefined };
const texts = async (files: Parameters<typeof folder>[0], options = {}) =>
  (await loadDataset(folder(files), options)).records.map(({ file, text, patient }) => [file, text, patient]);
const both = [
  ['a.png', 'one', undefined],
  ['b.png', 'two', undefined],
];

describe('a layout', () => {
  it('is one object in the list', async () => {
    const toy: Layout = {
      name: 'toy',
      doc: 'a file called toy',
      detect: (_, names) => names.includes('toy'),
      read: async (dir) => ({
        layout: 'toy',
        dir,
        records: [
          {
            id: '1',
            file: 'x.png',
            image: await resolveInside(dir, 'x.png', { file: 'toy', field: '' }),
            text: 'a toy',
          },
        ],
        skipped: [],
        warnings: [],
        problems: [],
      }),
      says: 'there is one',
    };
    const layouts = [...LAYOUTS, toy];
    const dir = folder({ 'x.png': undefined, toy: '' });
    const { layout, records } = await loadDataset(dir, { layouts });
    expect([layout, records.map(({ text }) => text)]).toEqual(['toy', ['a toy']]);
    expect(await refusal(loadDataset(dir))).toMatch(/no known layout/);
    expect(await refusal(loadDataset(folder({}), { layouts }))).toContain('toy (a file called toy)');
  });
  it('has a name of its own, and says what it looks for', () => {
    expect(new Set(LAYOUTS.map(({ name }) => name)).size).toBe(LAYOUTS.length);
    for (const { doc, says } of LAYOUTS) expect(Math.min(doc.length, says.length)).toBeGreaterThan(10);
  });
});

describe('captions beside the pictures', () => {
  it.each(['.txt', '.caption', '.TXT'])('%s', async (ending) => {
    expect(await texts({ ...two, [`a${ending}`]: '\ufeffone\r\n', [`b${ending}`]: ' two\n' })).toEqual(both);
  });
  it("in kohya's folders of repeats, whose number is told", async () => {
    const dir = folder({
      '10_chest/a.png': undefined,
      '10_chest/a.txt': 'one',
      '2_lung/a.png': undefined,
      '2_lung/a.txt': 'two',
    });
    const { records, warnings, layout } = await loadDataset(dir);
    expect(layout).toBe('sidecar');
    expect(records.map(({ id, text }) => [id, text])).toEqual([
      ['10_chest/a.png', 'one'],
      ['2_lung/a.png', 'two'],
    ]);
    expect(warnings).toEqual([expect.stringMatching(/^10_chest, 2_lung: a number of repeats is not read/)]);
  });
  it('what has no partner is left out and named', async () => {
    const { records, skipped } = await loadDataset(folder({ ...two, 'a.txt': 'one', 'c.txt': 'three' }));
    expect(records).toHaveLength(1);
    expect(skipped).toEqual([
      { file: 'c.txt', reason: 'has no picture' },
      { file: 'b.png', reason: 'has no .txt or .caption beside it' },
    ]);
  });
  it('two captions or an empty one: refused by name', async () => {
    expect(await refusal(loadDataset(folder({ ...two, 'a.txt': 'x', 'a.caption': 'y', 'b.txt': 'z' })))).toMatch(
      /a\.caption: caption: a\.txt is there too/,
    );
    expect(await refusal(loadDataset(folder({ ...two, 'a.txt': 'x', 'b.txt': ' \n' })))).toMatch(
      /b\.txt: caption: is empty/,
    );
  });
});

describe('tables in folders, with other columns', () => {
  it('one table in train and one in test are taken together, and it is said', async () => {
    const dir = folder({
      'train/a.png': undefined,
      'train/metadata.csv': rows('a.png,one'),
      'test/a.png': undefined,
      'test/metadata.csv': rows('a.png,two'),
    });
    const { records, warnings } = await loadDataset(dir);
    expect(records.map(({ id, text }) => [id, text])).toEqual([
      ['test/a.png', 'two'],
      ['train/a.png', 'one'],
    ]);
    expect(warnings).toEqual([expect.stringMatching(/^test, train are taken together/)]);
  });
  it.each(['caption', 'prompt', 'description'])('texts in a column %s', async (column) => {
    expect(await texts({ ...two, 'metadata.csv': `file_name,${column}\na.png,one\nb.png,two\n` })).toEqual(both);
    const lines = `{"file_name":"a.png","${column}":"one"}\n{"image":"b.png","${column}":"two"}\n`;
    expect(await texts({ ...two, 'metadata.jsonl': lines })).toEqual(both);
  });
  it('in no column of a usual name: the line says how to name it', async () => {
    const dir = folder({ ...two, 'metadata.csv': 'file_name,report\na.png,one\nb.png,two\n' });
    expect(await refusal(loadDataset(dir))).toMatch(
      /column "text" is missing, found .*; --caption-column names another$/,
    );
  });
  it('in the column that is named, and nowhere else', async () => {
    const table = 'file_name,text,words\na.png,x,one\nb.png,y,two\n';
    expect(await texts({ ...two, 'metadata.csv': table }, { captionColumn: 'words' })).toEqual(both);
    const refused = loadDataset(folder({ ...two, 'metadata.csv': table }), { captionColumn: 'wrods' });
    expect(await refusal(refused)).toMatch(/line 1: column "wrods" is missing, found "file_name", "text", "words"/);
  });
});

describe('tables as spreadsheets save them', () => {
  it.each([
    ['a byte-order mark and CRLF', '\ufefffile_name,text\r\na.png,one\r\nb.png,two\r\n'],
    ['a column of numbers without a name', ',file_name,text\n0,a.png,one\n1,b.png,two\n'],
    ['empty columns', 'file_name,text,,\na.png,one,,\nb.png,two,,\n'],
    ['empty cells beyond the header', 'file_name,text\na.png,one,,\nb.png,two\n'],
    ['empty rows', 'file_name,text\na.png,one\n,\nb.png,two\n,\n , \n'],
    ['blanks in the header', ' file_name , text\na.png,one\nb.png,two\n'],
    ['blanks around names', 'file_name,text\na.png ,one\n b.png,two\n'],
    ['blanks before quotes', 'file_name, text\na.png, "one"\nb.png, "two"\n'],
    ['semicolons', 'file_name;text\na.png;one\nb.png;two\n'],
    ['semicolons and quotes', '"file_name";"text"\r\n"a.png";"one"\r\n"b.png";"two"\r\n'],
    ['tabs', 'file_name\ttext\na.png\tone\nb.png\ttwo\n'],
  ])('%s', async (_, table) => {
    expect(await texts({ ...two, 'metadata.csv': table })).toEqual(both);
  });
  it('a text keeps its semicolons and commas', async () => {
    const table = 'file_name;text\na.png;one, two\nb.png;"three; four"\n';
    expect((await texts({ ...two, 'metadata.csv': table })).map(([, text]) => text)).toEqual([
      'one, two',
      'three; four',
    ]);
  });
});

describe('a patient who is not known', () => {
  it.each(['', ' ', 'nan', 'NaN', 'null', 'None', 'N/A', 'NA', '-', '?', 'unknown', '<NA>'])(
    '%j in a table',
    async (name) => {
      const table = `file_name,text,patient_id\na.png,one,${name}\nb.png,two,${name}\n`;
      expect(await texts({ ...two, 'metadata.csv': table })).toEqual(both);
    },
  );
  it.each(['null', 'NaN', '""', '"nan"', '-Infinity'])('%s in JSON lines', async (name) => {
    const line = (file: string, text: string) =>
      `{"file_name":"${file}","text":"${text}","subject_id":${name},"age":NaN}`;
    expect(await texts({ ...two, 'metadata.jsonl': `${line('a.png', 'one')}\n${line('b.png', 'two')}` })).toEqual(both);
  });
  it('a known one is kept, zero too, and a text that says NaN', async () => {
    const lines =
      '{"file_name":"a.png","text":"NaN \\" Infinity","patient":0}\n{"file_name":"b.png","text":"two","patient":"nancy"}';
    expect(await texts({ ...two, 'metadata.jsonl': lines })).toEqual([
      ['a.png', 'NaN " Infinity', '0'],
      ['b.png', 'two', 'nancy'],
    ]);
  });
});

describe('what systems leave', () => {
  const junk = {
    '.DS_Store': 'x',
    'Thumbs.db': 'x',
    'desktop.ini': 'x',
    '__MACOSX/._a.png': 'x',
    '._a.png': 'x',
    '._metadata.csv': 'x',
  };
  it('is no part of the data', async () => {
    expect(await texts({ ...two, ...junk, 'metadata.csv': rows('a.png,one', 'b.png,two') })).toEqual(both);
    expect(await texts({ ...two, ...junk, '._a.txt': '\0', 'a.txt': 'one', 'b.txt': 'two' })).toEqual(both);
  });
  it('a twin that made it into the table is left out and named', async () => {
    const dir = folder({ ...two, '._a.png': 'x', 'metadata.csv': rows('a.png,one', '._a.png,one') });
    expect((await loadDataset(dir)).skipped.map(({ file }) => file)).toEqual(['._a.png']);
  });
});

describe('names that look alike', () => {
  it.each([
    ['Röntgen.png'.normalize('NFC'), 'Röntgen.png'.normalize('NFD'), /accents are stored in another form/],
    ['Röntgen.png'.normalize('NFD'), 'Röntgen.png'.normalize('NFC'), /accents are stored in another form/],
    ['film.png', 'Film.PNG', /is not there; found "Film\.PNG"$/],
    ['img/film.png', 'IMG/film.png', /is not there; found "IMG\/film\.png"$/],
    ['other.png', 'film.png', /"other\.png" is not there$/],
  ])('%s beside %s', async (told, stored, message) => {
    const dir = folder({ 'metadata.csv': rows(`${told},x`) });
    mkdirSync(join(dir, stored, '..'), { recursive: true });
    writeFileSync(join(dir, stored), film);
    expect(await refusal(loadRecords(dir))).toMatch(message);
  });
});

describe('several odd pairs', () => {
  const names = Array.from({ length: 30 }, (_, i) => `f${i}.png`);
  const make = () =>
    folder({
      ...Object.fromEntries(names.slice(0, 3).map((name) => [name, undefined])),
      'b.png': 'no picture',
      'metadata.csv': `${rows(...names.map((name) => `${name},text`))}b.png,x\nf1.png,\nf2.png,x,y\n`,
    });
  it('are told at once, twenty of them', async () => {
    const message = await refusal(loadDataset(make()));
    expect(message).toMatch(
      /data: 30 problems \(--skip-unreadable trains on the rest\): metadata\.csv: line 34: row has another number/,
    );
    for (const word of ['"f3.png" is not there', '"f20.png" is not there', 'and 10 more'])
      expect(message).toContain(word);
    expect(message.split('; ')).toHaveLength(21 + 1);
    expect(message).not.toContain('"f29.png"');
  });
  it('are left out on request, and recorded', async () => {
    const { records, skipped, problems } = await loadDataset(make(), { skipUnreadable: true });
    expect([records.length, skipped.length, problems]).toEqual([3, 30, []]);
    expect(skipped.map(({ file }) => file)).toEqual(expect.arrayContaining(['b.png', 'f1.png', 'f29.png']));
    const none = loadDataset(folder({ 'metadata.csv': rows('a.png,x', 'b.png,y') }), { skipUnreadable: true });
    expect(await refusal(none)).toMatch(/no image-text pair .* 2 left out/);
  });
  it('one alone is told as it is', async () => {
    expect(await refusal(loadDataset(folder({ ...two, 'metadata.csv': rows('a.png,one', 'c.png,x') })))).toMatch(
      /metadata\.csv: line 3: file_name: "c\.png" is not there$/,
    );
  });
});

describe('films of 12 bits in files of 16', () => {
  const wide = (values: Uint16Array) =>
    sharp(values, { raw: { width: 8, height: 8, channels: 1, depth: 'ushort' } as never })
      .toColourspace('grey16')
      .png()
      .toBuffer();
  const ramp = (step: number) => Uint16Array.from({ length: 64 }, (_, at) => at * step);
  it('inspect says that they are dark, how many bits they use, what was turned and what lies in two folders', async () => {
    const lying = await sharp(film).rotate(90).jpeg().withMetadata({ orientation: 6 }).toBuffer();
    const dir = folder({
      'train/a.png': await wide(ramp(65)),
      'train/b.png': undefined,
      'test/b.png': undefined,
      'test/c.jpg': lying,
      'train/metadata.csv': rows('a.png,one', 'b.png,two'),
      'test/metadata.csv': rows('b.png,two', 'c.jpg,three'),
    });
    const sheet = join(dir, '../sheet.png');
    const { code, stdout } = await runCommand(inspect, [dir, '--split', '50/50', '--sheet', sheet, '--stretch']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /range +brightest pixel \d+% of white; 1 pictures have none above half of white, they are dark; those of 16 bits use 12, train --stretch makes 4,095 white/,
    );
    expect(stdout).toMatch(/turned +1 lay on their side/);
    expect(stdout).toMatch(/duplicates +1 are in several of test, train/);
    expect(stdout).toMatch(/sheet\.png: 4 of 4 pictures/);
    // a run says it, too, and its report
    const { warnings } = (await findData(configSchema.parse({ data: dir, split: '50/50/0' }))).at(8);
    for (const warning of [
      'pictures of 16 bits use 12 and are dark, at most 6.2% of white; --stretch makes 4095 white',
      '1 picture lay on its side or was mirrored, with a mark that says so, and was turned: see that it is right',
      'of the pictures that are there several times 1 are in several of test, train: such parts are no test; --split keeps equal pictures together',
    ])
      expect(warnings).toContain(warning);
    const { data, info } = await sharp(sheet).raw().toBuffer({ resolveWithObject: true });
    expect(info.width).toBe(4 * 136 + 8);
    // the third tile in order of files is the film of 12 bits: with --stretch its last row is white
    const at = (x: number, y: number) => data[(y * info.width + x) * info.channels];
    expect(at(8 + 2 * 136 + 127, 8 + 127)).toBeGreaterThan(250);
    expect(at(8 + 2 * 136, 8)).toBeLessThan(5);
  });
  it('the greatest number of their bits becomes white on request, and what lies above, too', async () => {
    const picture = await decodeImage(await wide(ramp(65)));
    const dark = trainingPixels(picture, 8);
    const stretched = trainingPixels(picture, 8, { bits: 12 });
    for (const at of [0, 17, 63]) {
      expect(dark[3 * at]).toBeCloseTo((2 * 65 * at) / 65_535 - 1, 6);
      expect(stretched[3 * at]).toBeCloseTo((2 * 65 * at) / 4095 - 1, 6);
    }
    expect(Math.max(...trainingPixels(picture, 8, { bits: 10 }))).toBe(1);
    // pictures of 8 bits stay as they are
    expect(trainingPixels(await decodeImage(film), 8, { bits: 12 })).toEqual(
      trainingPixels(await decodeImage(film), 8),
    );
  });
  it.each([false, true])('a run with --stretch %s takes them so, and says it', async (stretch) => {
    const dir = folder({ 'a.png': await wide(ramp(65)), 'metadata.csv': rows('a.png,one') });
    const found = await findData(configSchema.parse({ data: dir, split: '100/0', stretch }));
    const { train, warnings } = found.at(8);
    expect((await train[0]!.pixels()).at(-1)).toBeCloseTo(stretch ? 1 : -0.875, 3);
    expect(warnings).toEqual([
      stretch
        ? 'pictures of 16 bits use 12: 4095 is taken for white'
        : 'pictures of 16 bits use 12 and are dark, at most 6.2% of white; --stretch makes 4095 white',
    ]);
  });
  it.each([
    [[4095], 12],
    [[900, 1023], 10],
    [[1024], 11],
    [[16_383], 14],
    [[16_384], undefined],
    [[4095, 65_535], undefined],
    [[], undefined],
  ])('brightest values %j use %s bits', (values, bits) => {
    const facts = { width: 1, height: 1, channels: 1 as const, turned: false, hash: '' };
    const wide = values.map((brightest) => ({ picture: { ...facts, depth: 16 as const, brightest } }));
    expect(usedBits([...wide, { picture: { ...facts, depth: 8, brightest: 255 } }])).toBe(bits);
  });
});
