/**
 * The WASM backend: SIMD kernels on one shared memory, all cores. A program is lowered and planned once; a step is one
 * walk over its commands. Intermediates of all programs share one workspace (programs never run at the same time).
 */

import type { Backend, Executable, Graph, KernelReport } from '../../compile/backend.ts';
import { type Buffer, type Kernel, readsOf } from '../../compile/lower.ts';
import { type Arena, arena } from '../../compile/plan.ts';
import { type Prepared, prepare } from '../../compile/prepare.ts';
import { reportKernels } from '../../compile/report.ts';
import { dtypes } from '../../ir/dtype.ts';
import { CoreError } from '../../ir/errors.ts';
import type { Op, Tensor } from '../../ir/tensor.ts';
import { contiguousView, type View } from '../../ir/view.ts';
import { clusterWork, clusterWorkspace, installKernels } from './cluster/index.ts';
import type { Call, Placed } from './kernel.ts';
import { kernels } from './kernels.ts';
import type { KernelSource, Work } from './loops/walk.ts';
import { type Command, createMachine, type MachineOptions, type Program } from './machine/machine.ts';
import { ALIGN, isOutside, Memory, type WasmStorage } from './machine/memory.ts';

/** most buffers one cluster reads, and writes */
const [MAX_LOADS, MAX_OUTPUTS] = [16, 8];
/** inputs up to this size that move are copied into place; bigger ones cause the commands to be written anew */
const STAGE_BYTES = 4 * 2 ** 20;
class WasmProgram implements Executable<WasmStorage> {
  readonly workspaceBytes: number;
  private readonly memory: Memory;
  private readonly lowered: Prepared;
  private readonly arena: Arena;
  private readonly scratchBytes: number;
  private readonly donated: ReadonlySet<number>;
  /** buffers of the inputs */
  private readonly given: ReadonlySet<Buffer>;
  /** where inputs and fixed outputs lie in the commands as written */
  private bound: number[] = [];
  private readonly staged = new Map<number, number>();
  private readonly results = new Map<Buffer, number>();
  private program: Program | undefined;
  private version = -1;
  private commandsOf: readonly number[] = [];
  private times: readonly number[] | undefined;

  constructor(memory: Memory, graph: Graph) {
    this.memory = memory;
    this.donated = graph.donated;
    const strided = (op: Op, i: number): boolean => kernels.get(op.name)?.strided[i] ?? false;
    this.lowered = prepare(graph, {
      strided,
      partial: (op) => kernels.get(op.name)?.partial ?? false,
      maxLoads: MAX_LOADS,
      merge: { maxLoads: MAX_LOADS, maxOutputs: MAX_OUTPUTS },
      // results are written inside
      over: (dtype) => !isOutside(dtype),
    });
    this.given = new Set(this.lowered.inputs);
    this.arena = arena(this.lowered.spans, ALIGN);
    this.scratchBytes = this.lowered.kernels.reduce((most, k) => Math.max(most, this.kernelWorkspace(k)), 0);
    this.workspaceBytes = this.arena.bytes + this.scratchBytes;
  }

  private kernelWorkspace(k: Kernel): number {
    if (k.kind === 'cluster') return clusterWorkspace(k.cluster);
    return kernelOf(k.node.op).workspace?.(this.call(k, () => 0, 0)) ?? 0;
  }
  private call(k: Extract<Kernel, { kind: 'op' }>, address: (b: Buffer) => number, workspace: number): Call {
    const place = (b: Buffer, view: View): Placed => ({
      address: address(b),
      view,
      dtype: b.dtype,
      outside: this.given.has(b) && isOutside(b.dtype),
    });
    return {
      machine: this.memory.machine,
      attrs: k.node.attrs,
      inputs: k.inputs.map((o) => place(o.buffer, o.view)),
      outputs: k.outputs.map((b, i) => b && place(b, contiguousView(k.node.outs[i]!.shape))),
      workspace,
    };
  }

  /** writes the commands for the present addresses */
  private write(inputs: readonly WasmStorage[]): void {
    const { machine, workspace } = this.memory;
    const address = new Map<Buffer, number>();
    for (const [b, offset] of this.arena.offsets) address.set(b, workspace.address + offset);
    for (const [i, b] of this.lowered.inputs.entries()) address.set(b, this.staged.get(i) ?? inputs[i]!.address);
    this.bound = this.lowered.inputs.map((b) => address.get(b)!);
    for (const b of this.lowered.outputs) {
      const over = this.lowered.reuse.get(b);
      if (!over && !this.results.has(b)) {
        const bytes = b.elements * dtypes[b.dtype].bytes;
        this.results.set(b, this.memory.alloc(bytes, 'a result'));
        this.memory.count(bytes);
      }
      address.set(b, over ? address.get(over)! : this.results.get(b)!);
    }
    const scratch = workspace.address + this.arena.bytes;
    const commands: Command[] = [];
    const owner: number[] = [];
    const sources: KernelSource[] = [];
    for (const [i, k] of this.lowered.kernels.entries()) {
      const work: Partial<Work> & Pick<Work, 'commands'> =
        k.kind === 'cluster'
          ? clusterWork(k.cluster, {
              inputs: readsOf(k).map((b) => address.get(b)!),
              outputs: k.outputs.map((b) => address.get(b)!),
              workspace: scratch,
            })
          : kernelOf(k.node.op).work(this.call(k, (b) => address.get(b)!, scratch));
      for (const c of work.commands) {
        commands.push(c);
        owner.push(i);
      }
      sources.push(...(work.kernels ?? []));
    }
    installKernels(machine, sources);
    if (this.program) machine.release(this.program);
    this.program = machine.prepare(commands);
    this.commandsOf = owner;
    this.version = workspace.version;
  }

  private bind(inputs: readonly WasmStorage[]): Program {
    // not before it runs: a program that is only inspected takes no memory
    this.memory.reserve(this.workspaceBytes);
    const first = this.program === undefined;
    let stale = first || this.version !== this.memory.workspace.version;
    for (const [i, s] of inputs.entries()) {
      if (first || this.bound[i] === s.address || this.staged.has(i)) continue;
      stale = true;
      // an input that comes from another place each time gets a fixed place of its own
      if (!isOutside(s.dtype) && s.bytes <= STAGE_BYTES) {
        this.staged.set(i, this.memory.alloc(s.bytes, 'a staged input'));
        this.memory.count(s.bytes);
      }
    }
    if (stale) this.write(inputs);
    const { u8 } = this.memory.machine;
    for (const [i, to] of this.staged) u8.copyWithin(to, inputs[i]!.address, inputs[i]!.address + inputs[i]!.bytes);
    return this.program!;
  }

  private finish(inputs: readonly WasmStorage[]): WasmStorage[] {
    const kept = new Set<WasmStorage>();
    const outputs = this.lowered.outputs.map((b) => {
      const over = this.lowered.reuse.get(b);
      if (over) {
        const i = this.lowered.inputs.indexOf(over);
        const s = inputs[i]!;
        const staged = this.staged.get(i);
        if (staged !== undefined) this.memory.machine.u8.copyWithin(s.address, staged, staged + s.bytes);
        kept.add(s);
        return s;
      }
      const s = this.memory.storage(b.elements, b.dtype);
      this.memory.view(s).set(this.memory.inside(this.results.get(b)!, b.elements, b.dtype) as never);
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
    for (const [c, k] of this.commandsOf.entries()) times[k]! += each[c]!;
    this.times = times;
    return this.finish(inputs);
  }
  report(modules?: ReadonlyMap<Tensor, string>): KernelReport[] {
    return reportKernels(this.lowered.kernels, { modules, times: this.times });
  }
  release(): void {
    if (this.program) this.memory.machine.release(this.program);
    for (const [i, a] of this.staged) {
      this.memory.machine.free(a);
      const b = this.lowered.inputs[i]!;
      this.memory.count(-b.elements * dtypes[b.dtype].bytes);
    }
    for (const [b, a] of this.results) {
      this.memory.machine.free(a);
      this.memory.count(-b.elements * dtypes[b.dtype].bytes);
    }
    this.program = undefined;
    this.staged.clear();
    this.results.clear();
  }
}

const kernelOf = (op: Op) => {
  const kernel = kernels.get(op.name);
  if (!kernel) throw new CoreError(`wasm has no kernel for ${op.name}`);
  return kernel;
};

/** Opens the WASM backend; `threads` defaults to the cores this process may use. */
export function wasmBackend(options: MachineOptions = {}): Backend<WasmStorage> {
  const machine = createMachine(options);
  const memory = new Memory(machine);
  return {
    name: 'wasm',
    device: `WASM SIMD, ${machine.threads} thread${machine.threads > 1 ? 's' : ''}`,
    inProcess: true,
    supports: (d) => d !== 'f64',
    hasKernel: (op) => kernels.has(op.name),
    store(values, dtype) {
      const s = memory.storage(values.length, dtype);
      memory.view(s).set(values as never);
      return s;
    },
    load: async (s) => memory.view(s).slice(),
    free: (s) => memory.free(s),
    build: (graph) => new WasmProgram(memory, graph),
    memory: () => ({ liveBytes: memory.liveBytes, peakBytes: memory.peakBytes, storages: memory.live.size }),
    fallbacks: [],
    close: async () => machine.close(),
  };
}
