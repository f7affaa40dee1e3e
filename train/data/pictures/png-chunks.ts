/**
 * A strict walk over the chunks of a PNG before any decoder sees it: order, lengths, checksums, sane header. Only the
 * chunks that make pixels are kept, so that colour profiles, texts and whatever follows the end never reach the decoder
 * on the way in, nor a reader of our pictures on the way out; on the way in also EXIF, which says how the picture stands.
 *
 * Source: PNG specification (third edition), sections 5 and 11.
 */

/** Why a file is no usable image; the caller adds the file's name. */
export class ImageProblem extends Error {}

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

export const isPng = (bytes: Uint8Array): boolean => SIGNATURE.every((value, at) => bytes[at] === value);

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

/** CRC-32 as in PNG and zip (Node's own `zlib.crc32` is younger than the oldest Node we support). */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = CRC_TABLE[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Bit depths allowed for each colour type. */
const DEPTHS: ReadonlyMap<number, readonly number[]> = new Map([
  [0, [1, 2, 4, 8, 16]],
  [2, [8, 16]],
  [3, [1, 2, 4, 8]],
  [4, [8, 16]],
  [6, [8, 16]],
]);

export type PngHeader = {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colourType: number;
};

function readHeader(body: Uint8Array): PngHeader {
  if (body.length !== 13) throw new ImageProblem(`PNG header has ${body.length} bytes, expected 13`);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, colourType, compression, filter, interlace] = body.subarray(8);
  if (width === 0 || height === 0) throw new ImageProblem(`PNG size is ${width} x ${height} pixels`);
  if (width > 0x7fffffff || height > 0x7fffffff) throw new ImageProblem('PNG size is above 2^31 - 1 pixels');
  if (!DEPTHS.get(colourType!)?.includes(depth!)) {
    throw new ImageProblem(`PNG bit depth ${depth} with colour type ${colourType} does not exist`);
  }
  if (compression !== 0 || filter !== 0 || interlace! > 1) {
    throw new ImageProblem(
      `PNG format: unknown compression ${compression}, filter ${filter} or interlace ${interlace}`,
    );
  }
  return { width, height, depth: depth!, colourType: colourType! };
}

type Chunk = { readonly type: string; readonly body: Uint8Array; readonly whole: Uint8Array };

function* chunksOf(bytes: Uint8Array): Generator<Chunk> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = SIGNATURE.length; ; ) {
    if (at + 12 > bytes.length) throw new ImageProblem('PNG is truncated: it ends before its IEND chunk');
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw new ImageProblem(`PNG is corrupt: no chunk at byte ${at}`);
    if (length > bytes.length - at - 12) throw new ImageProblem(`PNG is truncated within its ${type} chunk`);
    if (view.getUint32(at + 8 + length) !== crc32(bytes.subarray(at + 4, at + 8 + length))) {
      throw new ImageProblem(`PNG is corrupt: wrong checksum of its ${type} chunk`);
    }
    yield { type, body: bytes.subarray(at + 8, at + 8 + length), whole: bytes.subarray(at, at + 12 + length) };
    if (type === 'IEND') return;
    at += 12 + length;
  }
}

/** Chunks that make pixels. tRNS says which grey or palette entries are transparent. */
const KEPT: ReadonlySet<string> = new Set(['IHDR', 'PLTE', 'tRNS', 'IDAT', 'IEND']);

/** EXIF with an orientation has some dozens of bytes. */
const MAX_EXIF_BYTES = 2 ** 16;

/**
 * Checks a PNG's structure and gives its header and the same picture without any other chunk, and, where there is one,
 * with its EXIF (`marked`). One pass for checksums.
 * @throws ImageProblem naming the chunk and what is wrong with it.
 */
export function cleanPng(bytes: Uint8Array): {
  readonly header: PngHeader;
  readonly png: Uint8Array;
  readonly marked?: Uint8Array;
} {
  if (!isPng(bytes)) throw new ImageProblem('not a PNG: wrong signature');
  const chunks = [...chunksOf(bytes)];
  const types = chunks.map(({ type }) => type);
  if (types[0] !== 'IHDR') throw new ImageProblem(`PNG begins with chunk ${types[0]}, expected IHDR`);
  const header = readHeader(chunks[0]!.body);
  for (const single of ['IHDR', 'PLTE', 'tRNS']) {
    if (types.indexOf(single) !== types.lastIndexOf(single)) throw new ImageProblem(`PNG has two ${single} chunks`);
  }
  const [first, last] = [types.indexOf('IDAT'), types.lastIndexOf('IDAT')];
  if (first < 0) throw new ImageProblem('PNG has no pixels (no IDAT chunk)');
  if (types.slice(first, last).some((type) => type !== 'IDAT'))
    throw new ImageProblem('PNG: IDAT chunks are torn apart');
  const palette = chunks.find(({ type }) => type === 'PLTE');
  if (header.colourType === 3 && !palette) throw new ImageProblem('PNG is a palette image without palette (PLTE)');
  if (palette && (types.indexOf('PLTE') > first || palette.body.length % 3 !== 0 || palette.body.length > 768)) {
    throw new ImageProblem('PNG palette (PLTE) is misplaced or of wrong size');
  }
  const unknown = chunks.find(({ type }) => type[0]! < 'a' && !KEPT.has(type));
  if (unknown) throw new ImageProblem(`PNG has a critical chunk ${unknown.type} this format does not know`);
  const kept = chunks.filter(({ type }) => KEPT.has(type)).map(({ whole }) => whole);
  const png = Buffer.concat([SIGNATURE, ...kept]);
  const marks = chunks.filter(({ type, body }) => type === 'eXIf' && body.length <= MAX_EXIF_BYTES);
  if (marks.length !== 1) return { header, png };
  const before = Buffer.concat([SIGNATURE, chunks[0]!.whole, marks[0]!.whole]);
  return { header, png, marked: Buffer.concat([before, ...kept.slice(1)]) };
}
