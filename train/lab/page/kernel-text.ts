/** The text of a kernel that ran: a fused one's program, and what the backend prints for its op. */
import type { Trace } from '../../trace/format.ts';
import type { OpText } from '../texts.ts';
import { code, h, set } from './dom.ts';
import { addressOf } from './route.ts';

const KINDS: Readonly<Record<string, 'wasm' | 'webgpu' | 'gpujs'>> = { wasm: 'wasm', webgpu: 'webgpu', gpujs: 'gpujs' };
const loaded = new Map<string, Promise<OpText | undefined>>();

/** An op's texts, or nothing where there is no page of that name. */
function textsOf(name: string): Promise<OpText | undefined> {
  let found = loaded.get(name);
  if (!found) {
    found = fetch(`ops/${encodeURIComponent(name)}.json`).then(
      (answer) => (answer.ok ? (answer.json() as Promise<OpText>) : undefined),
      () => undefined,
    );
    loaded.set(name, found);
  }
  return found;
}

export async function kernelText(into: HTMLElement, k: Trace['kernels'][number], backend: string): Promise<void> {
  const opText = k.text === undefined && /^\w+$/.test(k.op) ? await textsOf(k.op) : undefined;
  const kind = KINDS[backend];
  const calls = [...new Set([...(k.text ?? '').matchAll(/= (\w+)\(/g)].map((m) => m[1]!))];
  set(
    into,
    h('h3', { tabindex: -1 }, `${k.op} ${k.detail}`),
    k.text !== undefined && [
      h(
        'p',
        { class: 'muted' },
        'One loop: each line is made for every element of the result. ',
        calls.map((name, i) => [i > 0 ? ', ' : '', h('a', { href: addressOf('op', name) }, name)]),
      ),
      code(k.text, 'Program of the kernel'),
    ],
    opText && [
      h(
        'p',
        { class: 'muted' },
        kind === 'wasm'
          ? `${opText.wasmPlace}; below as it is for the op’s sample. `
          : 'As it is for the op’s sample. ',
        h('a', { href: addressOf('op', opText.name) }, `The page of ${opText.name}`),
      ),
      kind && opText.kernels[kind].filter((x) => x.text).map(({ name, text }) => code(text, `${kind}: ${name}`)),
      !kind && opText.rules.filter((r) => r.title === 'Reference loops').map((r) => code(r.text, r.title)),
    ],
    k.text === undefined && !opText && h('p', { class: 'muted' }, 'There is no page of this kernel.'),
  );
  into.scrollIntoView({ block: 'nearest' });
}
