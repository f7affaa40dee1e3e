/** The page of a run beside the run: a process of its own, so that neither waits for the other. It ends with the run. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { unwatched } from '../cli/supervise.ts';

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** Starts it for the folder of a run; the address is printed where the run's own lines are. */
export function watchRun(folder: string): { readonly end: () => Promise<void> } {
  const { dir, base } = path.parse(path.resolve(folder));
  const lab = [here('../lab.ts'), '--only-runs', '--port', '0', '--runs', dir, '--show', base, '--browser'];
  const child = fork(here('../cli/start.mjs'), lab, {
    execArgv: [...unwatched(process.execArgv)],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  // a page that does not come keeps no run from its work
  const gone = new Promise<void>((done) => {
    child.once('exit', () => done());
    child.once('error', () => done());
  });
  child.unref();
  (child.channel as { unref?: () => void } | null)?.unref?.();
  return {
    async end() {
      child.ref();
      if (child.connected) child.disconnect();
      await gone;
    },
  };
}

/** The command that opens an address on a desktop; undefined where there is none. */
export function openCommand(
  address: string,
  platform: NodeJS.Platform = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
): readonly [command: string, ...args: string[]] | undefined {
  if (platform === 'darwin') return ['open', address];
  if (platform === 'win32') return ['cmd', '/c', 'start', '', address];
  return env.DISPLAY || env.WAYLAND_DISPLAY ? ['xdg-open', address] : undefined;
}
/** Opens an address where somebody sits before a desktop; nothing happens anywhere else. */
export function openInBrowser(address: string): ChildProcess | undefined {
  const [command, ...args] = (process.stdout.isTTY ? openCommand(address) : undefined) ?? [];
  if (command === undefined) return undefined;
  const child = spawn(command, args, { detached: true, stdio: 'ignore' });
  child.on('error', () => undefined);
  child.unref();
  return child;
}
