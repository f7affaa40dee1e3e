/** Whether a suite can run here; a suite that cannot says so in one line and is counted as skipped. */

const told = new Set<string>();

/**
 * `there('the corpus of bad inputs', existsSync(folder), 'SELORA_BADINPUTS names it')`: its second argument, and where
 * that is false one line about what is missing.
 */
export function there(what: string, found: boolean, how: string): boolean {
  if (!found && !told.has(what)) process.stderr.write(`skipped for want of ${what}: ${how}\n`);
  if (!found) told.add(what);
  return found;
}
