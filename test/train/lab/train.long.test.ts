/** Page “Train here”: Node's numbers and the trainer's, a file that `generate` draws the same picture from, nothing sent. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { runPresets } from '../../../train/config/presets.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { main as generate } from '../../../train/generate.ts';
import type { Begun, Film, TrainAsk, TrainRow } from '../../../train/lab/machine/train.ts';
import { main as train } from '../../../train/train.ts';
import { browserThere } from '../../support/browser.ts';
import { runCommand } from '../../support/commands.ts';
import { dropFiles } from '../../support/dropped.ts';
import { axeFaults, type Call, inNode, inWorker, type OpenedLab, openLab, visit } from '../../support/lab.ts';
import { scratch } from '../../support/scratch.ts';

const STEPS = 4;
const ask: TrainAsk = {
  method: 'selora',
  rank: 1,
  lambda: 1.1,
  testEvery: 2,
  steps: STEPS,
  lr: runPresets.phantoms.lr,
  seed: 1,
};
const PAIRS = 20;
const at = (...names: readonly string[]): string => join(scratch, ...names);
const answerOf = <T>(said: readonly unknown[], i: number): T => (said[i] as { value: T }).value;

describe.runIf(browserThere)('training in the page', () => {
  let lab: OpenedLab;
  beforeAll(async () => {
    lab = await openLab({ only: ['train'] });
  }, 240_000);
  afterAll(() => lab?.close());

  test("rows, film and adapter are Node's to the bit; the adapter is the trainer's, and generate draws its film", async () => {
    const { page } = await visit(lab, '#/train');
    const steps: readonly Call[] = Array.from({ length: STEPS }, () => ['trainStep', 1]);
    const calls: readonly Call[] = [
      ['open', 'wasm'],
      ['trainData', { kind: 'phantoms', pairs: PAIRS }],
      ['trainBegin', ask],
      ...steps,
      ['trainAdapter', 1],
      ['trainFilm', 1, 1],
    ];
    const [here, there] = [await inNode(lab, calls), await inWorker(page, calls)];
    const rows = (said: readonly unknown[]) =>
      steps.map((_, i) => ({ ...answerOf<TrainRow>(said, 3 + i), seconds: 0 }));
    expect(rows(there)).toEqual(rows(here));
    expect(rows(here).map((r) => r.tests !== undefined)).toEqual([false, true, false, false]);
    expect(rows(here).at(-1)!.totalRank).toBeGreaterThan(137);
    expect(answerOf<Begun>(here, 2).modules.length).toBe(137);
    const bytes = Uint8Array.from(answerOf<Uint8Array>(there, 3 + STEPS));
    expect(bytes).toEqual(answerOf<Uint8Array>(here, 3 + STEPS));
    const film = Float32Array.from(answerOf<Film>(there, 4 + STEPS).picture);
    expect(film).toEqual(answerOf<Film>(here, 4 + STEPS).picture);

    // the trainer with the same settings ends with the same adapter
    const settings = `--pairs ${PAIRS} --steps ${STEPS} --test-every 2 --lambda 1.1 --warmup 1 --backend wasm --threads 1`;
    const quick = '--final last --samples 0 --obedience 0 --validation-pairs 2';
    const run = await runCommand(train, ['--out', at('run'), ...`${settings} ${quick}`.split(' ')]);
    expect([run.code, run.code === 0 ? '' : run.stderr]).toEqual([0, '']);
    writeFileSync(at('adapter.safetensors'), bytes);
    const [mine, own] = [
      await readAdapter(at('adapter.safetensors')),
      await readAdapter(at('run', 'adapter.safetensors')),
    ];
    expect([...mine.modules]).toEqual([...own.modules]);
    expect(JSON.parse(mine.metadata.get('selora')!)).toEqual(JSON.parse(own.metadata.get('selora')!));

    // and its file draws the film: report 1 from the noise of seed + 1
    const { shown } = answerOf<{ shown: readonly { text: string }[] }>(here, 1);
    const drawing = `--seed 2 --sampler ddim --steps 20 --guidance ${runPresets.phantoms.guidance} --backend wasm --threads 1`;
    const said = await runCommand(generate, [
      ...['--adapter', at('adapter.safetensors'), '--prompt', shown[1]!.text, '--out', at('films')],
      ...drawing.split(' '),
    ]);
    expect([said.code, said.code === 0 ? '' : said.stderr]).toEqual([0, '']);
    const [png] = readdirSync(at('films')).filter((name) => name.endsWith('.png'));
    expect(readFileSync(at('films', png!))).toEqual(Buffer.from(await encodePng(film, 128)));
  }, 600_000);

  test('methods side by side, pause and fork, a film, a download; nothing is sent', async () => {
    const { page, faults } = await visit(lab, '#/train?pairs=40&steps=4&every=2&regions=1');
    const sent: string[] = [];
    page.on('request', (r) =>
      sent.push(`${r.method()} ${r.url().replace(lab.address, '')} ${r.postData() ?? ''}`.trim()),
    );
    await page.getByRole('button', { name: 'Begin' }).click();
    const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 240_000 });
    const steps = () =>
      page
        .locator('.card')
        .evaluateAll((cards) => cards.map((c) => (c as { dataset?: { step?: string } }).dataset?.step));
    await soon(steps).toEqual(['1', '1']);
    await page.getByRole('button', { name: 'Pause' }).click();
    await soon(() => page.getByRole('button', { name: 'Go on' }).count()).toBe(1);
    const paused = await steps();
    await page.getByRole('button', { name: 'Fork' }).click();
    await soon(steps).toEqual([...paused, paused[0]]);
    await page.getByRole('button', { name: 'Go on' }).click();
    await soon(steps).toEqual(['4', '4', '4']);
    await soon(() => page.locator('.filmrow canvas').count()).toBe(3);
    expect(await page.locator('.filmrow figcaption').first().textContent()).toMatch(/^step 4: .* (✓|✗)/);
    const told = (name: string) =>
      page
        .locator('.card')
        .evaluateAll(
          (cards, key) => cards.map((c) => Number((c as { dataset?: Record<string, string> }).dataset?.[key])),
          name,
        );
    // LoRA's ranks are fixed; a larger λ grows less
    const [grown, fixed, forked] = await told('rank');
    expect(fixed).toBe(137 * 4);
    expect(forked).toBeLessThanOrEqual(grown!);
    const [loss, , other] = await told('loss');
    expect(loss).toBeGreaterThan(0);
    expect(other).toBeGreaterThan(0);
    await soon(() => page.locator('[data-part=ranks] .report').count()).toBe(3);

    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download the adapter' }).first().click(),
    ]);
    await download.saveAs(at('downloaded.safetensors'));
    expect((await readAdapter(at('downloaded.safetensors'))).modules.size).toBe(137);
    expect(download.suggestedFilename()).toBe('SeLoRA-1.1-step4.safetensors');

    expect(await axeFaults(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await axeFaults(page, ['color-contrast'])).toEqual([]);
    await page.setViewportSize({ width: 390, height: 844 });
    expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });
    // all that was asked for: files of the lab itself
    for (const line of sent) expect(line).toMatch(/^GET (base\/[\w.]+|[\w-]+\.js|blob:.*)$/);
    expect(sent.some((line) => line.startsWith('GET base/unet'))).toBe(true);
    expect(faults).toEqual([]);
  }, 600_000);

  test('one’s own folder: pictures that stay in the tab, and what is wrong with a table in a line', async () => {
    const folder = at('own');
    mkdirSync(folder);
    const rows = Array.from({ length: 9 }, (_, i) => `${i}.png,"a film, number ${i}"`);
    for (let i = 0; i < 9; i++) {
      const grey = Float32Array.from({ length: 40 * 40 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * 0.05));
      writeFileSync(join(folder, `${i}.png`), await encodePng(grey, 40));
    }
    const { page, faults } = await visit(lab, '#/train?method=selora&steps=2');
    const sent: string[] = [];
    page.on('request', (r) => sent.push(r.url()));
    const choose = async (table: string): Promise<void> => {
      writeFileSync(join(folder, 'metadata.csv'), table);
      await page.getByLabel('Your own folder').setInputFiles(folder);
    };
    const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 240_000 });
    const error = () =>
      page
        .locator('.error:not([hidden])')
        .textContent({ timeout: 2000 })
        .catch(() => '');
    await choose('file_name,text\nnone.png,a film\n');
    await soon(error).toBe('metadata.csv: row 1: there is no picture none.png');
    await choose('name,words\n0.png,a film\n');
    await soon(error).toBe('metadata.csv: no column for the pictures: expected file_name');
    writeFileSync(join(folder, 'broken.png'), 'no picture');
    await choose('file_name,text\nbroken.png,a film\n');
    await soon(error).toContain('broken.png: this browser cannot decode it');
    await choose(`file_name,text\n${rows.slice(1).join('\n')}\n`);
    await soon(() => page.locator('.drop').getAttribute('data-pairs')).toBe('8');
    // the same folder, dragged out of a file manager
    writeFileSync(join(folder, 'metadata.csv'), `file_name,text\n${rows.join('\n')}\n`);
    await dropFiles(page, page.locator('.drop'), [folder]);
    await soon(() => page.locator('.drop').getAttribute('data-pairs')).toBe('9');
    await page.getByRole('button', { name: 'Begin' }).click();
    await soon(() => page.locator('.filmrow figcaption').allTextContents()).toEqual(['step 2']);
    expect(sent.filter((url) => !url.startsWith(`${lab.address}base/`) && !/\.js$/.test(url))).toEqual([]);
    expect(faults).toEqual([]);
  }, 600_000);
});
