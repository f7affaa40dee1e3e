/**
 * Resampling as Pillow does it (and so torchvision's `Resize` on a PIL image), to the bit for 8-bit pictures. sharp's
 * own resize gives other pixels, and resize filters change what a model and a FID see.
 *
 * One separable pass per axis, horizontal first; a pass that changes nothing is skipped. Weights of output i come from
 * the window of centre (i + 0.5)·in/out, stretched by max(1, in/out) (antialiased), cut at the border and renormalised.
 * Source: Pillow, src/libImaging/Resample.c and Geometry.c (ImagingScaleAffine).
 */

/** Row by row, channels interleaved: data[(y · width + x) · channels + c]. */
export type Pixels<Data extends ArrayLike<number> = Uint8ClampedArray | Uint8Array | Float32Array | Float64Array> = {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: Data;
};

export type Filter = 'nearest' | 'box' | 'bilinear' | 'hamming' | 'bicubic' | 'lanczos';

type Kernel = { readonly support: number; readonly weight: (x: number) => number };

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

/** Keys' cubic: a = -0.5 in Pillow, -0.75 in torch without antialias. */
const cubic = (a: number): Kernel => ({
  support: 2,
  weight: (signed) => {
    const x = Math.abs(signed);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  },
});

const KERNELS: Readonly<Record<Exclude<Filter, 'nearest'>, Kernel>> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    weight: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))),
  },
  bicubic: cubic(-0.5),
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** For each output: the first input and the weights from there on. */
type Taps = readonly { readonly first: number; readonly weights: readonly number[] }[];

/** Outputs `start` up to `start + count` of `to` in all. */
function antialiasedTaps(from: number, to: number, { support, weight }: Kernel, start = 0, count = to): Taps {
  const scale = from / to;
  const stretch = Math.max(1, scale);
  return Array.from({ length: count }, (_, i) => {
    const centre = (start + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const last = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const raw = Array.from({ length: last - first }, (_, k) => weight((k + first - centre + 0.5) / stretch));
    const sum = raw.reduce((total, value) => total + value, 0);
    return { first, weights: raw.map((value) => (sum === 0 ? value : value / sum)) };
  });
}

/** How sums are kept: 8-bit pictures use integer weights of 22 bits and round after each pass. */
type Arithmetic = { readonly weight: (w: number) => number; readonly store: (sum: number) => number };

const PRECISION = 2 ** 22;
const EIGHT_BIT: Arithmetic = {
  weight: (w) => Math.trunc(w * PRECISION + (w < 0 ? -0.5 : 0.5)),
  store: (sum) => Math.min(255, Math.max(0, Math.floor((sum + PRECISION / 2) / PRECISION))),
};
const REAL: Arithmetic = { weight: (w) => w, store: (sum) => sum };

type Buffer = Uint8Array | Float32Array | Float64Array;

/** One pass along x of lines of `stride`-spaced samples; used for both axes. */
function pass(
  source: Buffer,
  out: Buffer,
  taps: Taps,
  arithmetic: Arithmetic,
  lines: number,
  line: { readonly from: (line: number) => number; readonly to: (line: number) => number },
  step: number,
): void {
  const weights = taps.map((tap) => tap.weights.map(arithmetic.weight));
  for (let at = 0; at < lines; at++) {
    const from = line.from(at);
    const to = line.to(at);
    for (let i = 0; i < taps.length; i++) {
      const own = weights[i]!;
      let index = from + taps[i]!.first * step;
      let sum = 0;
      for (let k = 0; k < own.length; k++, index += step) sum += own[k]! * source[index]!;
      out[to + i * step] = arithmetic.store(sum);
    }
  }
}

/** Both passes; an axis without taps stays as it is. */
function separable<Data extends Buffer>(
  image: Pixels<Data>,
  across: Taps | undefined,
  down: Taps | undefined,
  make: (length: number) => Data,
  arithmetic: Arithmetic,
): Pixels<Data> {
  const { channels } = image;
  const width = across?.length ?? image.width;
  const height = down?.length ?? image.height;
  let { data } = image;
  if (across) {
    const out = make(width * image.height * channels);
    const line = (span: number) => (at: number) => Math.floor(at / channels) * span * channels + (at % channels);
    const lines = { from: line(image.width), to: line(width) };
    pass(data, out, across, arithmetic, image.height * channels, lines, channels);
    data = out;
  }
  if (down) {
    const out = make(width * height * channels);
    const line = (at: number) => at;
    pass(data, out, down, arithmetic, width * channels, { from: line, to: line }, width * channels);
    data = out;
  }
  return { width, height, channels, data };
}

/** Resizes the whole picture; an axis that keeps its length is skipped. */
function whole<Data extends Buffer>(
  image: Pixels<Data>,
  width: number,
  height: number,
  tapsOf: (from: number, to: number) => Taps,
  make: (length: number) => Data,
  arithmetic: Arithmetic,
): Pixels<Data> {
  const taps = (from: number, to: number) => (from === to ? undefined : tapsOf(from, to));
  return separable(image, taps(image.width, width), taps(image.height, height), make, arithmetic);
}

/** Pillow's nearest neighbour adds the step up in double precision; that decides at whole numbers. */
function nearestTaps(from: number, to: number): Taps {
  const step = from / to;
  let position = step * 0.5;
  return Array.from({ length: to }, () => {
    const first = Math.min(from - 1, Math.trunc(position));
    position += step;
    return { first, weights: [1] };
  });
}

const tapsFor = (filter: Filter) => (from: number, to: number) =>
  filter === 'nearest' ? nearestTaps(from, to) : antialiasedTaps(from, to, KERNELS[filter]);

const checkSize = (width: number, height: number) => {
  if (!(Number.isSafeInteger(width) && width > 0 && Number.isSafeInteger(height) && height > 0)) {
    throw new RangeError(`resize to ${width} x ${height}: expected whole numbers > 0`);
  }
};

/**
 * Resizes an 8-bit picture [h,w,c] to [height,width,c], equal to Pillow's `Image.resize` to the bit.
 * Cost: about (input window) multiplications per output sample and pass.
 * @throws RangeError unless the size is made of whole numbers above 0.
 * @example resize8({ width: 2, height: 1, channels: 1, data: Uint8Array.of(0, 200) }, 1, 1, 'box').data // [100]
 */
export function resize8(image: Pixels<Uint8Array>, width: number, height: number, filter: Filter): Pixels<Uint8Array> {
  checkSize(width, height);
  const arithmetic = filter === 'nearest' ? REAL : EIGHT_BIT;
  return whole(image, width, height, tapsFor(filter), (n) => new Uint8Array(n), arithmetic);
}

/**
 * Resizes a picture of real numbers, neither rounded nor clipped: as Pillow's mode F (sums in double, f32 between the
 * passes).
 * @throws RangeError unless the size is made of whole numbers above 0.
 */
export function resizeFloat(
  image: Pixels<Float32Array>,
  width: number,
  height: number,
  filter: Filter,
): Pixels<Float32Array> {
  checkSize(width, height);
  return whole(image, width, height, tapsFor(filter), (n) => new Float32Array(n), REAL);
}

/**
 * Resizes in double precision as torch's `interpolate` (align_corners false): with antialias the same filters as
 * Pillow; without it two or four neighbours, the border repeated, and bicubic with a = -0.75.
 * @throws RangeError unless the size is made of whole numbers above 0.
 */
export function resizeTorch(
  image: Pixels<Float64Array>,
  width: number,
  height: number,
  filter: 'bilinear' | 'bicubic',
  antialias: boolean,
): Pixels<Float64Array> {
  checkSize(width, height);
  const taps = antialias ? tapsFor(filter) : (from: number, to: number) => plainTaps(from, to, filter);
  return whole(image, width, height, taps, (n) => new Float64Array(n), REAL);
}

function plainTaps(from: number, to: number, filter: 'bilinear' | 'bicubic'): Taps {
  const { support, weight } = filter === 'bilinear' ? KERNELS.bilinear : cubic(-0.75);
  return Array.from({ length: to }, (_, i) => {
    // torch keeps the bilinear position inside the picture, the bicubic one not; both repeat the border.
    const raw = ((i + 0.5) * from) / to - 0.5;
    const position = filter === 'bilinear' ? Math.max(0, raw) : raw;
    const base = Math.floor(position);
    const weights = new Array<number>(from).fill(0);
    for (let k = base - support + 1; k <= base + support; k++) {
      weights[Math.min(from - 1, Math.max(0, k))]! += weight(k - position);
    }
    const first = Math.min(from - 1, Math.max(0, base - support + 1));
    return { first, weights: weights.slice(first, base + support + 1) };
  });
}

/** Size whose shortest side is `short`; the other is truncated, as torchvision's `Resize(short)`. */
export function shortestSide(width: number, height: number, short: number): { width: number; height: number } {
  return width <= height
    ? { width: short, height: Math.max(1, Math.trunc((short * height) / width)) }
    : { width: Math.max(1, Math.trunc((short * width) / height)), height: short };
}

/** Half to even, as Python's `round`, which places torchvision's centre crop. */
const roundHalfEven = (x: number) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/**
 * The middle side × side part, as torchvision's `CenterCrop`.
 * @throws RangeError where the picture is smaller than that.
 */
export function centreCrop<Data extends Buffer>(image: Pixels<Data>, side: number): Pixels<Data> {
  const { width, height, channels, data } = image;
  if (width < side || height < side) {
    throw new RangeError(`centre crop of ${side}: the picture is only ${width} x ${height}`);
  }
  const top = roundHalfEven((height - side) / 2);
  const left = roundHalfEven((width - side) / 2);
  const out = data.slice(0, side * side * channels) as Data;
  for (let row = 0; row < side; row++) {
    const from = ((top + row) * width + left) * channels;
    out.set(data.subarray(from, from + side * channels), row * side * channels);
  }
  return { width: side, height: side, channels, data: out };
}

/** Where a middle that lies between two pixels begins: torchvision rounds half to even, CLIP's preprocessing down. */
export type Middle = 'half-even' | 'down';

/** The taps of the middle `side` outputs of an axis resized from `from` to `to`. */
function croppedTaps(from: number, to: number, side: number, filter: Exclude<Filter, 'nearest'>, middle: Middle): Taps {
  const start = middle === 'down' ? Math.floor((to - side) / 2) : roundHalfEven((to - side) / 2);
  return from === to
    ? Array.from({ length: side }, (_, i) => ({ first: start + i, weights: [1] }))
    : antialiasedTaps(from, to, KERNELS[filter], start, side);
}

/** Width and height of what is cut out; a number for a square. */
export type CropSize = number | { readonly width: number; readonly height: number };

/** Size at which a picture covers width × height with one side exactly; the other is truncated. */
function covering(image: Pixels<Buffer>, size: CropSize): { width: number; height: number } {
  if (typeof size === 'number') return shortestSide(image.width, image.height, size);
  const { width, height } = size;
  return image.width * height <= width * image.height
    ? { width, height: Math.max(height, Math.trunc((width * image.height) / image.width)) }
    : { width: Math.max(width, Math.trunc((height * image.width) / image.height)), height };
}

function cropped<Data extends Buffer>(
  image: Pixels<Data>,
  size: CropSize,
  filter: Exclude<Filter, 'nearest'>,
  make: (length: number) => Data,
  arithmetic: Arithmetic,
  middle: Middle = 'half-even',
): Pixels<Data> {
  const [across, down] = typeof size === 'number' ? [size, size] : [size.width, size.height];
  checkSize(across, down);
  const { width, height } = covering(image, size);
  const columns = croppedTaps(image.width, width, across, filter, middle);
  const rows = croppedTaps(image.height, height, down, filter, middle);
  return separable(image, columns, rows, make, arithmetic);
}

/**
 * Shortest side to the size, then the middle part of it: `centreCrop(resize8(…))` to the bit, without ever making
 * the pixels that are cut off (a strip of 1 × 50,000 pixels would become gigabytes).
 * @example resizeAndCrop8(film, 224) // [224, 224, channels]
 */
export function resizeAndCrop8(
  image: Pixels<Uint8Array>,
  size: CropSize,
  filter: Exclude<Filter, 'nearest'> = 'bilinear',
  middle: Middle = 'half-even',
): Pixels<Uint8Array> {
  return cropped(image, size, filter, (n) => new Uint8Array(n), EIGHT_BIT, middle);
}

/** As `resizeAndCrop8` for real numbers, neither rounded nor clipped. */
export function resizeAndCropFloat(
  image: Pixels<Float32Array>,
  size: CropSize,
  filter: Exclude<Filter, 'nearest'> = 'bilinear',
): Pixels<Float32Array> {
  return cropped(image, size, filter, (n) => new Float32Array(n), REAL);
}
