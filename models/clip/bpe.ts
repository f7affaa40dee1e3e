/**
 * Byte pair encoding of one word, in O(n log n).
 *
 * The rule: as long as some neighbouring pair of symbols is in the list of merges, join every occurrence (left to
 * right) of the pair that stands first in the list. Repeating that literally is quadratic for a long word; here the
 * symbols form a linked list and each rank keeps the places where its pair stands.
 *
 * Source: Sennrich et al. 2016; the order of joins is that of OpenAI CLIP's `simple_tokenizer.py`.
 */

/** Marks the last symbol of a word. */
const END_OF_WORD = '</w>';

/** Bytes that stand for themselves in the vocabulary's alphabet; the other 68 become U+0100, U+0101, … in order. */
const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

/** Character of each of the 256 bytes (OpenAI's `bytes_to_unicode`). */
export const BYTE_ALPHABET: readonly string[] = (() => {
  let extra = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : extra++));
})();

/** Symbols as numbers (0–255 the bytes, 256–511 the bytes that end a word), and what each pair of them becomes. */
export type MergeTable = {
  readonly symbols: readonly string[];
  /** pairKey(left, right) → rank, and rank → number of the joined symbol. */
  readonly rankOf: ReadonlyMap<number, number>;
  readonly joined: Int32Array;
};

/** Room for 2²⁶ symbols; the key stays exact in a double. */
const pairKey = (left: number, right: number): number => left * 0x4000000 + right;

/** Numbers the symbols of a list of merges. A pair that stands twice counts where it stands last. */
export function mergeTable(merges: readonly (readonly [string, string])[]): MergeTable {
  const symbols = [...BYTE_ALPHABET, ...BYTE_ALPHABET.map((c) => c + END_OF_WORD)];
  const numberOf = new Map(symbols.map((symbol, i) => [symbol, i]));
  const intern = (symbol: string): number => {
    const known = numberOf.get(symbol);
    if (known !== undefined) return known;
    numberOf.set(symbol, symbols.length);
    return symbols.push(symbol) - 1;
  };
  const rankOf = new Map<number, number>();
  const joined = new Int32Array(merges.length);
  for (const [rank, [left, right]] of merges.entries()) {
    rankOf.set(pairKey(intern(left), intern(right)), rank);
    joined[rank] = intern(left + right);
  }
  return { symbols, rankOf, joined };
}

/** A binary heap of distinct numbers, smallest first. */
function minHeap() {
  const heap: number[] = [];
  return {
    push(value: number): void {
      let i = heap.push(value) - 1;
      while (i > 0) {
        const parent = (i - 1) >> 1;
        if (heap[parent]! <= value) break;
        heap[i] = heap[parent]!;
        i = parent;
      }
      heap[i] = value;
    },
    pop(): number | undefined {
      const top = heap[0];
      const last = heap.pop();
      if (last === undefined || heap.length === 0) return top;
      let i = 0;
      for (let child = 1; child < heap.length; child = 2 * i + 1) {
        if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
        if (heap[child]! >= last) break;
        heap[i] = heap[child]!;
        i = child;
      }
      heap[i] = last;
      return top;
    },
  };
}

const NONE = -1;

/**
 * Joins the bytes of a word into symbols, by number.
 * cost: O(n log n) time, O(n) memory
 * @example bpe(table, utf8('chest')).map((s) => table.symbols[s]) // ['chest</w>']
 */
export function bpe(table: MergeTable, bytes: Uint8Array): number[] {
  const n = bytes.length;
  if (n === 0) return [];
  const symbol = Int32Array.from(bytes);
  symbol[n - 1]! += 256;
  const next = Int32Array.from(bytes, (_, i) => (i === n - 1 ? NONE : i + 1));
  const previous = Int32Array.from(bytes, (_, i) => i - 1);
  const alive = new Uint8Array(n).fill(1);
  const places = new Map<number, number[]>();
  const ranks = minHeap();

  const rankAt = (left: number): number | undefined => {
    const right = next[left]!;
    return right === NONE ? undefined : table.rankOf.get(pairKey(symbol[left]!, symbol[right]!));
  };
  const note = (left: number): void => {
    const rank = rankAt(left);
    if (rank === undefined) return;
    const list = places.get(rank);
    if (list) list.push(left);
    else {
      places.set(rank, [left]);
      ranks.push(rank);
    }
  };

  for (let i = 0; i < n; i++) note(i);
  for (let rank = ranks.pop(); rank !== undefined; rank = ranks.pop()) {
    const lefts = places.get(rank)!.sort((a, b) => a - b);
    places.delete(rank);
    const made: number[] = [];
    for (const left of lefts) {
      // The place may have been joined away, or the same place noted twice.
      if (!alive[left] || rankAt(left) !== rank) continue;
      const right = next[left]!;
      symbol[left] = table.joined[rank]!;
      alive[right] = 0;
      next[left] = next[right]!;
      if (next[left] !== NONE) previous[next[left]!] = left;
      made.push(left);
    }
    // New pairs only after all old ones of this rank are joined, as in the rule.
    for (const left of made) {
      note(left);
      if (previous[left] !== NONE) note(previous[left]!);
    }
  }

  const result: number[] = [];
  for (let i = 0; i !== NONE; i = next[i]!) result.push(symbol[i]!);
  return result;
}
