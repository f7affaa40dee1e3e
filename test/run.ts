/**
 * The runner behind `npm test`: finds a WebGPU adapter (the machine's own, else SwiftShader out of npm) and starts
 * vitest with it, so that no WebGPU test is ever skipped. Its last line is `N passed, N failed, N skipped`.
 *
 *   npx tsx test/run.ts                         everything
 *   npx tsx test/run.ts --check                 everything, types and lint beside it (one core is enough for them)
 *   npx tsx test/run.ts test/core/webgpu/dot.test.ts one file
 *   npx tsx test/run.ts -- npx tsx x.ts         any command, with the adapter's environment
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { vulkanEnvironment } from './support/software-vulkan.ts';

const root = dirname(import.meta.dirname);
const vitest = (): string => join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');

/** The exit code of a process, 1 where a signal ended it. @throws Error when it cannot be started */
const ended = (child: ChildProcess): Promise<number> =>
  new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });

/** `npm run check`; its texts are told when it is over, so that they do not stand between those of the tests. */
async function check(): Promise<number> {
  const child = spawn('npm', ['run', '--silent', 'check'], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => {
      said += text;
    });
  const code = await ended(child);
  process.stderr.write(code === 0 ? 'types and lint: fine\n' : `${said}\ntypes or lint: failed\n`);
  return code;
}

/**
 * What glibc's allocator is told: to keep what is freed. The software driver compiles each kernel in megabytes that it
 * takes and gives back; with the system's pages between, that took nearly twice the time. Other systems do not read it.
 */
const keepFreed = {
  MALLOC_MMAP_THRESHOLD_: String(2 ** 30),
  MALLOC_TRIM_THRESHOLD_: String(2 ** 30),
  MALLOC_TOP_PAD_: String(2 ** 26),
};

const args = process.argv.slice(2);
try {
  const checked = args[0] === '--check' ? check() : Promise.resolve(0);
  const asked = args[0] === '--check' ? args.slice(1) : args;
  // who names a file that is long as a whole wants it
  if (asked.some((arg) => arg.includes('.long.test'))) process.env.SELORA_LONG ??= '1';
  const { env, adapter } = vulkanEnvironment();
  process.stderr.write(`WebGPU adapter for the tests: ${adapter}\n`);
  if (!process.env.SELORA_LONG && asked[0] !== '--')
    process.stderr.write('long tests are left out: SELORA_LONG=1 runs them, as CI does\n');
  const reporters = [
    ...(asked.some((arg) => arg.startsWith('--reporter')) ? [] : ['--reporter=default']),
    `--reporter=${join(import.meta.dirname, 'support/closing-line.ts')}`,
  ];
  const config = join(import.meta.dirname, 'vitest.config.ts');
  const [command, rest] =
    asked[0] === '--' && asked[1]
      ? [asked[1], asked.slice(2)]
      : [process.execPath, [vitest(), 'run', '--config', config, ...asked, ...reporters]];
  const child = spawn(command, rest, {
    stdio: 'inherit',
    env: { ...keepFreed, ...process.env, ...env },
    cwd: asked[0] === '--' ? process.cwd() : root,
  });
  const [tests, types] = await Promise.all([
    ended(child),
    checked.then((code) => {
      // a machine that shall see red sees it at once
      if (code !== 0) child.kill('SIGTERM');
      return code;
    }),
  ]);
  process.exitCode = types || tests;
} catch (error) {
  process.stderr.write(`tests not run: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
