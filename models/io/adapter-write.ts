/**
 * Writes adapters in the forms that other programs load right with mixed ranks (README.md: which program, which
 * form). In all of them the scale is multiplied into B and alpha equals rank: diffusers and kohya's scripts lose or swap
 * per-module alphas. Where no alpha is given, diffusers 0.25 to 0.39 takes the first module's rank for all; from 0.34 on
 * it reads ranks and alphas from the header's `lora_adapter_metadata` first.
 */
import path from 'node:path';
import { toKohya } from '../names.ts';
import { type AdapterFile, type AdapterModule, transpose } from './adapter-file.ts';
import { type AtomicOptions, createFolderAtomic, makeFolders, writeFileAtomic } from './atomic.ts';
import type { Json } from './json.ts';
import type { TensorOut } from './safetensors-write.ts';
import { writeSafetensors } from './safetensors-write.ts';

/** Whose names and layout a written adapter has. */
export type AdapterForm = 'diffusers' | 'kohya' | 'peft' | 'peft-flat';

/**
 * Writes `adapter` to `target`: one safetensors file (`diffusers`: `lora_A`/`lora_B` names throughout; `kohya`: without
 * alpha; both with diffusers' ranks in the header), or for `peft` a folder, with one sub-folder per network if there are two;
 * in `peft-flat` the text encoder's modules stand without the level `text_model`, which transformers 5.6 took away.
 * Read back, B is scale·B rounded to float32 and the scale 1: the same ΔW, and the same bytes when written again.
 * @throws FileError when the disk refuses
 * @example await writeAdapter('run/adapter.safetensors', adapter)
 */
export async function writeAdapter(
  target: string,
  adapter: AdapterFile,
  form: AdapterForm = 'diffusers',
  options: AtomicOptions = {},
): Promise<void> {
  if (isFolderForm(form)) return writePeft(target, adapter, form === 'peft-flat', options);
  const { tensors, metadata } = adapterContent(adapter, form);
  await writeSafetensors(target, tensors, metadata, options);
}

/** What stands in such a file. @example streamSafetensors(tensors, metadata, write) // its bytes */
export function adapterContent(
  adapter: AdapterFile,
  form: AdapterForm = 'diffusers',
): { readonly tensors: ReadonlyMap<string, TensorOut>; readonly metadata: ReadonlyMap<string, string> } {
  const tensors = new Map<string, TensorOut>();
  for (const [modulePath, module] of adapter.modules) {
    const [down, up] = form === 'kohya' ? ['lora_down', 'lora_up'] : ['lora_A', 'lora_B'];
    const prefix = form === 'kohya' ? toKohya(modulePath) : modulePath;
    addHalves(tensors, `${prefix}.${down}.weight`, `${prefix}.${up}.weight`, module);
  }
  const own = new Map([
    form === 'kohya' ? ['ss_network_module', 'networks.lora'] : ['format', 'pt'],
    [DIFFUSERS_KEY, diffusersMetadata(adapter, form)],
  ]);
  return { tensors, metadata: metadataWith(adapter, own) };
}

/** Whether a form is a folder. */
export const isFolderForm = (form: AdapterForm): boolean => form === 'peft' || form === 'peft-flat';

const DIFFUSERS_KEY = 'lora_adapter_metadata';

/** Keys that say how to read a file: they must fit the form written, not the one the adapter came from. */
const FORM_KEYS = ['format', DIFFUSERS_KEY, 'ss_network_module', 'ss_network_dim', 'ss_network_alpha'];

function metadataWith(adapter: AdapterFile, own: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...[...adapter.metadata].filter(([key]) => !FORM_KEYS.includes(key)), ...own]);
}

function addHalves(tensors: Map<string, TensorOut>, down: string, up: string, module: AdapterModule): void {
  const { A, B, rank, dIn, dOut, scale, kernel } = module;
  const inner = kernel === undefined ? [dIn] : [dIn / (kernel[0] * kernel[1]), ...kernel];
  tensors.set(down, { dtype: 'F32', shape: [rank, ...inner], data: transpose(A, dIn, rank) });
  const scaled = scale === 1 ? B : B.map((b) => scale * b);
  const outer = kernel === undefined ? [dOut, rank] : [dOut, rank, 1, 1];
  tensors.set(up, { dtype: 'F32', shape: outer, data: transpose(scaled, rank, dOut) });
}

/** Modules by network, names without it. */
function byNetwork(adapter: AdapterFile): ReadonlyMap<string, ReadonlyMap<string, AdapterModule>> {
  const networks = new Map<string, Map<string, AdapterModule>>();
  for (const [modulePath, module] of adapter.modules) {
    const dot = modulePath.indexOf('.');
    const part = modulePath.slice(0, dot);
    networks.set(part, (networks.get(part) ?? new Map()).set(modulePath.slice(dot + 1), module));
  }
  return networks;
}

/**
 * What diffusers builds its `LoraConfig` from: one JSON object, keys with the network in front. Names end where all
 * versions of transformers agree: `text_model.` is a level of CLIP's modules in some and none in others. In kohya's form
 * the patterns fit its flat names, too.
 */
function diffusersMetadata(adapter: AdapterFile, form: AdapterForm): string {
  const entries = [...byNetwork(adapter)].flatMap(([part, modules]) => {
    const ends = new Map([...modules].map(([name, module]) => [name.replace(/^text_model\./, ''), module]));
    const ranks = ranksOf(ends, form === 'kohya' && part === 'text_encoder' ? '.*' : '');
    return Object.entries(ranks).map(([key, value]) => [`${part}.${key}`, value] as const);
  });
  return JSON.stringify(Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1))), null, 2);
}

/** PEFT loads one network from one folder. */
async function writePeft(folder: string, adapter: AdapterFile, flat: boolean, options: AtomicOptions): Promise<void> {
  const networks = byNetwork(adapter);
  await createFolderAtomic(
    folder,
    async (temporary) => {
      for (const [part, named] of networks) {
        const modules = flat
          ? new Map([...named].map(([name, module]) => [name.replace(/^text_model\./, ''), module]))
          : named;
        const target = networks.size === 1 ? temporary : path.join(temporary, part);
        await makeFolders(target, options);
        const tensors = new Map<string, TensorOut>();
        for (const [modulePath, module] of modules) {
          const prefix = `base_model.model.${modulePath}`;
          addHalves(tensors, `${prefix}.lora_A.weight`, `${prefix}.lora_B.weight`, module);
        }
        const metadata = metadataWith(adapter, new Map([['format', 'pt']]));
        await writeSafetensors(path.join(target, 'adapter_model.safetensors'), tensors, metadata, options);
        const config = `${JSON.stringify(peftConfig(modules), null, 2)}\n`;
        await writeFileAtomic(path.join(target, 'adapter_config.json'), config, options);
      }
    },
    options,
  );
}

/** Ranks as a default and exceptions. Full paths as keys: they match as patterns and, in older PEFT, as plain names. */
function ranksOf(modules: ReadonlyMap<string, AdapterModule>, before = '') {
  const counts = new Map<number, number>();
  for (const { rank } of modules.values()) counts.set(rank, (counts.get(rank) ?? 0) + 1);
  const usual = [...counts].sort(([a, m], [b, n]) => n - m || a - b)[0]?.[0] ?? 1;
  const exceptions = Object.fromEntries(
    [...modules]
      .filter(([, { rank }]) => rank !== usual)
      .map(([name, { rank }]) => [before + name, rank] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  return {
    r: usual,
    lora_alpha: usual,
    rank_pattern: exceptions,
    alpha_pattern: exceptions,
    target_modules: [...modules.keys()].sort(),
  };
}

const peftConfig = (modules: ReadonlyMap<string, AdapterModule>): Json => {
  const { r, lora_alpha, rank_pattern, alpha_pattern, target_modules } = ranksOf(modules);
  return {
    peft_type: 'LORA',
    base_model_name_or_path: null,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha,
    lora_dropout: 0,
    modules_to_save: null,
    r,
    rank_pattern,
    alpha_pattern,
    target_modules,
    use_dora: false,
    use_rslora: false,
  };
};
