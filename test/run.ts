/**
 * The runner behind `npm test`: finds a WebGPU adapter (the machine's own, else SwiftShader out of npm) and starts
 * vitest with it, so that no WebGPU test is ever skipped.
 *
 *   npx tsx test/run.ts                         everything
 *   npx tsx test/run.ts test/core/webgpu/dot.test.ts one file
 *   npx tsx test/run.ts -- npx tsx x.ts         any command, with the adapter's environment
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { vulkanEnvironment } from './support/software-vulkan.ts';

const vitest = (): string => join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');

const args = process.argv.slice(2);
try {
  const { env, adapter } = vulkanEnvironment();
  process.stderr.write(`WebGPU adapter for the tests: ${adapter}\n`);
  const [command, rest] =
    args[0] === '--' && args[1]
      ? [args[1], args.slice(2)]
      : [process.execPath, [vitest(), 'run', '--config', join(import.meta.dirname, 'vitest.config.ts'), ...args]];
  const child = spawnSync(command, rest, {
    stdio: 'inherit',
    env: { ...process.env, ...env },
    cwd: args[0] === '--' ? process.cwd() : dirname(import.meta.dirname),
  });
  if (child.error) throw child.error;
  process.exitCode = child.status ?? 1;
} catch (error) {
  process.stderr.write(`tests not run: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
