/** What a run was made from: its data and everything it reads of its base. A resume under another origin is refused. */
import type { Base } from '../../models/io/base.ts';
import type { Json } from '../../models/io/json.ts';
import { tokenizerOf } from '../model/model.ts';
import { concealed, refuseChanges } from '../run/canonical.ts';
import type { CheckpointInfo } from '../run/checkpoint.ts';

export type Origin = {
  /** hash of the data */
  readonly data: string;
  /** hash of the base's weight files */
  readonly base: string;
  /** its configurations and tokenizer, texts as hashes: what a change of them was can be told */
  readonly baseFiles: Json;
};

/** Who wrote a file and where it lay: nothing that a run reads. */
const NOT_READ: ReadonlySet<string> = new Set(['_diffusers_version', '_name_or_path', 'transformers_version']);

const withoutNotes = (config: Json): Json =>
  typeof config !== 'object' || config === null || Array.isArray(config)
    ? config
    : Object.fromEntries(Object.entries(config).filter(([key]) => !NOT_READ.has(key)));

/** The origin of a run. Cost: one pass over the weight files, at the first call for a base. */
export async function originOf(data: string, base: Base): Promise<Origin> {
  const { raw } = await tokenizerOf(base);
  const tokenizer = Object.fromEntries([...raw].map(([name, bytes]) => [name, Buffer.from(bytes).toString('latin1')]));
  const configs = Object.entries(base.configFiles).map(([part, config]) => [part, withoutNotes(config)]);
  return {
    data,
    base: await base.hash(),
    baseFiles: concealed({ ...Object.fromEntries(configs), tokenizer }),
  };
}

/**
 * Refuses to go on with other data. Before the base is opened: it needs nothing of it.
 * @throws FileError naming what changed
 */
export const refuseOtherData = (folder: string, saved: CheckpointInfo, data: string): void =>
  refuseChanges(folder, { data: saved.data }, { data });

/**
 * Refuses to go on with another base.
 * @returns a line where the checkpoint knows less of its base than is compared today
 * @throws FileError naming what changed, from what to what
 */
export function refuseOtherBase(
  folder: string,
  saved: CheckpointInfo,
  { base, baseFiles }: Origin,
): string | undefined {
  refuseChanges(folder, { base: saved.base }, { base });
  if (saved.baseFiles === undefined)
    return 'this run was saved by an earlier version: of its base the weights are compared, not the configurations, the scheduler and the tokenizer';
  refuseChanges(folder, { base: saved.baseFiles }, { base: baseFiles });
  return undefined;
}
