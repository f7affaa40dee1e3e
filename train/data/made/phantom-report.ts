/**
 * What a chest-film phantom shows, and the report that says it. The report determines the findings completely; only
 * the wording varies. Sides are the patient's: the right lung is at the viewer's left.
 */
import type { Random } from '../../../core/index.ts';

export type Side = 'right' | 'left';
export type Zone = 'upper' | 'middle' | 'lower';
export type OpacitySize = 'small' | 'large';
export type Density = 'faint' | 'dense';
export type EffusionSize = 'small' | 'moderate' | 'large';

export type Opacity = {
  readonly kind: 'opacity';
  readonly side: Side;
  readonly zone: Zone;
  readonly size: OpacitySize;
  readonly density: Density;
};
export type Effusion = { readonly kind: 'effusion'; readonly side: Side; readonly size: EffusionSize };
export type Pneumothorax = { readonly kind: 'pneumothorax'; readonly side: Side };
export type Cardiomegaly = { readonly kind: 'cardiomegaly' };
export type LungFinding = Opacity | Effusion | Pneumothorax;
export type Finding = LungFinding | Cardiomegaly;

export const SIDES = ['right', 'left'] as const;
export const ZONES = ['upper', 'middle', 'lower'] as const;
const KINDS = ['opacity', 'effusion', 'pneumothorax', 'cardiomegaly'] as const;
const KIND_WEIGHTS = [0.44, 0.24, 0.2, 0.12];

function drawFinding(random: Random, kind: Finding['kind'], side: Side): Finding {
  switch (kind) {
    case 'opacity':
      return {
        kind,
        side,
        zone: random.choice(ZONES),
        size: random.choice(['small', 'large']),
        density: random.choice(['faint', 'dense']),
      };
    case 'effusion':
      return { kind, side, size: random.choice(['small', 'moderate', 'large']) };
    case 'pneumothorax':
      return { kind, side };
    case 'cardiomegaly':
      return { kind };
  }
}

/** The findings of one phantom: 16% none, 54% one, 30% two of different kind, never two in the same lung. */
export function drawFindings(random: Random): readonly Finding[] {
  const count = random.weighted([0.16, 0.54, 0.3]);
  if (count === 0) return [];
  const first = random.weighted(KIND_WEIGHTS);
  const side = random.choice(SIDES);
  const findings = [drawFinding(random, KINDS[first]!, side)];
  if (count === 1) return findings;
  const second = random.weighted(KIND_WEIGHTS.map((weight, kind) => (kind === first ? 0 : weight)));
  return [...findings, drawFinding(random, KINDS[second]!, side === 'right' ? 'left' : 'right')];
}

/** The finding in one lung, if any. */
export const lungFinding = (findings: readonly Finding[], side: Side): LungFinding | undefined =>
  findings.find((finding): finding is LungFinding => finding.kind !== 'cardiomegaly' && finding.side === side);

function opacityPhrase(random: Random, { side, zone, size, density }: Opacity): string {
  const noun = random.choice(['opacity', 'consolidation', 'infiltrate']);
  const where = zone === 'middle' ? random.choice(['middle', 'mid']) : zone;
  return random.choice([
    `${size} ${density} ${noun} in the ${side} ${where} zone`,
    `${density} ${size} ${side} ${where} zone ${noun}`,
    `there is a ${size} ${density} ${noun} in the ${where} zone of the ${side} lung`,
    `${side} ${where} lung shows a ${size} ${density} ${noun}`,
  ]);
}

function findingPhrase(random: Random, finding: Finding): string {
  switch (finding.kind) {
    case 'opacity':
      return opacityPhrase(random, finding);
    case 'effusion':
      return random.choice([
        `${finding.size} ${finding.side} pleural effusion`,
        `there is a ${finding.size} pleural effusion on the ${finding.side}`,
        `${finding.size} effusion at the ${finding.side} base`,
      ]);
    case 'pneumothorax':
      return random.choice([
        `${finding.side} pneumothorax`,
        `there is a pneumothorax on the ${finding.side}`,
        `${finding.side} sided pneumothorax`,
      ]);
    case 'cardiomegaly':
      return random.choice(['cardiomegaly', 'the heart is enlarged', 'enlarged cardiac silhouette']);
  }
}

const NORMAL = ['normal chest', 'no acute findings', 'the lungs are clear', 'normal chest radiograph', 'clear lungs'];

/** What is said to be absent, and only where it is. */
function negativePhrases(random: Random, findings: readonly Finding[]): readonly string[] {
  const has = (kind: Finding['kind']) => findings.some((finding) => finding.kind === kind);
  const heart = !has('cardiomegaly') && random.chance(0.35);
  const absent = [
    ...(has('effusion') || has('pneumothorax') ? [] : ['no effusion or pneumothorax']),
    ...(has('effusion') ? [] : ['no pleural effusion']),
    ...(has('pneumothorax') ? [] : ['no pneumothorax']),
  ];
  const pleura = absent.length > 0 && random.chance(0.2);
  return [
    ...(heart ? [random.choice(['heart size is normal', 'normal heart size'])] : []),
    ...(pleura ? [random.choice(absent)] : []),
  ];
}

/**
 * A report of the findings in varied words, sentences in any order.
 * @example writeReport(random, [{ kind: 'pneumothorax', side: 'left' }]) // 'Left pneumothorax. Normal heart size.'
 */
export function writeReport(random: Random, findings: readonly Finding[]): string {
  const positive =
    findings.length === 0 ? [random.choice(NORMAL)] : findings.map((finding) => findingPhrase(random, finding));
  return random
    .shuffle([...positive, ...negativePhrases(random, findings)])
    .map((sentence) => `${sentence[0]!.toUpperCase()}${sentence.slice(1)}.`)
    .join(' ');
}
