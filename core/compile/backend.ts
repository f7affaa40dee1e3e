/** What a backend is: a place for bytes and a way to turn a graph into something that runs. */
import type { DType, HostArray } from '../ir/dtype.ts';
import type { Op, Tensor } from '../ir/tensor.ts';

/** A simplified graph: composites the backend has no kernel for are already inlined. */
export interface Graph {
  /** leaves that `run` is given values for, in order */
  readonly inputs: readonly Tensor[];
  /** what `run` returns, in order */
  readonly outputs: readonly Tensor[];
  /** all nodes (first results) except leaves, inputs first */
  readonly order: readonly Tensor[];
  /** `inputs` whose storage the program takes over: it may write there and must free what it does not return */
  readonly donated: ReadonlySet<number>;
}

/** One kernel of a program: what it computes and costs. */
export interface KernelReport {
  /** the op or the kernel's kind */
  readonly name: string;
  /** what it computes, as text */
  readonly detail: string;
  /** floating-point operations */
  readonly flops: number;
  /** bytes read and written at least */
  readonly bytes: number;
  /** numbers of a stored type that it makes f32 of */
  readonly widened: number;
  /** milliseconds of the last profiled run */
  readonly ms?: number;
  /** path of the module it works for, where known (CompileOptions.moduleOf) */
  readonly label?: string;
}

/** A stage of compilation, to read and as plain data for JSON. */
export interface Stage {
  /** for reading */
  readonly text: string;
  /** the same as plain data */
  readonly data: unknown;
}

/** A graph made ready for one backend: runs as often as wanted on storages of these shapes. */
export interface Executable<S> {
  /** Runs on the given storages; the results are new storages (or donated ones, reused). */
  run(inputs: readonly S[]): readonly S[];
  /** bytes of intermediate slots */
  readonly workspaceBytes: number;
  /** kernels in order; with times when `profile` ran before, and labels where `modules` names what a node works for */
  report(modules?: ReadonlyMap<Tensor, string>): readonly KernelReport[];
  /** runs once with a clock at every kernel */
  profile(inputs: readonly S[]): Promise<readonly S[]>;
  /** gives the program's own memory back; it must not run afterwards */
  release(): void;
  /** its kernels, where the graph was lowered to kernels */
  stages?(): { readonly lowered: Stage; readonly planned: Stage };
}

/** What a backend holds at this moment. */
export interface MemoryReport {
  /** bytes of all live storages and program workspaces */
  readonly liveBytes: number;
  /** largest liveBytes so far */
  readonly peakBytes: number;
  /** number of live storages */
  readonly storages: number;
}

/** The backends there are; `cpu` is the reference that the others are tested against. */
export type BackendName = 'cpu' | 'wasm' | 'webgpu' | 'gpujs';

/** A place for bytes and a way to turn graphs into programs. `close` ends its threads and frees its device. */
export interface Backend<S = unknown> {
  /** what it is opened by */
  readonly name: BackendName;
  /** the machine or adapter behind it, in words */
  readonly device: string;
  /** storages lie in this process's memory; false for a card with memory of its own */
  readonly inProcess: boolean;
  /** whether tensors of this type can be held and computed */
  supports(dtype: DType): boolean;
  /** true: this composite runs as one kernel here, or its body is lowered by itself; false: its body is inlined */
  hasKernel(op: Op): boolean;
  /** a storage with these values */
  store(values: HostArray, dtype: DType): S;
  /** the values of a storage, once everything before is done */
  load(storage: S): Promise<HostArray>;
  /** gives a storage back; it must not be used afterwards */
  free(storage: S): void;
  /** the program of a graph */
  build(graph: Graph): Executable<S>;
  /** what is held now */
  memory(): MemoryReport;
  /** ops that run on another backend because this one cannot express them */
  readonly fallbacks: readonly string[];
  /** ends threads, frees the device; nothing of this backend may be used afterwards */
  close(): Promise<void>;
}
