/**
 * Ctrl-C under the command `tsx`: it passes signals to the program and kills it, without mercy, when no answer comes
 * within 30 ms; a training step takes longer. So the program starts itself once more, as a plain node process with tsx's
 * loader, and stays behind as the one that always answers.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';

/** What tsx's command loads into its children to hear from them; `node --import tsx` does not. */
const WATCHED = /[\\/]tsx[\\/]dist[\\/]preflight\.[cm]?js$/;

/** Whether this process was started by the command `tsx`. */
export function isWatchedByTsx(execArgv: readonly string[] = process.execArgv): boolean {
  return execArgv.some((argument) => WATCHED.test(argument));
}

/** Node's own arguments without tsx's watch: `--require …/preflight.cjs` goes, its loader stays. */
export function unwatched(execArgv: readonly string[]): readonly string[] {
  return execArgv.filter((argument, i) => !WATCHED.test(argument) && !WATCHED.test(execArgv[i + 1] ?? ''));
}

/**
 * Runs this program again without the watch and passes every signal on.
 * @returns its exit code, 128 + signal number where a signal ended it
 */
export async function runUnwatched(): Promise<number> {
  const child = spawn(process.execPath, [...unwatched(process.execArgv), ...process.argv.slice(1)], {
    stdio: 'inherit',
  });
  // A terminal's Ctrl-C reaches the child by itself too; it takes two within moments for one.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}
