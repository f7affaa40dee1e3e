/**
 * Tensors larger than one binding may be (128 MiB is all that WebGPU promises). Their buffer is bound several times, one
 * range after the other, and the kernel's accesses to it become calls that pick the range. Kernels are written as if
 * every tensor fitted; this rewrites the text of those for which one does not, so the usual ones pay nothing.
 */
import { DeviceLimitError } from '../../ir/errors.ts';
import { ceilDiv, type Kernel } from './kernel.ts';
import type { BindingLimits } from './target.ts';

/** Bytes `offset … offset + size` of the buffer that stands for operand number `operand` of a kernel. */
export interface Range {
  readonly operand: number;
  readonly offset: number;
  readonly size: number;
}
export interface Bound {
  /** the kernel with one binding per range */
  readonly kernel: Kernel;
  readonly ranges: readonly Range[];
}
const declaration = /^@group\(0\) @binding\(\d+\) var<storage, (read|read_write)> (\w+): array<(.+)>;$/gm;

/** Index of the bracket that closes the one at `open`. */
const closing = (text: string, open: number): number => {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === '[') depth++;
    else if (text[i] === ']' && --depth === 0) return i;
  }
  throw new Error(`unbalanced brackets in WGSL: ${text.slice(open, open + 60)}`);
};

/** `x[i]` → `get_x(i)` and `x[i] = v;` → `set_x(i, v);` everywhere in a kernel's text. */
const viaCalls = (text: string, name: string): string => {
  const access = new RegExp(`(?<![\\w.])${name}\\[`, 'g');
  let out = '';
  let at = 0;
  for (let hit = access.exec(text); hit; hit = access.exec(text)) {
    const open = access.lastIndex - 1;
    const close = closing(text, open);
    const index = viaCalls(text.slice(open + 1, close), name);
    const store = /^\s*=(?!=)\s*/.exec(text.slice(close + 1));
    out += text.slice(at, hit.index);
    if (store) {
      const value = close + 1 + store[0].length;
      at = text.indexOf(';', value);
      out += `set_${name}(${index}, ${viaCalls(text.slice(value, at), name)})`;
    } else {
      at = close + 1;
      out += `get_${name}(${index})`;
    }
    access.lastIndex = at;
  }
  return out + text.slice(at);
};

/** The two functions through which a kernel reaches a tensor in `parts` ranges of `each` elements. */
const accessors = (name: string, type: string, parts: number, each: number, writable: boolean): string => {
  const pick = (act: (part: number, index: string) => string) =>
    Array.from({ length: parts }, (_, part) => {
      const index = part === 0 ? 'i' : `i - ${part * each}u`;
      return part === parts - 1 ? `  ${act(part, index)}` : `  if (i < ${(part + 1) * each}u) { ${act(part, index)} }`;
    }).join('\n');
  const get = `fn get_${name}(i: u32) -> ${type} {\n${pick((part, index) => `return ${name}_${part}[${index}];`)}\n}\n`;
  if (!writable) return get;
  return `${get}fn set_${name}(i: u32, v: ${type}) {\n${pick((part, index) => `${name}_${part}[${index}] = v;${part === parts - 1 ? '' : ' return;'}`)}\n}\n`;
};

const bytesOfType = (type: string): number => (type.startsWith('vec4') ? 16 : 4);

/** How many bindings a tensor takes. Kernels may write up to the next 16 bytes, so those are bound too. */
export const partsOf = (bytes: number, limits: BindingLimits): number =>
  Math.max(1, ceilDiv(Math.ceil(bytes / 16) * 16, limits.bytes));

/**
 * The bindings of a kernel whose operands have `bytes` bytes each, and its text with those bindings.
 * @throws DeviceLimitError naming both numbers when there are more than the device has
 */
export const bindRanges = (kernel: Kernel, bytes: readonly number[], limits: BindingLimits): Bound => {
  const parts = bytes.map((b) => partsOf(b, limits));
  const ranges = parts.flatMap((n, operand) =>
    Array.from({ length: n }, (_, part): Range => {
      const offset = part * limits.bytes;
      const rest = Math.max(16, Math.ceil(bytes[operand]! / 16) * 16) - offset;
      return { operand, offset, size: Math.min(rest, limits.bytes) };
    }),
  );
  if (ranges.length > limits.count)
    throw new DeviceLimitError(
      `${kernel.name} needs ${ranges.length} storage bindings of at most ${limits.bytes} bytes, this WebGPU adapter gives a kernel ${limits.count}`,
    );
  if (ranges.length === bytes.length) return { kernel, ranges };

  let binding = 1;
  let operand = 0;
  const split: { readonly name: string; readonly text: string }[] = [];
  const declared = kernel.code.replace(declaration, (_line, access: string, name: string, type: string) => {
    const n = parts[operand++]!;
    const names = n === 1 ? [name] : Array.from({ length: n }, (_, part) => `${name}_${part}`);
    if (n > 1)
      split.push({
        name,
        text: accessors(name, type, n, limits.bytes / bytesOfType(type), access === 'read_write'),
      });
    return names
      .map((x) => `@group(0) @binding(${binding++}) var<storage, ${access}> ${x}: array<${type}>;`)
      .join('\n');
  });
  const code = `${split.reduce((text, { name }) => viaCalls(text, name), declared)}\n${split.map((s) => s.text).join('')}`;
  const reads = parts.slice(0, kernel.reads).reduce((a, b) => a + b, 0);
  return { kernel: { ...kernel, code, reads, writes: ranges.length - reads }, ranges };
};
