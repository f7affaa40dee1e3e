/** What this engine's WebAssembly can do; asked once, after the machine has set its flags. */
import { assembler, f32x4, v128 } from './assemble.ts';

let relaxed: boolean | undefined;
/** fused multiplication (relaxed SIMD) */
export const hasRelaxedSimd = (): boolean => {
  if (relaxed === undefined) {
    const m = assembler();
    m.kernel('probe', (f, { scratch }) => {
      const x = v128.load(scratch);
      f.emit(v128.store(scratch, f32x4.relaxed_madd(x, x, x)));
    });
    relaxed = WebAssembly.validate(m.bytes());
  }
  return relaxed;
};
