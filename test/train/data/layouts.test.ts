import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { loadDataset } from '../../../train/data/dataset.ts';
import { loadRecords } from '../../../train/data/layouts/index.ts';
import { frontalImages } from '../../../train/data/layouts/iu-xray.ts';
import { readingText } from '../../../train/data/layouts/montgomery.ts';
import { parseOpenI } from '../../../train/data/layouts/open-i-xml.ts';
import { readPatchGastric } from '../../../train/data/layouts/patchgastric.ts';
import { folder, refusal, report } from '../../support/data-fixtures.ts';

describe('Montgomery', () => {
  const reading = "Patient's Sex: F  \r\nPatient's Age: 045Y\r\n\r\nright upper lobe\r\n infiltrate \r\n";

  it('joins sex, age and finding', async () => {
    const dir = folder({
      'CXR_png/MCUCXR_0001_0.png': undefined,
      'CXR_png/MCUCXR_0002_1.png': undefined,
      'CXR_png/MCUCXR_0009_1.png': undefined,
      'CXR_png/Thumbs.db': 'x',
      'ClinicalReadings/MCUCXR_0001_0.txt': "Patient's Sex: M\nPatient's Age: 009M\nnormal",
      'ClinicalReadings/MCUCXR_0002_1.txt': reading,
      'ClinicalReadings/MCUCXR_0003_1.txt': reading,
    });
    const { records, skipped, layout } = await loadDataset(dir);
    expect(layout).toBe('montgomery');
    expect(records.map(({ text, patient }) => [text, patient])).toEqual([
      ["Patient's Sex: M, Patient's Age: 009M, normal", 'MCUCXR_0001'],
      ["Patient's Sex: F, Patient's Age: 045Y, right upper lobe infiltrate", 'MCUCXR_0002'],
    ]);
    expect(skipped.map(({ file }) => file)).toEqual([
      'ClinicalReadings/MCUCXR_0003_1.txt',
      'CXR_png/MCUCXR_0009_1.png',
    ]);
  });

  it.each([
    ['', /empty/],
    ['normal', /sex: line 1 is "normal"/],
    ["Patient's Sex: F\nPatient's Age: old\nnormal", /age: line 2/],
    ["Patient's Sex: F\nPatient's Age: 045Y\n", /finding: is empty/],
  ])('refuses %j', (source, message) => {
    expect(() => readingText(source, 'MCUCXR_0001_0.txt')).toThrow(message);
  });

  it('names the folder that is missing', async () => {
    const dir = folder({ 'ClinicalReadings/MCUCXR_0001_0.txt': reading });
    expect(await refusal(loadDataset(dir))).toMatch(/folder CXR_png is missing/);
    expect(
      await refusal(loadDataset(folder({ 'CXR_png/x.png': undefined, 'ClinicalReadings/y.txt': reading }))),
    ).toMatch(/no image-text pair .* 2 left out/);
  });
});

describe('IU X-Ray', () => {
  it('takes frontal films of the XML form and counts what it leaves out', async () => {
    const dir = folder({
      'NLMCXR_png/CXR1_a.png': undefined,
      'NLMCXR_png/CXR1_b.png': undefined,
      'NLMCXR_png/CXR2_a.png': undefined,
      'NLMCXR_png/CXR10_a.png': undefined,
      'ecgen-radiology/1.xml': report('CXR1', 'Lungs &lt; clear &#38; <b>dry</b>.', [
        ['CXR1_a', 'PA and lateral'],
        ['CXR1_b', 'PA and lateral'],
      ]),
      'ecgen-radiology/2.xml': report('CXR2', '', [['CXR2_a', 'Frontal view']], 'No change.'),
      'ecgen-radiology/3.xml': report('CXR3', 'x', []),
      'ecgen-radiology/4.xml': report('CXR4', '', [['CXR2_a', '']], 'None.'),
      'ecgen-radiology/5.xml': report('CXR5', 'x', [['CXR5_a', 'Lateral']]),
      'ecgen-radiology/10.xml': report('CXR10', 'Ten.', [['CXR10_a', 'Chest']]),
    });
    const { records, skipped } = await loadDataset(dir);
    expect(records.map(({ id, text, patient }) => [id, text, patient])).toEqual([
      ['CXR1_a', 'Lungs < clear & dry.', 'CXR1'],
      ['CXR2_a', 'No change.', 'CXR2'],
      ['CXR10_a', 'Ten.', 'CXR10'],
    ]);
    expect(skipped.map(({ reason }) => reason)).toEqual([
      'no parentImage',
      'neither findings nor impression',
      'no frontal image',
    ]);
  });

  it('reads the CSV form with its projections', async () => {
    const dir = folder({
      'images/images_normalized/1_IM-0001-4001.dcm.png': undefined,
      'images/images_normalized/1_IM-0001-3001.dcm.png': undefined,
      'indiana_reports.csv': 'uid,MeSH,findings,impression\n1,normal,"Clear, dry.",Normal.\n2,normal,,\n3,x,y,z\n',
      'indiana_projections.csv':
        'uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n2,2.dcm.png,Frontal\n3,3.dcm.png,Frontal\n',
    });
    const { records, skipped } = await loadDataset(dir);
    expect(records.map(({ id, text, patient }) => [id, text, patient])).toEqual([
      ['1_IM-0001-4001.dcm', 'Clear, dry.', '1'],
    ]);
    expect(skipped.length).toBe(2);
    writeFileSync(join(dir, 'indiana_projections.csv'), 'uid,filename,projection\n1,../../../outside.png,Frontal\n');
    expect(await refusal(loadDataset(dir))).toMatch(/line 2: filename: .* leads outside/);
    writeFileSync(join(dir, 'indiana_projections.csv'), 'uid,filename,projection\n1,a.png,Oblique\n');
    expect(await refusal(loadDataset(dir))).toMatch(/line 2: projection/);
    rmSync(join(dir, 'indiana_projections.csv'));
    expect(await refusal(loadDataset(dir))).toMatch(/indiana_projections\.csv: is not there/);
  });

  it('decides the view by the captions, else takes the first', () => {
    const view = (...captions: readonly string[]) =>
      frontalImages(captions.map((caption, at) => ({ id: String(at), caption })))
        .map(({ id }) => id)
        .join();
    expect(view('PA and lateral chest', 'PA and lateral chest')).toBe('0');
    expect(view('Lateral', 'PA chest')).toBe('1');
    expect(view('Lateral', 'chest')).toBe('1');
    expect(view('Portable AP', 'Frontal')).toBe('0,1');
    expect(view('lateral')).toBe('');
  });

  it.each([
    ['', /is empty/],
    ['<eCitation>', /Unclosed/],
    ['<other/>', /root is "other", expected eCitation/],
    ['<!DOCTYPE x [<!ENTITY a "b">]><eCitation>&a;</eCitation>', /DOCTYPE/],
    ['<eCitation>&nbsp;</eCitation>', /unknown entity "&nbsp;"/],
    ['<eCitation>a & b</eCitation>', /unknown entity/],
    ['<eCitation/><eCitation/>', /root is/],
    [`<eCitation>${'<a>'.repeat(5000)}${'</a>'.repeat(5000)}</eCitation>`, /nested too deep/],
    ['<eCitation>\0</eCitation>', /NUL/],
  ])('refuses XML %#', (source, message) => {
    expect(() => parseOpenI(source, '3.xml')).toThrow(message);
    expect(() => parseOpenI(source, '3.xml')).toThrow(FileError);
  });

  it('reads an ampersand in CDATA and keeps comments out', () => {
    const source = report('CXR1', '<![CDATA[a & b <!DOCTYPE]]> c<!-- &d; -->', []);
    expect(parseOpenI(source, '1.xml').findings).toBe('a & b <!DOCTYPE c');
  });
});

describe('PatchGastric', () => {
  const slides = ['s1,Type A,glands', 's2,"Type B, solid",sheets', 's3,Type A,more glands', 's4,Type C,rare'];
  const patches = ['s1_0a', 's1_0b', 's2_0a', 's2_0b', 's2_0c', 's3_0a', 's3_0b', 's4_0a', 'zz_0a'];
  const make = () =>
    folder({
      'captions.csv': ['id,subtype,text', ...slides, ''].join('\n'),
      ...Object.fromEntries(patches.map((name) => [`patches_captions/${name}.png`, undefined])),
    });

  it('draws the same number of each subtype, the same again for the same seed', async () => {
    const dir = make();
    const load = async (seed: number) =>
      readPatchGastric(dir, { subtypes: ['type a', 'Type-B solid'], perClass: 2, seed });
    const { records, skipped } = await load(1);
    const labels = records.map(({ label }) => label);
    expect(labels).toEqual(['Type A', 'Type A', 'Type B, solid', 'Type B, solid']);
    for (const { id, patient, text } of records) {
      expect(id.startsWith(`${patient}_`)).toBe(true);
      expect(text).toBe(
        slides
          .find((slide) => slide.startsWith(`${patient},`))!
          .split(',')
          .at(-1),
      );
    }
    expect(skipped).toEqual([{ file: 'zz_0a.png', reason: 'belongs to no slide of captions.csv' }]);
    expect((await load(1)).records).toEqual(records);
    const seeds = await Promise.all([2, 3, 4, 5].map(load));
    expect(seeds.some((other) => other.records.map(({ id }) => id).join() !== records.map(({ id }) => id).join())).toBe(
      true,
    );
  });

  it('is limited by the rarest subtype and says so; refuses unknown subtypes', async () => {
    const dir = make();
    const { records, warnings } = await loadRecords(dir);
    expect(records.length).toBe(3);
    expect(warnings[0]).toMatch(/only 1 patches per subtype/);
    expect(await refusal(readPatchGastric(dir, { subtypes: ['Type X'] }))).toMatch(
      /captions\.csv: subtype: "Type X" is not there/,
    );
  });
});
