export { inception, TAPS, type TapSize } from './inception.ts';
export { inceptionPixels, type Rgb, SIDE } from './pixels.ts';
export { type Inception, inceptionSpec, inceptionSpecUpTo } from './spec.ts';
