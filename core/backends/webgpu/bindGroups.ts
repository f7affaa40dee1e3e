/** Bind groups of a program, found again from run to run: a replay that makes none costs the host half as much. */
import type { Kernel } from './kernel.ts';
import type { Pipelines } from './pipelines.ts';

/** A binding: a position in the run's table of buffers, and the bytes of that buffer that are bound. */
export interface Place {
  readonly at: number;
  readonly offset: number;
  readonly size: number;
}
/** What one dispatch binds: its words of the uniform buffer, then its places in order. */
export interface Bindings {
  readonly kernel: Kernel;
  readonly uniformOffset: number;
  readonly places: readonly Place[];
}
type Table = readonly GPUBuffer[];

/** How many tables a program remembers: states that swap places need two, results come out of a pool. */
const REMEMBERED = 4;

const same = (a: Table, b: Table): boolean => {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
};

/**
 * Returns a function from a run's table of buffers to the bind groups of all dispatches. Cost: one comparison of the
 * table when it is known; otherwise new groups for those dispatches only that bind something new.
 */
export const rememberBindGroups = (
  device: GPUDevice,
  pipelines: Pipelines,
  uniforms: GPUBuffer,
  dispatches: readonly Bindings[],
): ((table: Table) => readonly GPUBindGroup[]) => {
  const create = ({ kernel, uniformOffset, places }: Bindings, table: Table): GPUBindGroup =>
    device.createBindGroup({
      layout: pipelines.layout(kernel.reads, kernel.writes),
      entries: [
        { binding: 0, resource: { buffer: uniforms, offset: uniformOffset, size: kernel.params.byteLength } },
        ...places.map(({ at, offset, size }, i) => ({
          binding: i + 1,
          resource: { buffer: table[at]!, offset, size },
        })),
      ],
    });
  const known: { readonly table: Table; readonly groups: readonly GPUBindGroup[] }[] = [];
  return (table) => {
    const found = known.findIndex((k) => same(table, k.table));
    if (found === 0) return known[0]!.groups;
    const fits = ({ places }: Bindings, other: Table): boolean => places.every(({ at }) => other[at] === table[at]);
    const entry =
      found > 0
        ? known.splice(found, 1)[0]!
        : {
            table: [...table],
            groups: dispatches.map((d, i) => known.find((k) => fits(d, k.table))?.groups[i] ?? create(d, table)),
          };
    known.unshift(entry);
    if (known.length > REMEMBERED) known.pop();
    return entry.groups;
  };
};
