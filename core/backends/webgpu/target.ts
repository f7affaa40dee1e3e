/** What kernels are written for: a class of adapters, lanes of a subgroup, limits of what one kernel binds. */

/** What kernels need to know about the adapter: software drivers run workgroups on a few cores, barriers are slow. */
export type AdapterClass = 'cpu' | 'gpu';
/** What kernels are written for. */
export interface Target {
  readonly class: AdapterClass;
  /** lanes of a subgroup where that is one known number, else 0: no exchange between lanes */
  readonly subgroup: number;
}

/** What a device lets one kernel bind: bytes per binding (a multiple of 256), and storage bindings in all. */
export interface BindingLimits {
  readonly bytes: number;
  readonly count: number;
}
