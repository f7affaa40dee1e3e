/**
 * Loaded before everything else, as plain JavaScript: what a machine lacks is told in one line here, where the loader of
 * TypeScript would end with a stack trace.
 */
import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';

const NODE = 20;
/** Files that Node, the loader and a run with its pictures hold at once, with room to spare. */
const FILES = 100;

const refuse = (line) => {
  process.stderr.write(`${line}\n`);
  process.exit(1);
};

if (Number.parseInt(process.versions.node, 10) < NODE)
  refuse(`Node ${process.versions.node} is too old: ${NODE} or later is needed`);

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
