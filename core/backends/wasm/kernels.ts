/** The WASM kernels by op: which composites run fused, and which operands may be strided, is read from here. */
import { attentionGradKernels } from './attention/backward.ts';
import { attentionKernels } from './attention/forward.ts';
import { convKernels } from './conv/index.ts';
import type { WasmKernel } from './kernel.ts';
import { copyKernels } from './move/copy.ts';
import { gatherKernels } from './move/gather.ts';
import { halfKernels } from './move/half.ts';
import { nf4Kernels } from './move/nf4.ts';
import { randomKernels } from './move/random.ts';
import { normKernels } from './norm/index.ts';
import { productKernels } from './product/index.ts';

export const kernels: ReadonlyMap<string, WasmKernel> = new Map(
  Object.entries({
    ...productKernels,
    ...attentionKernels,
    ...attentionGradKernels,
    ...normKernels,
    ...convKernels,
    ...copyKernels,
    ...gatherKernels,
    ...halfKernels,
    ...nf4Kernels,
    ...randomKernels,
  }) as unknown as [string, WasmKernel][],
);
