/** The public names of SeLoRA, in reading order. A blank line below each heading keeps the formatter from sorting across. */

// ── adapters as trees by module path ───────────────────────────────────────────────────────────────────────────────

export {
  type Adapter,
  type Adapters,
  foldKey,
  type HostKey,
  hostKey,
  initAdapter,
  initAdapters,
  type KaimingGain,
  kaimingUniform,
  keyText,
  parameterCount,
  rankOf,
  totalRank,
} from './adapter.ts';
export { attach } from './attach.ts';

// ── where a rank is missing, and growing it ────────────────────────────────────────────────────────────────────────

export type { Criterion } from './criteria/criterion.ts';
export { CRITERIA } from './criteria/index.ts';
export { candidate, expandAdapter } from './expand.ts';
export {
  type Decision,
  decide,
  fisherByRank,
  fisherScore,
  naturalByRank,
  type PerSample,
  type RankSums,
  ratioOf,
  type Scores,
  scoresOf,
  squaresByRank,
} from './fisher.ts';
export { type Memory, smooth } from './smooth.ts';

// ── methods of a training run ──────────────────────────────────────────────────────────────────────────────────────

export { lora } from './methods/lora.ts';
export { Field, type Fields, type Method, type Params, type Place, type Places } from './methods/method.ts';
export { methodNames, methodOf, settingsOf } from './methods/registry.ts';
export { selora } from './methods/selora.ts';

// ── which modules ──────────────────────────────────────────────────────────────────────────────────────────────────

export { ALL, globToRegExp, matchTargets, presets, ranksByHand, selectTargets, type TargetPreset } from './targets.ts';

// ── without an adapter again ───────────────────────────────────────────────────────────────────────────────────────

export { changeNorms, deltaWeight, merge, unmerge } from './merge.ts';
