/** What this engine's WebAssembly can do. */
import { assembler, f32x4, v128 } from './assemble.ts';

let relaxed = false;
/** Fused multiplication (relaxed SIMD). A no is asked again: a machine may have set V8's flag since. */
export const hasRelaxedSimd = (): boolean => {
  if (!relaxed) {
    const m = assembler();
    m.kernel('probe', (f, { scratch }) => {
      const x = v128.load(scratch);
      f.emit(v128.store(scratch, f32x4.relaxed_madd(x, x, x)));
    });
    relaxed = WebAssembly.validate(m.bytes());
  }
  return relaxed;
};
