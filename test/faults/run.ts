/**
 * npm run faults: plants every fault of the lists, one at a time, in a copy of the sources and runs the tests that must
 * notice it.
 *
 *   npm run faults                     all of them; without a fault first, where every test must pass
 *   npm run faults -- --only norm      those whose file or reason holds the word
 *   npm run faults -- --log FILE       one line of JSON for each; those that stand in the file are not tried again
 *
 * Its last line counts; the exit code is 1 where a fault was not noticed.
 */
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { createVitest, type Vitest } from 'vitest/node';
import { vulkanEnvironment } from '../support/software-vulkan.ts';
import type { Fault } from './fault.ts';
import { faults } from './index.ts';

const root = dirname(dirname(import.meta.dirname));
/** what tests of the core read; node_modules is shared */
const COPIED = ['core', 'nn', 'models', 'selora', 'train', 'test', 'package.json', 'tsconfig.json', 'README.md'];
const nameOf = ({ file, why }: Fault): string => `${file}: ${why}`;

const { only, log } = new Command('faults')
  .description('Plants faults in a copy of the sources and runs the tests that must notice them.')
  .option('--only <word>', 'those whose file or reason holds it')
  .option('--log <file>', 'a line of JSON for each; what stands there is not tried again')
  .parse()
  .opts<{ only?: string; log?: string }>();

/** Names of the tests of a file that passed, and that failed; "suite test" as `only` sees them. */
async function outcome(
  vitest: Vitest,
  file: string,
  only: string,
): Promise<{ passed: readonly string[]; failed: readonly string[] }> {
  vitest.setGlobalTestNamePattern(new RegExp(only));
  const specifications = await vitest.getRelevantTestSpecifications([file]);
  const { testModules, unhandledErrors } = await vitest.runTestSpecifications(specifications, false);
  const named = (state: 'passed' | 'failed'): string[] =>
    testModules.flatMap((module) =>
      [...module.children.allTests(state)].map((test) => test.fullName.replaceAll(' > ', ' ')),
    );
  const broken = [...unhandledErrors, ...testModules.flatMap((module) => module.errors())];
  return { passed: named('passed'), failed: [...named('failed'), ...broken.map(() => 'the file itself')] };
}

const folder = mkdtempSync(join(tmpdir(), 'faults-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const name of COPIED) cpSync(join(root, name), join(folder, name), { recursive: true });
symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
// all tests, with all their samples
Object.assign(process.env, vulkanEnvironment().env, { SELORA_LONG: '1' });
process.chdir(folder);
const vitest = await createVitest('test', {
  config: join(folder, 'test/vitest.config.ts'),
  root: folder,
  // the folder is another each time
  experimental: { fsModuleCache: false },
  watch: false,
  maxWorkers: 1,
  reporters: [{}],
});

const wanted = faults.filter((fault) => only === undefined || nameOf(fault).includes(only));
const known = new Map<string, string>(
  log !== undefined && existsSync(log)
    ? readFileSync(log, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { name: string; caught: string })
        .map(({ name, caught }) => [name, caught])
    : [],
);
const tell = (name: string, caught: string, seconds: number): void => {
  known.set(name, caught);
  if (log !== undefined) appendFileSync(log, `${JSON.stringify({ name, caught, seconds })}\n`);
  process.stdout.write(
    `${caught === '' ? 'SURVIVES  ' : ''}${name}${caught && `: ${caught}`}  (${seconds.toFixed(1)} s)\n`,
  );
};

try {
  // tests that fail anyway, or are not there, notice nothing
  const checks = wanted.flatMap((fault) => fault.checks);
  for (const file of new Set(checks.map((check) => check.file))) {
    const patterns = [...new Set(checks.flatMap((check) => (check.file === file ? [check.only] : [])))];
    const text = `${file} without a fault`;
    if (known.has(text)) continue;
    const began = performance.now();
    const { passed, failed } = await outcome(vitest, file, patterns.join('|'));
    const missing = patterns.filter((only) => !passed.some((name) => new RegExp(only).test(name)));
    if (failed.length > 0) throw new Error(`${text}: failed: ${failed.join(', ')}`);
    if (missing.length > 0) throw new Error(`${text}: no test is named ${missing.join(', ')}`);
    tell(text, `${passed.length} tests`, (performance.now() - began) / 1000);
  }
  for (const fault of wanted) {
    if (known.has(nameOf(fault))) continue;
    const began = performance.now();
    const file = join(folder, fault.file);
    const text = readFileSync(file, 'utf8');
    writeFileSync(
      file,
      text.replace(fault.find, () => fault.replace),
    );
    vitest.invalidateFile(file);
    let caught = '';
    for (const check of fault.checks) {
      const { failed } = await outcome(vitest, check.file, check.only);
      if (failed.length === 0) continue;
      caught = `${check.file} -t '${check.only}'`;
      break;
    }
    writeFileSync(file, text);
    vitest.invalidateFile(file);
    tell(nameOf(fault), caught, (performance.now() - began) / 1000);
  }
} finally {
  await vitest.close();
}
const survivors = wanted.filter((fault) => known.get(nameOf(fault)) === '');
const noticed = wanted.length - survivors.length;
process.stdout.write(
  `${noticed} of ${wanted.length} planted faults noticed (${((100 * noticed) / wanted.length).toFixed(1)}%)\n`,
);
process.exitCode = survivors.length > 0 ? 1 : 0;
