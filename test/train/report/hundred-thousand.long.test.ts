/** The report of a run of 100,000 steps with 256 modules: small, quick, and in little memory. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { compiled } from '../../support/compiled.ts';
import { parse } from '../../support/report-dom.ts';
import { randomFrom, sd15Modules } from '../../support/report-fixture.ts';
import { scratch } from '../../support/scratch.ts';

const steps = 100_000;
/** Steps between two tests: the default. */
const every = 40;

/** A run folder as the trainer leaves one, its rows made up. */
async function madeRun(folder: string): Promise<void> {
  const modules = sd15Modules();
  const random = randomFrom(1);
  const ranks = new Map(modules.map((m) => [m, 1]));
  const out = createWriteStream(join(folder, 'metrics.jsonl'));
  for (let step = 1; step <= steps; step++) {
    const row: Record<string, unknown> = { step, loss: 0.2 + 0.1 * random() + 10 / step, lr: 1e-3, totalRank: 0 };
    if (step % every === 0)
      row.tests = modules.map((module) => {
        const ratio = 1 + 0.12 * random();
        const expanded = ratio > 1.1;
        ranks.set(module, ranks.get(module)! + (expanded ? 1 : 0));
        const [fiOriginal, fiExpanded] = [random(), random()];
        return { module, fiOriginal, fiExpanded, ratio, expanded, rankAfter: ranks.get(module), key: '9c2f01ab' };
      });
    if (step % 100 === 0) row.validation = { loss: 0.2 + 5 / step, shuffled: 0.26, gapError: 0.002 };
    if (!out.write(`${JSON.stringify({ ...row, seconds: step / 5, memory: 5e8 })}\n`)) await once(out, 'drain');
  }
  out.end();
  await finished(out);
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({ method: 'selora', lambda: 1.1, testEvery: every, steps }),
  );
  const rows = modules.map((path) => ({ path, rank: ranks.get(path), dIn: 320, dOut: 320, change: 0.1, used: 2 }));
  writeFileSync(join(folder, 'facts.json'), JSON.stringify({ modules: rows }));
}

test('at most 6 MB, made within 500 MB; every test is counted', async () => {
  const folder = scratch;
  await madeRun(folder);
  const program = pathToFileURL(await compiled(join(import.meta.dirname, '../../../train/report/write.ts'))).href;
  const code = `const { writeReport } = await import('${program}');
    await writeReport(${JSON.stringify(folder)});
    const { readFileSync } = await import('node:fs');
    process.stdout.write(/VmHWM:\\s*(\\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);`;
  // the allocator as everybody has it, not as the runner of these tests sets it
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MALLOC_')));
  // a heap with an end: else a collector that gets little of a busy machine's time decides what is used, not the program
  const options = ['--max-old-space-size=300', '--input-type=module', '-e', code];
  const { stdout } = await promisify(execFile)(process.execPath, options, { env });
  expect(statSync(join(folder, 'report.html')).size).toBeLessThan(6e6);
  // of this program alone: what getrusage tells begins with the memory of the process that started it
  expect(Number(stdout) / 1024).toBeLessThan(500);
  expect(Number(stdout) / 1024).toBeGreaterThan(50);
  // the charts as files: none heavier than the page may be
  for (const name of readdirSync(folder).filter((f) => f.endsWith('.svg')))
    expect(statSync(join(folder, name)).size, name).toBeLessThan(1e6);
  const page = parse(readFileSync(join(folder, 'report.html'), 'utf8'));
  const { modules } = JSON.parse(page.querySelector('#run-data')!.textContent) as { modules: unknown[][] };
  expect(modules).toHaveLength(256);
  for (const [, , , , tests, tested] of modules) {
    expect(tested).toBe(steps / every);
    expect((tests as unknown[]).length).toBeLessThanOrEqual(62);
  }
  expect(page.querySelector('#loss')!.textContent).toContain('steps each');
});
