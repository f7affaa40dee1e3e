/**
 * The words of drawings: which must not be there at all, which names are another's variant, and how a name is said.
 * The small base must never have seen a chest film or a part of one, so whatever shows a chest, bones or organs is left
 * out by its words, and on the safe side: a treasure chest goes with the chests.
 */

import { seedKey, subkey } from '../../../core/index.ts';

/** A drawing with one of these in its name, its label or any of its keywords is left out; each also with a plural s. */
export const EXCLUDED_WORDS: readonly string[] = [
  ...[
    'chest',
    'thorax',
    'thoracic',
    'torso',
    'breast',
    'breastfeeding',
    'bosom',
    'rib',
    'ribcage',
    'sternum',
    'clavicle',
  ],
  ...['bone', 'backbone', 'crossbones', 'fishbone', 'wishbone', 'collarbone', 'jaw', 'skull', 'skeleton', 'skeletal'],
  ...['spine', 'spinal', 'vertebra', 'vertebrae', 'tooth', 'dental', 'dentist', 'remains', 'fossil', 'meat'],
  ...['lung', 'pulmonary', 'bronchi', 'bronchus', 'trachea', 'diaphragm', 'pleura', 'respiratory', 'breathing'],
  ...['anatomy', 'anatomical', 'organ', 'brain', 'kidney', 'liver', 'cardiac', 'cardio', 'cardiology', 'cardiogram'],
  ...['heartbeat', 'heart rate', 'pulse', 'ecg', 'ekg', 'monitor heart', 'pacemaker', 'stethoscope'],
  ...[
    'xray',
    'x ray',
    'radiology',
    'radiography',
    'radiologist',
    'radiograph',
    'tomography',
    'mri',
    'ct',
    'ultrasound',
  ],
  ...['scan', 'scanner', 'body', 'doctor', 'nurse', 'physician', 'surgeon', 'health', 'healthcare', 'physiotherapist'],
  ...['massage', 'autopsy', 'steamy', 'zombie', 'bust', 'pregnant', 'bikini', 'swimsuit', 'water polo', 't rex'],
];

/** Lower-case words of a text, without accents and apostrophes: `'X-ray, ribs'` → `['x', 'ray', 'ribs']`. */
export const wordsOf = (text: string): readonly string[] =>
  text
    .normalize('NFD')
    .replace(/[\u0300-\u036f'’]/g, '')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== '');

const EXCLUDED = new RegExp(` (?:${EXCLUDED_WORDS.join('|')})s? `);

/** Whether one of the texts holds a word of `EXCLUDED_WORDS`. @example isExcluded(['lungs-filled']) // true */
export const isExcluded = (texts: readonly string[]): boolean =>
  texts.some((text) => EXCLUDED.test(` ${wordsOf(text).join(' ')} `));

const set = (words: string): ReadonlySet<string> => new Set(words.trim().split(/\s+/));

/** Words of the names of line icons that are letters, marks of a program's interface, or brands. */
const INTERFACE = set(`
  activity adjustments ai align alphabet alt analyze antenna api app apps arrow arrows article artboard aspect axis background
  backslash badge badges baseline binary blend blockquote bmp bold border bot bounce box brackets braces brand caret
  category ce chevron chevrons circles circuit clear click code codeblock coin column columns command components
  connection copy copyleft copyright corner corners creative crop csv css currency cursor cut dashboard database
  decimal derivatives deselect details device devices dimensions dots duplicate ease email exposure external favicon
  file filter filters flip float fold formatting forms function gender gif git gps grip h hash hd hdr heading hexagon
  highlight history hours html http icons id indent inner input italic ipad join jpg js json kerning keyframe keyframes
  label language layers layout letter letters line lines link list live load loader logic login logout logs macro
  markdown math matrix message microfrontends middleware mobiledata model multiplied multiplier notdef number numbers
  octagon option outer outline overline page paywall pdf pentagon percentage picture pilcrow placeholder player plug
  png point pointer premium queue quote rating radius receipt regex registered relation reorder replace rewind rights
  ripple row rss s schema script sdk section select selector seo separator serverless servicemark settings shadow sign
  signal skew skip sort space spacing sql square squares stack status step strikethrough stroke subscript subtask sum
  superscript svg symlink tab table tabs template terminal tex text timezone toggle toml tooltip topology track
  trademark transaction transfer transform transition txt type typeface typography u uhd underline ux variable
  flag thinking versions vector view viewport vip vs wash webhook wifi www x xd xxx zero zip zoom lego michelin mickey pacman
  playstation pokeball tir xbox
`);

/** Endings of a line icon that put a small mark into a corner of the icon without it. */
const MARKS = set(`
  add alert automotive auto bitcoin bolt bulk calling camera cancel check clock cog compare computing connected copy
  disabled dollar dot down download due edit error euro event exclamation export fast flag forward hand heart help high
  import incoming infinity key left link list lock low medium minus month move off opened outgoing pause pay photo pin
  pinned play plus pound question record refresh refund repeat return right ringing root rotate rounded screen search
  send share shield small smile snooze spark star starred stats stop tax text time top up upload user week world x
`);

/** The name of a line icon without its fill. */
const unfilled = (name: string): string => name.replace(/(-filled)+$/, '');

/** Whether a line icon is a picture of something, not a letter, a mark of an interface, a brand or a marked variant. */
export function isPictorial(name: string, names: ReadonlySet<string>): boolean {
  const parts = unfilled(name).split('-');
  const last = parts.at(-1)!;
  if (parts.includes('off') || (parts.length > 1 && parts[0] === 'clock')) return false;
  if (parts.some((part) => INTERFACE.has(part))) return false;
  if (parts.length === 1) return true;
  if (/^\d+$/.test(last)) return false;
  return !(MARKS.has(last) && (parts[0] === 'mood' || names.has(parts.slice(0, -1).join('-'))));
}

const TONE = /-(?:tone\d|(?:medium-)?(?:light|dark)|medium)$/;
const VARIANTS =
  /^(?:family|kiss|couple-with-heart)-|^(?:keycap|digit|letter)(?:-|$)|^\d+$|-(?:facing-right|thirty|button)$|^(?:japanese|input)-|^(?:orange|yellow|green|(?:light-)?blue|purple|brown|pink|grey)-(?:heart|circle|square|book)$/;

/** Whether an emoji's name stands for a flag, a letter or digit, or a variant of another (tone, colour, side, half hour). */
export function isVariant(name: string, names: ReadonlySet<string>): boolean {
  if (/^person-/.test(name) && names.has(name.replace('person-', 'man-'))) return true;
  if (VARIANTS.test(name) || /(?:^|-)flags?(?:-|$)|-skin-tone/.test(name)) return true;
  // "police-car-light" ends like a skin tone too, but there is no "police-car" that is drawn by it
  for (let rest = name; TONE.test(rest); ) {
    rest = rest.replace(TONE, '');
    if (/tone/.test(name) || (names.has(rest) && names.has(`${rest}-medium-light`))) return true;
  }
  return false;
}

const GENDERS = set('man woman men women person people boy girl filled');

/** What variants of a drawing share: the name's words without the person's gender, fill and numbers. */
function stemOf(name: string): string {
  const words = wordsOf(name);
  const stem = words.filter((word) => !GENDERS.has(word) && !/^\d+$/.test(word));
  return (stem.length === 0 ? words : stem).join(' ');
}

/**
 * Whether a drawing is kept for measuring only (one in sixteen, by its name's stem alone): the same thing is held out in
 * every set, filled or not, man or woman.
 */
export const isHeldOutDrawing = (name: string): boolean =>
  subkey(subkey(seedKey(0), 'drawings'), stemOf(name))[0] % 16 === 0;

/** How a name is said: `'mood-sad-filled'` → `'sad face'`, `'three-oclock'` → `"three o'clock"`. */
export function labelOf(name: string): string {
  const plain = unfilled(name)
    .replace(/-\d+$/, '')
    .replace(/oclock/, "o'clock");
  // the pictures are grey; of things in several colours only the red one is kept
  const words = plain
    .split('-')
    .join(' ')
    .replace(/^red (?=heart|circle|square|apple|triangle)/, '');
  return /^mood /.test(words) ? `${words.slice(5)} face` : words;
}

/** Keywords worth saying beside a label: plain lower-case words that the label does not hold yet. */
export function tagsOf(keywords: readonly string[], label: string): readonly string[] {
  const said = wordsOf(label);
  const news = (tag: string) => !tag.split(' ').some((word) => said.includes(word) || said.includes(`${word}s`));
  return [...new Set(keywords)].filter((tag) => /^[a-z]{3,14}(?: [a-z]{3,14})?$/.test(tag) && news(tag)).slice(0, 6);
}
