/** The methods a run can train with: one file and one line each. The first is the default. */
import { adalora } from './adalora.ts';
import { alora } from './alora.ts';
import { dora } from './dora.ts';
import { dylora } from './dylora.ts';
import { elalora } from './elalora.ts';
import { eva } from './eva.ts';
import { fisherRanks } from './fisher-ranks.ts';
import { full } from './full.ts';
import { gora } from './gora.ts';
import { ia3 } from './ia3.ts';
import { increlora } from './increlora.ts';
import { loha } from './loha.ts';
import { lokr } from './lokr.ts';
import { lora } from './lora.ts';
import { loraGa } from './lora-ga.ts';
import { loraPlus } from './lora-plus.ts';
import { oft } from './oft.ts';
import { rslora } from './rslora.ts';
import { selora } from './selora.ts';
import { sora } from './sora.ts';
import { tiedLora } from './tied-lora.ts';
import { vera } from './vera.ts';

/** All of them. */
export const METHODS = [
  selora,
  lora,
  rslora,
  loraPlus,
  fisherRanks,
  loraGa,
  gora,
  eva,
  adalora,
  increlora,
  elalora,
  alora,
  dylora,
  sora,
  dora,
  vera,
  tiedLora,
  lokr,
  loha,
  oft,
  ia3,
  full,
] as const;
