/** Constant vectors in memory: the bits of each number once, spread over the lanes by the code that wants them. */
import type { Constants } from '../assembler/encode.ts';

/** numbers there is room for; later ones are made where they are used */
const MOST = 256;
export const CONSTANT_BYTES = MOST * 4;

/** Gives places from `address` on; `write` puts the bits there, before the code that reads them is compiled. */
export const constantsAt = (address: number, write: (address: number, bits: number) => void): Constants => {
  const places = new Map<number, number>();
  return (bits) => {
    const there = places.get(bits);
    if (there !== undefined || places.size === MOST) return there;
    const place = address + 4 * places.size;
    write(place, bits);
    places.set(bits, place);
    return place;
  };
};
