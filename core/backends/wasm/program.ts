/**
 * A program: the kernels of a graph planned once, as commands relative to the workspace, the inputs and the results. A run
 * is one walk over them; where the workspace or an input has moved, only its addresses are written anew.
 */
import type { Executable, Graph, KernelReport } from '../../compile/backend.ts';
import { isOnce } from '../../compile/bodies.ts';
import { type Buffer, bytesOfBuffer, readsOf } from '../../compile/lower.ts';
import { arena } from '../../compile/plan.ts';
import { kernelStages, type Prepared, type PrepareOptions, prepare } from '../../compile/prepare.ts';
import { reportKernels } from '../../compile/report.ts';
import type { Op, Tensor } from '../../ir/tensor.ts';
import { type Address, install, type KernelCommand, link } from './kernel.ts';
import { kernels } from './kernels.ts';
import type { Program } from './machine/machine.ts';
import { ALIGN, isOutside, type Memory, type WasmStorage } from './machine/memory.ts';
import { planner } from './plans.ts';

/** most buffers one cluster reads, and writes */
const [MAX_LOADS, MAX_OUTPUTS] = [16, 8];
/** the composites that are not written out */
export const hasKernel = (op: Op): boolean => kernels.has(op.name) || isOnce(op);
/** one for all programs, so that bodies are lowered for all of them */
const LOWERING: PrepareOptions = {
  strided: (op, i) => kernels.get(op.name)?.strided[i] ?? false,
  widens: (op, i, { buffer, view }) => kernels.get(op.name)?.widens?.(i, buffer.dtype, view) ?? false,
  partial: (op) => kernels.get(op.name)?.partial ?? false,
  hasKernel,
  maxLoads: MAX_LOADS,
  merge: { maxLoads: MAX_LOADS, maxOutputs: MAX_OUTPUTS },
  // results are written inside
  over: (dtype) => !isOutside(dtype),
};
/** the first base of a program; the inputs follow, then the results */
const WORKSPACE = 0;

export class WasmProgram implements Executable<WasmStorage> {
  readonly workspaceBytes: number;
  private readonly memory: Memory;
  private readonly lowered: Prepared;
  private readonly donated: ReadonlySet<number>;
  /** results that lie over no input, and the fixed place of each once it has run */
  private readonly results: readonly Buffer[];
  private readonly places = new Map<Buffer, number>();
  /** until they are written into memory */
  private commands: readonly KernelCommand[];
  /** the kernel each command belongs to */
  private readonly owners: readonly number[];
  private program: Program | undefined;
  /** where the bases of the program as written lie */
  private bases: number[] = [];
  private times: readonly number[] | undefined;

  constructor(memory: Memory, graph: Graph) {
    this.memory = memory;
    this.donated = graph.donated;
    this.lowered = prepare(graph, LOWERING);
    const { inputs, outputs, reuse, spans } = this.lowered;
    this.results = outputs.filter((b) => !reuse.has(b));

    const { offsets, bytes } = arena(spans, ALIGN);
    const address = new Map<Buffer, Address>();
    for (const [b, offset] of offsets) address.set(b, { base: WORKSPACE, offset });
    for (const [i, b] of [...inputs, ...this.results].entries()) address.set(b, { base: 1 + i, offset: 0 });
    for (const [b, over] of reuse) address.set(b, address.get(over)!);
    const planOf = planner(memory.machine, inputs);
    const plans = this.lowered.kernels.map(planOf);
    const scratch: Address = { base: WORKSPACE, offset: bytes };
    const commands = this.lowered.kernels.map((k, i) => {
      // a result that nobody reads is no base of any command
      const bases = [...readsOf(k), ...k.outputs].map((b) => address.get(b!)!);
      return plans[i]!.commands.map((c) => link(c, [...bases, scratch]));
    });
    this.commands = commands.flat();
    this.owners = commands.flatMap((list, i) => list.map(() => i));
    this.workspaceBytes = bytes + plans.reduce((most, p) => Math.max(most, p.bytes), 0);
  }

  stages(): ReturnType<typeof kernelStages> {
    return kernelStages(this.lowered);
  }

  /** the program with its bases at the present addresses */
  private bind(inputs: readonly WasmStorage[]): Program {
    // not before it runs: a program that is only inspected takes no memory
    this.memory.reserve(this.workspaceBytes);
    const { machine, workspace } = this.memory;
    if (!this.program) {
      for (const b of this.results)
        if (!this.places.has(b)) {
          this.places.set(b, this.memory.alloc(bytesOfBuffer(b), 'a result'));
          this.memory.count(bytesOfBuffer(b));
        }
      install(machine, this.commands);
      this.bases = [
        workspace.address,
        ...inputs.map((s) => s.address),
        ...this.results.map((b) => this.places.get(b)!),
      ];
      this.program = machine.prepare(this.commands, this.bases);
      this.commands = [];
      return this.program;
    }
    this.move(WORKSPACE, workspace.address);
    for (let i = 0; i < inputs.length; i++) this.move(1 + i, inputs[i]!.address);
    return this.program;
  }
  private move(base: number, address: number): void {
    if (this.bases[base] === address) return;
    this.memory.machine.move(this.program!, base, address);
    this.bases[base] = address;
  }

  private finish(inputs: readonly WasmStorage[]): WasmStorage[] {
    const kept = new Set<WasmStorage>();
    const outputs = this.lowered.outputs.map((b) => {
      const over = this.lowered.reuse.get(b);
      if (over) {
        const s = inputs[this.lowered.inputs.indexOf(over)]!;
        kept.add(s);
        return s;
      }
      const s = this.memory.storage(b.elements, b.dtype);
      this.memory.view(s).set(this.memory.inside(this.places.get(b)!, b.elements, b.dtype) as never);
      return s;
    });
    for (const i of this.donated) if (!kept.has(inputs[i]!)) this.memory.free(inputs[i]!);
    return outputs;
  }

  run(inputs: readonly WasmStorage[]): WasmStorage[] {
    this.memory.machine.run(this.bind(inputs));
    return this.finish(inputs);
  }
  async profile(inputs: readonly WasmStorage[]): Promise<WasmStorage[]> {
    const each = this.memory.machine.profile(this.bind(inputs));
    const times = this.lowered.kernels.map(() => 0);
    for (const [c, k] of this.owners.entries()) times[k]! += each[c]!;
    this.times = times;
    return this.finish(inputs);
  }
  report(modules?: ReadonlyMap<Tensor, string>): KernelReport[] {
    return reportKernels(this.lowered.kernels, { modules, times: this.times });
  }
  release(): void {
    if (this.program) this.memory.machine.release(this.program);
    for (const [b, a] of this.places) {
      this.memory.machine.free(a);
      this.memory.count(-bytesOfBuffer(b));
    }
    this.program = undefined;
    this.places.clear();
  }
}
