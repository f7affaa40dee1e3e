/**
 * What every command begins with, as plain JavaScript: `node train/cli/start.mjs train/NAME.ts …` runs that file. What a
 * machine lacks is told in one line here, where the loader of TypeScript would end with a stack trace. The command itself
 * comes as a bundle (`bundle.mjs`), so that it starts at once.
 */
import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

/** The first that hands out its own modules on request (`core/ir/host.ts`). */
const NODE = [20, 16];
/** Files that Node, the loader and a run with its pictures hold at once, with room to spare. */
const FILES = 100;

const refuse = (line) => {
  process.stderr.write(`${line}\n`);
  process.exit(1);
};

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < NODE[0] || (major === NODE[0] && minor < NODE[1]))
  refuse(`Node ${process.versions.node} is too old: ${NODE.join('.')} or later is needed`);

const held = [];
try {
  while (held.length < FILES) held.push(openSync(devNull, 'r'));
} catch (error) {
  refuse(
    error.code === 'EMFILE' || error.code === 'ENFILE'
      ? `too few files may be open at once: ${held.length} more, and ${FILES} are needed (ulimit -n 256)`
      : `${devNull}: ${error.message}`,
  );
}
for (const file of held) closeSync(file);

if (process.argv[2] === undefined) refuse('expected a program: node train/cli/start.mjs train/NAME.ts');
// the program finds its arguments where every program does
process.argv.splice(1, 2, resolve(process.argv[2]));
const { bundle, BrokenSource } = await import('./bundle.mjs');
const program = await bundle(process.argv[1]).catch((error) => {
  if (error instanceof BrokenSource) refuse(error.message);
});
if (program === undefined) {
  // nowhere to keep a bundle: file by file, as slow as that is
  const { register } = await import('tsx/esm/api');
  register();
} else process.setSourceMapsEnabled(true);
await import(pathToFileURL(program ?? process.argv[1]).href);
