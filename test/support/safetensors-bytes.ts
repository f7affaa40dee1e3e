/** A safetensors file in memory, by the writer itself. */
import { type Metadata, streamSafetensors, type TensorOut } from '../../models/io/safetensors-write.ts';

/** The bytes that `writeSafetensors` would write. */
export async function encodeSafetensors(
  tensors: ReadonlyMap<string, TensorOut>,
  metadata: Metadata = new Map(),
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  await streamSafetensors(tensors, metadata, async (bytes) => {
    chunks.push(bytes);
  });
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}
