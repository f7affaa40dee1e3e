/** A command that ends well but wants another exit code, as a run does that was stopped and saved. */
import { runMain } from '../../train/cli/command.ts';

await runMain(import.meta, async () => {
  process.exitCode = Number(process.argv[2]);
  if (process.argv[3]) throw new RangeError(process.argv[3]);
});
