/** The modules of a training step's arguments, for profiles: which labels are parameters is known here, not in core/. */
import { entries } from '../../core/index.ts';
import type { Field, Method, Settings } from '../../selora/methods/method.ts';

/**
 * Which module a label belongs to: `unet.mid_block.proj_in.p.A` → `unet.mid_block.proj_in`, whatever fields the method
 * trains (`p`, `m`, `v`) or tries; undefined for what is no parameter of a module.
 */
export function moduleOfLabels({
  method,
  settings,
}: {
  readonly method: Pick<Method, 'growth'>;
  readonly settings: Settings;
}): (label: string) => string | undefined {
  const tried = method.growth ? entries<Field>(method.growth.trial([1, 1], 1, settings)).map(([name]) => name) : [];
  const literal = (name: string) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const parameter = new RegExp(
    `\\.(?:weight|bias|age|[pmv]\\..+${tried.map((name) => `|${literal(name)}`).join('')})$`,
  );
  return (label) => (parameter.test(label) ? label.replace(parameter, '') : undefined);
}
