/**
 * Loaded before everything else, as plain JavaScript: what a machine lacks is told in one line here, where the loader of
 * TypeScript would end with a stack trace.
 */
import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';

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
