/**
 * What a method is to the training loop: one record of pure functions. The loop owns Adam, padding, checkpoints, batches
 * and programs; a method says what it trains, how a layer uses it, and what grows, shrinks or is masked.
 */
import type { z } from 'zod';
import { entries, mapTree, type Tensor, type Tree } from '../../core/index.ts';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import type { HostKey } from '../adapter.ts';
import type { AdaptedModule } from '../attach.ts';
import type { PerModule, PerNetwork } from '../networks.ts';

/** What is trained of one module and what is kept beside it: the method's own tree. */
export type Params = { readonly [field: string]: Tree<Tensor> };
/** The frozen weight of a module as PyTorch shapes it: [d_out, d_in], of a convolution [d_out, c_in, kh, kw]. */
export type Place = readonly [dOut: number, dIn: number, ...kernel: number[]];
/** path → place, in the order of the model */
export type Places = ReadonlyMap<string, Place>;
/** Settings by name, as `z.output` of a method's own schema makes them. */
export type Settings = Readonly<Record<string, unknown>>;

/** One tensor of a method's tree without its values; a class, because trees take plain records for inner nodes. */
export class Field {
  /** that of the tensor */
  readonly shape: readonly number[];
  /** the axis that counts ranks, which padding makes longer; null: none */
  readonly axis: number | null;
  /** false: kept beside what is trained and seen by the layer, but no gradient moves it: a mask, a running mean, a fixed draw */
  readonly trained: boolean;
  /**
   * true: all modules of a network whose field has this shape hold one and the same tensor. Their gradients are added up,
   * so that the copies, equal at the start, stay equal; it counts once in the gradient's norm and among the parameters.
   */
  readonly tied: boolean;
  /**
   * true, of one that is not trained: `after` is told its gradient, unclipped, though no update moves it and no norm counts
   * it. A layer whose derivative by it is a measurement reports one in every backward pass.
   */
  readonly measured: boolean;
  constructor(shape: readonly number[], axis: number | null = null, trained = true, tied = false, measured = false) {
    this.shape = shape;
    this.axis = axis;
    this.trained = trained;
    this.tied = tied;
    this.measured = measured;
  }
}
/** A tree like a method's own, with fields for tensors. */
export type Fields = { readonly [name: string]: Tree<Field> };

/**
 * f over every leaf of a tree and its field, in the order of the fields.
 * @throws TypeError naming the first field that has no leaf
 */
export function mapFields<L, R>(f: (leaf: L, field: Field, name: string) => R, tree: Tree<L>, fields: Fields): R[] {
  const found = new Map(entries<L>(tree));
  return entries<Field>(fields).map(([name, field]) => {
    if (!found.has(name)) throw new TypeError(`a module has no ${name}`);
    return f(found.get(name)!, field, name);
  });
}

/** The fields of Adam's moments: those of what is trained; a kept field has one number for each, always 0. */
export const momentFields = (fields: Fields): Fields =>
  mapTree<Fields, Fields>((f: Field) => (f.trained ? f : new Field([])), fields);

/** One module of a run: parameters, Adam's moments in the same trees, and how many updates each rank has had. */
export type Slot<P = Params> = { readonly p: P; readonly m: P; readonly v: P; readonly age: Tensor };

/** A tensor's numbers on the host, row-major. */
export type HostTensor = { readonly shape: readonly number[]; readonly data: Float32Array };
/** What was trained of one module, without padding: its rank and its fields by dotted name. */
export type HostModule = { readonly rank: number; readonly fields: { readonly [name: string]: HostTensor } };

/** What a test reads: `P` a module's gradients, `S` its scores on the device, `X` what the test put into it. */
export interface Measure<P, S, X = never> {
  /**
   * What is kept of the gradients [b, …] of single samples, by the module with x in place: over several micro-batches the
   * mean of it. Absent where the gradient of the mean loss is enough, which needs no gradients of samples.
   */
  samples?(g: P, at: P, x: X): Tree<Tensor>;
  /** whether it is needed with x in place; absent: always */
  single?(x: X): boolean;
  /** Scores of one module from the mean gradient, what was kept, and the module as it was before the update. */
  scores(mean: P, kept: Tree<Tensor> | undefined, p: P): S;
}

/** What one test may run on the batches of its step, in any order; `update` once, before anything is awaited, or not at all (`before`). */
export interface Passes<X, H> {
  /** the update of the step; with `x` in place, scores come from the same backward pass */
  update(x?: PerModule<X>): () => Promise<PerModule<H>>;
  /**
   * Scores at the parameters as they are at this moment, without an update: over the step's own micro-batches, or over
   * those from one place to another of all there are, the step's own first.
   */
  measure(x: PerModule<X>, range?: readonly [from: number, to: number]): () => Promise<PerModule<H>>;
  /** the same of every batch by itself, one after the other */
  each(x: PerModule<X>, range?: readonly [from: number, to: number]): Promise<readonly PerModule<H>[]>;
  /** the mean loss with x in place, at the parameters as they are at this moment, over batches as in `measure` */
  loss(x: PerModule<X>, range?: readonly [from: number, to: number]): Promise<number>;
  /** micro-batches there are: those of the step, then those that only its test sees */
  readonly batches: number;
  /** what `Growth.look` makes of the parameters as they are at this moment, without any pass */
  look(): () => Promise<PerModule<H>>;
}
/** What a test begins with. */
export interface Now<M> {
  /** 1-based */
  readonly step: number;
  /** of the whole run */
  readonly steps: number;
  /** the run's; a method folds its own purposes into it */
  readonly key: HostKey;
  readonly places: PerNetwork<Places>;
  readonly ranks: Ranks;
  /** places for ranks that each module has in the programs */
  readonly room: Ranks;
  /** what earlier tests remembered, by module name */
  readonly memories: { readonly [module: string]: M };
}
/** A row of the log of tests; a method adds its own columns. */
export interface Decided {
  readonly module: string;
  /** whether the rank is another one now */
  readonly expanded: boolean;
  readonly rankAfter: number;
}
/** The outcome of a test; X is what is installed. */
export interface Outcome<X, M, D extends Decided = Decided> {
  readonly decisions: readonly D[];
  readonly ranks: Ranks;
  readonly memories: { readonly [module: string]: M };
  /** what each sample of the test's batches had to do with it, in their order, where the test can tell */
  readonly carried?: readonly number[] | undefined;
  /** what is written into the state of every module, where the programs have so much room; absent: nothing changes */
  readonly install?: ((room: Ranks) => PerModule<X>) | undefined;
}

/**
 * How a method changes its ranks while it trains. X is what a test puts into a module, H what it reads of it on the host,
 * I what is installed for good.
 */
export interface Growth<P, C, X, S, H, M, D extends Decided = Decided, I = X> {
  /** whether the update of this step (1-based) carries a test */
  due(c: C, step: number, steps: number): boolean;
  /** how many of a run's steps do */
  count(c: C, steps: number): number;
  /** true: the test makes no update of its own; the step's follows it, with what was installed */
  before?(c: C): boolean;
  /** true: its passes read the scores of each batch by itself (`Passes.each`) */
  byBatch?(c: C): boolean;
  /** x of one module without its values, where the programs have room for so many ranks */
  trial(place: Place, room: number, c: C): Fields;
  /** parameters with x in place; must not change what the layer computes */
  place(p: P, x: X, c: C): P;
  /** the gradient the update takes of one that was measured with x in place */
  settle(g: P, x: X, c: C): P;
  measure(c: C): Measure<P, S, X>;
  /** scores that need no gradient: of the module as it is, with what is kept in it */
  look?(p: P, c: C): S;
  /** the module with x for good; a module that does not change gets it, too */
  install(slot: Slot<P>, x: I, c: C): Slot<P>;
  /** runs its passes and says how to decide, which may read scores and run more */
  test(passes: Passes<X, H>, now: Now<M>, c: C): () => Promise<Outcome<I, M, D>>;
  /** what is remembered of a module, as a checkpoint holds it */
  readonly memory: z.ZodType<M>;
}

/** What a start sees of one module. */
export interface Looked {
  /** ∂loss/∂W[d_out, d_in], the mean over the batches; a convolution's d_in counts [in, kh, kw] */
  readonly gradient: HostTensor;
  /** W of the same shape, where the start asks for it */
  readonly weight?: HostTensor;
  readonly place: Place;
  /** by the settings */
  readonly rank: number;
  /** of this run and module alone */
  readonly key: HostKey;
}

/**
 * A start that looks at ∂loss/∂W of every place before the first step. Modules come one after the other: a gradient is let go
 * when K is made of it, which should be small, since that of all modules is there at once.
 */
export interface Begin<P, C, K = unknown> {
  /** batches that the gradient is the mean of: those of the first steps */
  batches(c: C): number;
  /** whether it looks at the weights, too */
  readonly weights?: true;
  /** what is kept of one module */
  keep(seen: Looked, c: C): K;
  /** other ranks than those of the settings */
  ranks?(kept: PerModule<K>, ranks: Ranks, places: PerNetwork<Places>, c: C): Ranks;
  /** another module than the fresh one; the model's output must still be the base's, unless `moves` */
  module?(kept: K, fresh: P, rank: number, c: C): P;
  /** true: the model is another than the base from here on */
  readonly moves?: true;
}

/** Which update was just made, for `after`: tensors, so that one program serves every step. */
export interface Made {
  /** 1-based, an f32 scalar */
  readonly step: Tensor;
  /** how many there are in the run, an f32 scalar */
  readonly steps: Tensor;
  /** the learning rate of the module's network */
  readonly rate: Tensor;
  /** u32[2], of this run, step and module alone */
  readonly key: Tensor;
  /** u32[2], of this run and step, the same for all modules */
  readonly shared: Tensor;
}

/** rank of every module; 1 where a method has no ranks */
export type Ranks = PerModule<number>;

/** What an adapter's header says of the method. */
export interface Facts {
  readonly lambda: number | null;
  readonly testEvery: number | null;
  readonly scale: number;
  readonly initA: number;
}

/** One method, as the training loop asks it. Every function is pure. `c` are the settings of the run, the method's among them. */
export interface Method<P extends Params = Params, C = Settings, X = unknown, S = unknown, H = unknown, M = unknown> {
  /** what `--method` takes */
  readonly name: string;
  /** one line */
  readonly doc: string;
  /** paper and equation */
  readonly source: string;
  /** zod fields by name, each with `.meta({ help })`; a name that two methods share is one and the same field */
  readonly settings: z.ZodRawShape;
  /** what is wrong between these settings: the name of one and why. Asked of every method for every run. */
  problem?(
    c: C & { readonly batch: number; readonly method: string },
  ): { readonly path: string; readonly message: string } | undefined;
  /** settings that follow from those given, where nothing else is asked for; asked of every method */
  implied?(given: Settings): Settings;
  /** how a run is called beside others */
  label?(c: C): string | undefined;
  /** what the header of an adapter says */
  facts(c: C): Facts;
  /** true: the first ranks of a trained module are an adapter of their own; else fewer ranks are those of an SVD */
  readonly nested?: true;

  /** the least rank a module may have: 1, or 0 where some begin with none */
  leastRank(c: C): 0 | 1;
  /**
   * Ranks at the start; `known` are those of modules that begin from a file.
   * @throws RangeError naming the setting that does not fit these places
   */
  ranks(c: C, places: PerNetwork<Places>, known?: Ranks): Ranks;
  /** ranks as a run is planned, where its start deals them out by what it sees; absent: as they are by `ranks` */
  foreseen?(c: C, ranks: Ranks, places: PerNetwork<Places>): Ranks;
  /** places for ranks in the programs' shapes, of a module of rank `own` where the largest of its network is `most` */
  room(c: C, most: number, own: number): number;
  /** the tree of one module without its values, at a rank */
  fields(place: Place, rank: number, c: C): Fields;
  /** the modules of one network at the start: the model's output must be the base's */
  init(places: Places, ranks: { readonly [path: string]: number }, key: HostKey, c: C): { readonly [path: string]: P };
  /** how a run begins that looks at gradients first; absent: by `init` alone */
  readonly begin?: Begin<P, C, unknown>;
  /** the layer that takes the frozen one's place */
  attach(module: AdaptedModule, p: P, c: C): object;
  /** the module as it is used where it is not trained (validation): without what was drawn for one step */
  whole?(p: P, c: C): P;
  /** which ranks take part in an update, [ranks] of 0 and 1: the others keep values, moments and ages. Absent: all */
  moved?(p: P, c: C): Tensor;
  /** how many updates the ranks of a field have had, by its dotted name, where it is not the module's age: [ranks] */
  ages?(p: P, age: Tensor, c: C): { readonly [field: string]: Tensor };
  /** added to the loss that is trained on: of all modules' parameters, a scalar */
  penalty?(modules: readonly P[], c: C): Tensor;
  /** factors on the learning rate, by dotted name of a field; 1 where none is named */
  rates?(c: C): { readonly [field: string]: number };
  /**
   * The module after an update, `g` the gradient it was made with (clipped, 0 for what is kept and not measured): running means, masks, a
   * projection, the draw for the next step. A free rank has gradient 0 and must stay 0.
   */
  after?(slot: Slot<P>, g: P, made: Made, c: C): Slot<P>;
  /** how ranks change while it trains; absent: they do not */
  readonly growth?: Growth<P, C, X, S, H, M>;

  /**
   * A module for other programs; undefined: there is nothing to write (rank 0).
   * @param weight the frozen one as the place shapes it, where the method says that it `needsWeight`
   */
  toFile(module: HostModule, place: Place, c: C, weight?: Float32Array): AdapterModule | undefined;
  /** whether the change depends on the frozen weight, so that a file can only be written beside it */
  readonly needsWeight?: true;
  /** The module by LyCORIS' names (`hada_w1_a` …), where it has a form of its own there, smaller than its change. */
  toLycoris?(module: HostModule, place: Place, c: C, weight?: Float32Array): { readonly [name: string]: HostTensor };
  /**
   * The parameters of a module of a file, for a layer that computes what the file says. What the file leaves without a
   * gradient (a rank that is zero on both sides) is taken from `fresh`.
   */
  fromFile(module: AdapterModule, c: C, fresh: P): P;
}
/** A method whose settings keep their own types, so that those of a run can be put together from them. */
export type MethodOf<
  F extends z.ZodRawShape,
  P extends Params = Params,
  X = unknown,
  S = unknown,
  H = unknown,
  M = unknown,
> = Method<P, z.output<z.ZodObject<F>>, X, S, H, M> & { readonly settings: F };
