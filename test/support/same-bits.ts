/**
 * `toEqual` walks through arrays element by element: seconds for a million. Two arrays of one type with the same bytes are
 * equal before that; all others are left to it.
 */
import { expect } from 'vitest';

expect.addEqualityTesters([
  function sameBits(a: unknown, b: unknown): true | undefined {
    if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
    const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    return bytes(a).equals(bytes(b)) || undefined;
  },
]);
