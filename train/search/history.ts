/** What a search has scored, one line of JSON each: it is read again by one that goes on. */
import { appendFile, readFile, truncate } from 'node:fs/promises';
import { z } from 'zod';
import { FileError, systemCode } from '../../models/io/error.ts';
import type { Scored } from '../../selora/search.ts';

const row = z.object({ choices: z.array(z.int().min(0)), loss: z.number().nullable() });

/** The lines of a search's file so far; a last line that was cut off is taken off the file. @throws FileError naming a broken line */
export async function openHistory(file: string): Promise<readonly Scored[]> {
  const text = await readFile(file, 'utf8').catch((error) => {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  });
  const lines = text.split('\n').slice(0, -1);
  const whole = lines.reduce((n, line) => n + Buffer.byteLength(line) + 1, 0);
  if (whole < Buffer.byteLength(text)) await truncate(file, whole);
  return lines.map((line, i) => {
    const read = row.safeParse(parsed(line));
    if (!read.success) throw new FileError(file, `line ${i + 1}`, 'is no scored candidate');
    return { choices: read.data.choices, loss: read.data.loss ?? Number.NaN };
  });
}
function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Adds a line. */
export const addToHistory = (file: string, { choices, loss }: Scored): Promise<void> =>
  appendFile(file, `${JSON.stringify({ choices, loss: Number.isFinite(loss) ? loss : null })}\n`, { mode: 0o600 });
