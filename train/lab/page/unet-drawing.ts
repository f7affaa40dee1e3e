/** The U-Net as blocks: down on the left, up on the right, what goes across between them; lit by the size of their gradients. */
import type { Block } from '../../trace/blocks.ts';
import { type Child, h, short } from './dom.ts';
import { gradientOf, type Inside, titleOf } from './inside.ts';

/** from one block to the next, on the way back */
const PAUSE_MS = 130;

/** @param pick opens a block */
export function drawUnet(
  inside: Pick<Inside, 'blocks' | 'modules' | 'size'>,
  picked: string,
  pick: (path: string) => void,
): HTMLElement {
  const { blocks } = inside;
  const sizes = new Map(blocks.map((b) => [b.path, gradientOf(b.path, inside.modules)] as const));
  const largest = Math.max(1e-30, ...[...sizes.values()].map((x) => x ?? 0));
  const unit = (b: Block): HTMLElement => {
    const size = sizes.get(b.path);
    const words = size === undefined ? 'nothing trained' : size === null ? 'not finite' : short(size);
    const button = h(
      'button',
      {
        type: 'button',
        class: `unit ${b.kind}`,
        'data-block': b.path,
        'data-size': size === undefined || size === null ? '' : size,
        'aria-pressed': String(b.path === picked),
        title: `${b.path}: ${inside.size} ${words}`,
        onclick: () => pick(b.path),
      },
      h('b', {}, titleOf(b)),
      ' ',
      h('span', {}, words),
    );
    // the eye tells shares better on a root
    button.style.setProperty('--lit', String(Math.sqrt((size ?? 0) / largest)));
    // backward: the last block is lit first
    button.style.setProperty('--after', `${PAUSE_MS * (blocks.length - 1 - blocks.indexOf(b))}ms`);
    return button;
  };
  const of = (kind: Block['kind']): readonly Block[] => blocks.filter((b) => b.kind === kind);
  const across = (b: Block | undefined): HTMLElement =>
    h('span', { class: 'across' }, b && b.skips > 0 && h('span', {}, `${b.skips} ${b.skips === 1 ? 'skip' : 'skips'}`));
  const pairs = (left: readonly Block[], right: readonly Block[]): readonly Child[] =>
    left.map((b, i) => [unit(b), across(b.kind === 'text' ? undefined : b), right[i] ? unit(right[i]) : h('span', {})]);
  const ups = of('up').toSorted((a, b) => a.level - b.level);
  const parts = h(
    'div',
    { class: 'unet', role: 'group', 'aria-label': 'Blocks of the model' },
    pairs(of('text'), of('time')),
    pairs(of('in'), of('out')),
    pairs(of('down'), ups),
    of('mid').map(unit),
  );
  // lit one after the other once it stands on the page
  requestAnimationFrame(() => requestAnimationFrame(() => parts.classList.add('on')));
  return parts;
}
