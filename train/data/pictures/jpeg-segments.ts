/**
 * What cameras and old programs get wrong in a JPEG and every viewer reads over: stray bytes between segments, and
 * zeroed parameters of a sequential scan, which have one value only. Nothing within a scan is touched.
 *
 * Source: ITU-T T.81, B.1.1 and B.2.3.
 */

export const isJpeg = (bytes: Uint8Array): boolean => bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;

const SCAN = 0xda;
const sequential = (marker: number) => marker === 0xc0 || marker === 0xc1;

/** The file without those faults; undefined where its segments have none of them or cannot be followed. */
export function mendedJpeg(bytes: Uint8Array): Uint8Array | undefined {
  const parts: Uint8Array[] = [bytes.subarray(0, 2)];
  let frame: number | undefined;
  let mended = false;
  for (let at = 2; at + 4 <= bytes.length; ) {
    if (bytes[at] !== 0xff || bytes[at + 1] === 0 || bytes[at + 1] === 0xff) {
      mended ||= bytes[at] !== 0xff;
      at++;
      continue;
    }
    const marker = bytes[at + 1]!;
    const end = at + 2 + ((bytes[at + 2]! << 8) | bytes[at + 3]!);
    if (end > bytes.length) return undefined;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) frame ??= marker;
    const segment = bytes.slice(at, end);
    if (marker === SCAN) {
      if (frame !== undefined && sequential(frame) && segment.length >= 7) {
        const parameters = [0, 63, 0];
        mended ||= parameters.some((value, i) => segment[segment.length - 3 + i] !== value);
        segment.set(parameters, segment.length - 3);
      }
      return mended ? Buffer.concat([...parts, segment, bytes.subarray(end)]) : undefined;
    }
    parts.push(segment);
    at = end;
  }
  return undefined;
}
