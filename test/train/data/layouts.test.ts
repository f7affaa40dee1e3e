import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { loadDataset } from '../../../train/data/dataset.ts';
import { loadRecords } from '../../../train/data/layouts/index.ts';
import { frontalImages } from '../../../train/data/layouts/iu-xray.ts';
import { reportText } from '../../../train/data/layouts/mimic-cxr.ts';
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

describe("R2Gen's annotation.json", () => {
  const study = (id: string, report: string, ...image_path: string[]) => ({ id, report, image_path, split: 'x' });
  const annotation = (lists: object) => JSON.stringify(lists);
  const films = Object.fromEntries(
    ['CXR1_IM-1/0.png', 'CXR1_IM-1/1.png', 'CXR1_IM-2/0.png', 'CXR2_IM-3/0.png'].map((name) => [
      `images/${name}`,
      undefined,
    ]),
  );
  it('all parts, the film from the front, patients by the number of the study', async () => {
    const dir = folder({
      ...films,
      'annotation.json': annotation({
        train: [study('CXR1_IM-1', 'no\n acute  disease .', 'CXR1_IM-1/1.png', 'CXR1_IM-1/0.png')],
        val: [study('CXR1_IM-2', 'two .', 'CXR1_IM-2/0.png')],
        test: [study('CXR2_IM-3', 'three .', 'CXR2_IM-3/0.png')],
      }),
    });
    const { layout, records, warnings } = await loadDataset(dir);
    expect(layout).toBe('r2gen');
    expect(records.map(({ id, file, text, patient }) => [id, file, text, patient])).toEqual([
      ['CXR1_IM-1', 'images/CXR1_IM-1/0.png', 'no acute disease .', 'CXR1'],
      ['CXR1_IM-2', 'images/CXR1_IM-2/0.png', 'two .', 'CXR1'],
      ['CXR2_IM-3', 'images/CXR2_IM-3/0.png', 'three .', 'CXR2'],
    ]);
    expect(warnings).toEqual([expect.stringMatching(/^train, val, test are taken together/)]);
  });
  it('what is odd is named with its place', async () => {
    const bad = [
      study('a', 'x', '../../secret.png'),
      study('b', ' ', 'CXR1_IM-2/0.png'),
      { id: 'c', report: 4 },
      study('CXR2_IM-3', 'three .', 'CXR2_IM-3/0.png'),
      study('CXR2_IM-3', 'three .', 'CXR2_IM-3/0.png'),
      study('d', 'x', 'none.png'),
    ];
    const message = await refusal(loadDataset(folder({ ...films, 'annotation.json': annotation({ train: bad }) })));
    for (const part of [
      '5 problems',
      'train[0].image_path: "images/../../secret.png" leads outside',
      'train[1].report: is empty',
      'train[2].report: expected an object of id, report and image_path',
      'train[4].id: is there twice',
      'train[5].image_path: "images/none.png" is not there',
    ])
      expect(message).toContain(part);
    expect(await refusal(loadDataset(folder({ 'annotation.json': '[1]' })))).toMatch(/lists train, val, test/);
  });
});

describe('MIMIC-CXR-JPG', () => {
  const written = (findings: string) =>
    `                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n${findings}\n`;
  const tables = {
    'mimic-cxr-2.0.0-split.csv':
      'dicom_id,study_id,subject_id,split\nf1,501,10000032,train\nl1,501,10000032,train\nf2,502,10000032,test\nf3,503,11000001,train\nf4,504,11000001,validate\n',
    'mimic-cxr-2.0.0-metadata.csv':
      'dicom_id,subject_id,ViewPosition,Rows\nf1,10000032,PA,9\nl1,10000032,LATERAL,9\nf2,10000032,AP,9\nf3,11000001,PA,9\nf4,11000001,PA,9\n',
  };
  const films = {
    'files/p10/p10000032/s501/f1.jpg': undefined,
    'files/p10/p10000032/s501/l1.jpg': undefined,
    'files/p10/p10000032/s502/f2.jpg': undefined,
    'files/p11/p11000001/s503/f3.jpg': undefined,
  };
  const reports = (root: string) => ({
    [`${root}/p10/p10000032/s501.txt`]: written(' FINDINGS: \n \n The lungs are\n clear.\n \n IMPRESSION:  Normal.'),
    [`${root}/p10/p10000032/s502.txt`]: written(' IMPRESSION: No acute process.'),
  });
  it.each(['files', 'mimic-cxr-reports/files', 'reports'])('films from the front with reports in %s', async (root) => {
    const { layout, records, skipped } = await loadDataset(folder({ ...tables, ...films, ...reports(root) }));
    expect(layout).toBe('mimic-cxr');
    expect(records.map(({ id, text, patient }) => [id, text, patient])).toEqual([
      ['f1', 'The lungs are clear.', '10000032'],
      ['f2', 'No acute process.', '10000032'],
    ]);
    expect(skipped.map(({ file, reason }) => `${file} ${reason}`)).toEqual([
      'files/p11/p11000001/s503/f3.jpg no report p11/p11000001/s503.txt with findings or impression',
      'files/p11/p11000001/s504/f4.jpg is not there',
    ]);
  });
  it('a report without headings gives its last paragraph', () => {
    expect(reportText(written(' PA and lateral views.\n\n The heart is\n large.'))).toBe('The heart is large.');
    expect(reportText(' FINDINGS:  \n\n IMPRESSION: \n')).toBeUndefined();
  });
  it('packed or missing tables and names that lead away: refused', async () => {
    expect(await refusal(loadDataset(folder({ 'mimic-cxr-2.0.0-split.csv.gz': 'x' })))).toMatch(
      /unpack it with gunzip$/,
    );
    const split = 'dicom_id,study_id,subject_id\nf1,../501,10000032\n';
    const dir = folder({ ...tables, 'mimic-cxr-2.0.0-split.csv': split, ...films });
    expect(await refusal(loadDataset(dir))).toMatch(/line 2: dicom_id, study_id or subject_id is no name/);
  });
});
