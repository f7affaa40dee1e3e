export { type Vae, vaeSpec } from './spec.ts';
export { type Posterior, vaeDecode, vaeEncode, vaeSample } from './vae.ts';
