/** What must hold before an adapter touches a model: its modules exist there and have its sizes. */
import type { Part } from '../names.ts';
import type { AdapterFile, AdapterModule } from './adapter-file.ts';
import { FileError, listed } from './error.ts';
import type { WeightSource } from './weights.ts';

/**
 * Checks an adapter against the weights of a base model. Until then its sizes are a stranger's claim: multiplied out
 * they could fill any memory.
 * @param file the adapter's file, for messages
 * @returns the adapter with kernels where the base has convolutions and nowhere else: a 1×1 one is stored either way
 * @throws FileError: one line with the modules that the base lacks or has in another size
 */
export function checkAdapter(
  file: string,
  adapter: AdapterFile,
  parts: Readonly<Partial<Record<Part, WeightSource>>>,
): AdapterFile {
  const { modules } = adapter;
  const fitted = new Map<string, AdapterModule>();
  const unknown: string[] = [];
  const misfit: string[] = [];
  for (const [modulePath, module] of modules) {
    const { dIn, dOut, kernel = [1, 1] } = module;
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
      (shape.length === 2 ? kernel[0] * kernel[1] === 1 : kernel[0] === shape[2] && kernel[1] === shape[3]);
    if (!fits)
      misfit.push(
        `${modulePath} is ${dIn} → ${dOut}${module.kernel ? ` (${kernel.join('×')})` : ''}, the base has [${shape}]`,
      );
    const { kernel: _, ...plain } = module;
    fitted.set(modulePath, shape.length === 2 ? plain : { ...plain, kernel });
  }
  const found = [
    unknown.length > 0 ? `${unknown.length} not in the base model: ${listed(unknown, 4)}` : '',
    misfit.length > 0 ? `${misfit.length} of another size: ${listed(misfit, 4)}` : '',
  ].filter((text) => text !== '');
  if (modules.size === 0) found.push('it adapts nothing');
  if (found.length > 0) throw new FileError(file, 'modules', found.join('; '));
  return { ...adapter, modules: fitted };
}
