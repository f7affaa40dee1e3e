/**
 * One uncompressed DICOM picture: what a viewer shows of a film, as grey of 16 bits or colour of 8. The header is read
 * for the numbers that make pixels; no text of it goes into a picture or a message, since headers hold names.
 *
 * Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (rescale), C.11.2 (window); PS3.5 A.4 (transfer syntaxes).
 */
import dicomParser from 'dicom-parser';
import { ImageProblem } from './png-chunks.ts';
import type { Pixels } from './resample.ts';

export const isDicom = (bytes: Uint8Array): boolean =>
  bytes[128] === 0x44 && bytes[129] === 0x49 && bytes[130] === 0x43 && bytes[131] === 0x4d;

/** Grey values 0 … 65,535 or colours 0 … 255. */
export type DicomPicture =
  | (Pixels<Uint16Array> & { readonly depth: 16; readonly channels: 1 })
  | (Pixels<Uint8Array> & { readonly depth: 8; readonly channels: 3 });

/** A header is read up to here: one of small elements alone must not fill the memory. */
const MAX_HEADER_BYTES = 4 * 2 ** 20;

const READ = ['1.2.840.10008.1.2', '1.2.840.10008.1.2.1'];

/** Transfer syntaxes whose pixels are not read, by the names people know. */
const COMPRESSED: ReadonlyMap<string, string> = new Map([
  ['1.2.840.10008.1.2.1.99', 'Deflated Explicit VR Little Endian'],
  ['1.2.840.10008.1.2.2', 'Explicit VR Big Endian'],
  ['1.2.840.10008.1.2.4.50', 'JPEG Baseline'],
  ['1.2.840.10008.1.2.4.51', 'JPEG Extended'],
  ['1.2.840.10008.1.2.4.57', 'JPEG Lossless'],
  ['1.2.840.10008.1.2.4.70', 'JPEG Lossless, first-order prediction'],
  ['1.2.840.10008.1.2.4.80', 'JPEG-LS Lossless'],
  ['1.2.840.10008.1.2.4.81', 'JPEG-LS Near-Lossless'],
  ['1.2.840.10008.1.2.4.90', 'JPEG 2000 Lossless'],
  ['1.2.840.10008.1.2.4.91', 'JPEG 2000'],
  ['1.2.840.10008.1.2.4.100', 'MPEG-2'],
  ['1.2.840.10008.1.2.4.102', 'MPEG-4'],
  ['1.2.840.10008.1.2.4.201', 'High-Throughput JPEG 2000 Lossless'],
  ['1.2.840.10008.1.2.4.203', 'High-Throughput JPEG 2000'],
  ['1.2.840.10008.1.2.5', 'RLE Lossless'],
]);

type Header = dicomParser.DataSet;

/** The header up to the pixels. What the library finds wrong stays unsaid: its messages may quote the file. */
function headerOf(bytes: Uint8Array): Header {
  const start = bytes.subarray(0, MAX_HEADER_BYTES);
  let syntax: string;
  try {
    syntax = dicomParser.readPart10Header(start, { untilTag: 'x00020011' }).string('x00020010') ?? '';
  } catch {
    throw new ImageProblem('DICOM has a broken header');
  }
  if (!READ.includes(syntax)) {
    const name = COMPRESSED.get(syntax);
    const what = name === undefined ? 'stored in a way that is not known here' : `stored as ${name}`;
    throw new ImageProblem(`DICOM is ${what}; decompress it first, e.g. with dcmdjpeg, dcmdrle or gdcmconv --raw`);
  }
  try {
    return dicomParser.parseDicom(start, { untilTag: 'x7fe00010' });
  } catch {
    throw new ImageProblem('DICOM has a broken header');
  }
}

/** A whole number of the header that must lie within bounds. */
function whole(header: Header, tag: string, name: string, allowed: readonly number[], missing?: number): number {
  const value = header.uint16(tag) ?? missing;
  if (value === undefined) throw new ImageProblem(`DICOM lacks ${name}`);
  if (!allowed.includes(value))
    throw new ImageProblem(`DICOM: ${name} is ${value}, expected ${allowed[0]} to ${allowed.at(-1)}`);
  return value;
}

/** The first number of a decimal string; undefined where there is none. */
function decimal(header: Header, tag: string, name: string): number | undefined {
  const text = header.string(tag)?.split('\\')[0]?.trim();
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new ImageProblem(`DICOM: ${name} is no number`);
  return value;
}

/** Header numbers that say where the pixels lie and what they mean. */
function layoutOf(header: Header, bytes: Uint8Array, maxPixels: number) {
  const side = (tag: string, name: string): number => {
    const value = header.uint16(tag);
    if (value === undefined) throw new ImageProblem(`DICOM lacks ${name}`);
    return value;
  };
  const [height, width] = [side('x00280010', 'Rows'), side('x00280011', 'Columns')];
  if (width === 0 || height === 0) throw new ImageProblem(`DICOM size is ${width} x ${height} pixels`);
  if (width * height > maxPixels)
    throw new ImageProblem(`DICOM of ${width} x ${height} pixels, at most ${maxPixels} pixels are read`);
  const frames = decimal(header, 'x00280008', 'NumberOfFrames') ?? 1;
  if (frames !== 1) throw new ImageProblem(`DICOM holds ${frames} pictures, expected one`);
  const meaning = header.string('x00280004')?.trim() ?? '';
  const channels = whole(header, 'x00280002', 'SamplesPerPixel', [1, 3], 1);
  const wanted = channels === 1 ? ['MONOCHROME1', 'MONOCHROME2'] : ['RGB'];
  if (!wanted.includes(meaning)) {
    const known = ['PALETTE COLOR', 'YBR_FULL', 'YBR_FULL_422', 'YBR_ICT', 'YBR_RCT', 'HSV', 'CMYK'].includes(meaning);
    throw new ImageProblem(`DICOM: ${known ? meaning : 'its PhotometricInterpretation'} is not read`);
  }
  const bits = whole(header, 'x00280100', 'BitsAllocated', channels === 1 ? [8, 16] : [8]);
  const stored = whole(header, 'x00280101', 'BitsStored', range(1, bits), bits);
  const high = whole(header, 'x00280102', 'HighBit', range(stored - 1, bits - 1), stored - 1);
  const signed = whole(header, 'x00280103', 'PixelRepresentation', [0, 1], 0) === 1;
  const planar = channels === 3 && whole(header, 'x00280006', 'PlanarConfiguration', [0, 1], 0) === 1;
  const element = header.elements.x7fe00010;
  if (element === undefined)
    throw new ImageProblem(
      bytes.length > MAX_HEADER_BYTES ? 'DICOM has a header that is too long' : 'DICOM has no pixels',
    );
  const count = width * height * channels;
  const start = element.dataOffset;
  if (start + (count * bits) / 8 > bytes.length) throw new ImageProblem('DICOM cannot be decoded, it is truncated');
  return { width, height, channels, bits, stored, low: high + 1 - stored, signed, planar, meaning, start, count };
}

const range = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at);

type Layout = ReturnType<typeof layoutOf>;

/** Stored numbers of a grey picture, sign and position of their bits put right. */
function storedValues(bytes: Uint8Array, { bits, stored, low, signed, start, count }: Layout): Int32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Int32Array(count);
  const shift = 32 - stored;
  for (let at = 0; at < count; at++) {
    const raw = bits === 8 ? bytes[start + at]! : view.getUint16(start + 2 * at, true);
    const placed = (raw >>> low) << shift;
    out[at] = signed ? placed >> shift : placed >>> shift;
  }
  return out;
}

/** A value after rescaling → its brightness 0 … 1. */
type Window = (value: number) => number;

/** The header's window; undefined where it has none. */
function windowOf(header: Header): Window | undefined {
  const centre = decimal(header, 'x00281050', 'WindowCenter');
  const width = decimal(header, 'x00281051', 'WindowWidth');
  if (centre === undefined || width === undefined) return undefined;
  const kind = header.string('x00281056')?.trim().toUpperCase() || 'LINEAR';
  if (!['LINEAR', 'LINEAR_EXACT', 'SIGMOID'].includes(kind))
    throw new ImageProblem('DICOM: its VOILUTFunction is not known');
  if (!(width > 0) || (kind === 'LINEAR' && width < 1))
    throw new ImageProblem(`DICOM: WindowWidth is ${width}, too narrow`);
  if (kind === 'SIGMOID') return (x) => 1 / (1 + Math.exp((-4 * (x - centre)) / width));
  if (kind === 'LINEAR_EXACT') return (x) => clipped((x - centre) / width + 0.5);
  const [from, span] = [centre - 0.5 - (width - 1) / 2, width - 1];
  return (x) => (x <= from ? 0 : x > from + span ? 1 : clipped((x - (centre - 0.5)) / span + 0.5));
}

const clipped = (y: number): number => Math.min(1, Math.max(0, y));

/**
 * Decodes a DICOM file: rescale slope and intercept, then the window (the first one; from the darkest to the brightest
 * value where there is none, padding left out), MONOCHROME1 inverted.
 * @throws ImageProblem when its pixels are compressed (by name), of several frames, cut, or of a kind that is not read.
 */
export function decodeDicom(bytes: Uint8Array, maxPixels: number): DicomPicture {
  const header = headerOf(bytes);
  const layout = layoutOf(header, bytes, maxPixels);
  const { width, height, count, start } = layout;
  if (layout.channels === 3) {
    const stored = bytes.subarray(start, start + count);
    const pixels = width * height;
    const data = layout.planar
      ? Uint8Array.from({ length: count }, (_, at) => stored[(at % 3) * pixels + Math.floor(at / 3)]!)
      : stored.slice();
    return { width, height, channels: 3, depth: 8, data };
  }
  if (header.elements.x00283000 !== undefined)
    throw new ImageProblem('DICOM: a Modality LUT Sequence is not read, only rescale slope and intercept');
  const slope = decimal(header, 'x00281053', 'RescaleSlope') ?? 1;
  const intercept = decimal(header, 'x00281052', 'RescaleIntercept') ?? 0;
  const values = storedValues(bytes, layout);
  const padding = layout.signed ? header.int16('x00280120') : header.uint16('x00280120');
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (value === padding) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  // nothing but padding, or one value everywhere
  if (least > most) [least, most] = [0, 0];
  const ends = [least * slope + intercept, most * slope + intercept];
  const [from, to] = [Math.min(...ends), Math.max(...ends)];
  const window = windowOf(header) ?? ((x: number) => (to > from ? clipped((x - from) / (to - from)) : 0));
  const inverted = layout.meaning === 'MONOCHROME1';
  // a film has few different values: one window for each
  const shown = new Map<number, number>();
  const data = new Uint16Array(count);
  for (let at = 0; at < count; at++) {
    const value = values[at]!;
    let y = shown.get(value);
    if (y === undefined) {
      const brightness = value === padding ? 0 : window(value * slope + intercept);
      y = Math.round(65_535 * (inverted && value !== padding ? 1 - brightness : brightness));
      shown.set(value, y);
    }
    data[at] = y;
  }
  return { width, height, channels: 1, depth: 16, data };
}
