/**
 * The long forms of the drivers that try many faults of one kind; their short forms are part of `npm test`.
 *
 *   npm run soak -- --list                        what there is
 *   npm run soak -- kills                         one driver with its long count
 *   npm run soak -- safetensors --cases 5000000 --seed 7
 *
 * Its last line is what the table in test/README.md holds.
 */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { ASKED, DRIVERS, type Driver } from './support/drivers.ts';

const root = dirname(import.meta.dirname);
const whole = (text: string): number => {
  if (!/^[1-9]\d{0,11}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 1');
  return Number(text);
};
const count = (n: number): string => n.toLocaleString('en');

function list(): void {
  const width = Math.max(...Object.keys(DRIVERS).map((name) => name.length));
  for (const [name, { what, short, long }] of Object.entries(DRIVERS))
    process.stdout.write(`${name.padEnd(width)}  ${count(short)} | ${count(long)}  ${what}\n`);
}

/** The tests of a driver as a process of the runner of `npm test`. @returns its exit code */
function soak(name: string, { files, only }: Driver, cases: number, seed: number | undefined): Promise<number> {
  const named = only === undefined ? [] : ['-t', only];
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', join(import.meta.dirname, 'run.ts'), ...files, ...named, '--reporter=verbose'],
    {
      cwd: root,
      stdio: 'inherit',
      env: {
        ...process.env,
        [ASKED.name]: name,
        [ASKED.cases]: String(cases),
        ...(seed === undefined ? {} : { [ASKED.seed]: String(seed) }),
      },
    },
  );
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

const program = new Command('soak')
  .usage('NAME [options]')
  .description('Tries many faults of one kind; the counts of `npm test` are shorter.')
  .argument('[name]', 'a driver (--list tells them)')
  .option('--list', 'the drivers, their short and long counts')
  .option('--cases <n>', 'how many, instead of the long count', whole)
  .option('--seed <n>', 'another order of random cases', whole)
  .parse();
const options = program.opts<{ list?: boolean; cases?: number; seed?: number }>();
const [name] = program.args;
const found = Object.entries(DRIVERS).find(([known]) => known === name);
if (options.list) list();
else if (found === undefined) {
  const known = Object.keys(DRIVERS).join(', ');
  process.stderr.write(`${name === undefined ? 'no driver given' : `no driver ${name}`}; there are: ${known}\n`);
  process.exitCode = 1;
} else {
  const [driver, cases] = [found[1], options.cases ?? found[1].long];
  const began = performance.now();
  process.exitCode = await soak(found[0], driver, cases, options.seed);
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  const outcome = process.exitCode === 0 ? 'no fault found' : 'FAULT FOUND, see above';
  const day = new Date().toISOString().slice(0, 10);
  const seeded = options.seed === undefined ? '' : ` --seed ${options.seed}`;
  process.stdout.write(
    `npm run soak -- ${found[0]} --cases ${cases}${seeded}: ${count(cases)} cases on ${day} in ${minutes} min, ${outcome}\n`,
  );
}
