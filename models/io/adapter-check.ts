/** What must hold before an adapter touches a model: its modules exist there and have its sizes. */
import type { Part } from '../names.ts';
import type { AdapterFile } from './adapter-file.ts';
import { FileError, listed } from './error.ts';
import type { WeightSource } from './weights.ts';

/**
 * Checks an adapter against the weights of a base model. Until then its sizes are a stranger's claim: multiplied out
 * they could fill any memory.
 * @param file the adapter's file, for messages
 * @throws FileError: one line with the modules that the base lacks or has in another size
 */
export function checkAdapter(
  file: string,
  { modules }: AdapterFile,
  parts: Readonly<Partial<Record<Part, WeightSource>>>,
): void {
  const unknown: string[] = [];
  const misfit: string[] = [];
  for (const [modulePath, { dIn, dOut, kernel }] of modules) {
    const dot = modulePath.indexOf('.');
    const source = parts[modulePath.slice(0, dot) as Part];
    const shape = source?.weights.get(`${modulePath.slice(dot + 1)}.weight`)?.shape;
    if (shape === undefined) {
      unknown.push(modulePath);
      continue;
    }
    const [out, ...inner] = shape;
    const fits =
      out === dOut &&
      inner.reduce((product, side) => product * side, 1) === dIn &&
      (kernel === undefined
        ? shape.length === 2
        : shape.length === 4 && kernel[0] === shape[2] && kernel[1] === shape[3]);
    if (!fits)
      misfit.push(
        `${modulePath} is ${dIn} → ${dOut}${kernel ? ` (${kernel.join('×')})` : ''}, the base has [${shape}]`,
      );
  }
  const found = [
    unknown.length > 0 ? `${unknown.length} not in the base model: ${listed(unknown, 4)}` : '',
    misfit.length > 0 ? `${misfit.length} of another size: ${listed(misfit, 4)}` : '',
  ].filter((text) => text !== '');
  if (modules.size === 0) found.push('it adapts nothing');
  if (found.length > 0) throw new FileError(file, 'modules', found.join('; '));
}
