/** The modules of a training step's arguments, for profiles: which labels are parameters is known here, not in core/. */

/** what the labels of weights, of adapters and their moments, and of candidates end with */
const PARAMETER = /\.(weight|bias|age|K|slot|[pmv]\.\w+)$/;

/** `unet.mid_block.proj_in.p.A` → `unet.mid_block.proj_in`; undefined for what is no parameter of a module. */
export const moduleOf = (label: string): string | undefined =>
  PARAMETER.test(label) ? label.replace(PARAMETER, '') : undefined;
