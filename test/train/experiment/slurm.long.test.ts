/** An experiment as an array job of a real SLURM: two nodes on this machine, one taken away in the middle. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { experiment } from '../../../train/experiment.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { there } from '../../support/there.ts';

vi.setConfig({ testTimeout: 1_200_000, hookTimeout: 120_000 });

const at = (name: string) => join(scratch, name);
const isRoot = process.getuid?.() === 0;
const programs = ['slurmctld', 'slurmd', 'sbatch', 'squeue', 'scontrol'];
const hasSlurm = there(
  'SLURM',
  programs.every((name) => spawnSync(name, ['-V']).error === undefined) && isRoot,
  'install slurm-wlm and run as root',
);
const runs = describe.runIf(hasSlurm);

/** a controller and two nodes under names of their own, without authentication */
function configuration(): string {
  const host = hostname().split('.')[0]!;
  return `
ClusterName=test
SlurmctldHost=${host}(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=${at('state')}
SlurmdSpoolDir=${at('spool-%n')}
SlurmctldPidFile=${at('controller.pid')}
SlurmdPidFile=${at('%n.pid')}
SlurmctldLogFile=${at('controller.log')}
SlurmdLogFile=${at('%n.log')}
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
NodeName=one,two NodeHostname=${host} NodeAddr=127.0.0.1 Port=27001,27002 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
`;
}
const slurm = (program: string, ...args: readonly string[]) => execFileSync(program, args, { encoding: 'utf8' });
const until = async (what: string, is: () => boolean, seconds: number) => {
  const end = Date.now() + seconds * 1000;
  while (!is()) {
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s\n${slurm('squeue')}${slurm('sinfo')}`);
    await new Promise((done) => setTimeout(done, 500));
  }
};
const configured = process.env.SLURM_CONF;

runs('an array of six runs', () => {
  beforeAll(async () => {
    await writeCalmBase(at('base'));
    for (const folder of ['state', 'spool-one', 'spool-two']) mkdirSync(at(folder), { recursive: true });
    writeFileSync(at('slurm.conf'), configuration());
    process.env.SLURM_CONF = at('slurm.conf');
    slurm('slurmctld', '-f', at('slurm.conf'));
    await until('the controller', () => spawnSync('sinfo').status === 0, 60);
    for (const node of ['one', 'two']) slurm('slurmd', '-f', at('slurm.conf'), '-N', node);
    await until('two nodes', () => /\bidle\b/.test(slurm('sinfo', '-h', '-o', '%T %D')), 60);
  });
  afterAll(() => {
    for (const name of ['one.pid', 'two.pid', 'controller.pid'])
      if (existsSync(at(name))) process.kill(Number(readFileSync(at(name), 'utf8')), 'SIGTERM');
    if (configured === undefined) delete process.env.SLURM_CONF;
    else process.env.SLURM_CONF = configured;
  });

  test('ends with the tables of runs made here, though a node goes down under one of them', async () => {
    const config = at('six.yaml');
    writeFileSync(
      config,
      `
name: six
settings: { base: ${JSON.stringify(at('base'))}, resolution: 32, pairs: 20, batch: 2, steps: 6, save-every: 1, backend: wasm, threads: 1, samples: 0, obedience: 0, validation-pairs: 2, test-every: 2 }
methods:
  - { name: LoRA, settings: { method: lora, rank: 2 } }
  - { name: SeLoRA, settings: { lambda: 1 } }
  - { name: gain, settings: { criterion: gain } }
seeds: [1, 2]
`,
    );
    const command = (...args: readonly string[]) => runCommand(experiment, ['--config', config, ...args]);
    const submitted = await command('--out', at('cluster'), '--launcher', 'slurm', '--submit');
    expect([submitted.code, submitted.stderr]).toEqual([0, '']);
    expect(submitted.stdout).toContain('Submitted batch job');
    const second = join(at('cluster'), 'runs', 'selora-seed-1', 'metrics.jsonl');
    await until('the second run', () => existsSync(second) && readFileSync(second, 'utf8').includes('\n'), 120);
    slurm('scontrol', 'update', 'NodeName=two', 'State=DOWN', 'Reason=test');
    await until('the array', () => slurm('squeue', '-h').trim() === '', 900);
    const tables = async (out: string) => {
      const { code } = await command('--out', out, '--report');
      expect(code).toBe(0);
      return readFileSync(join(out, 'comparison.csv'), 'utf8')
        .split('\n')
        .filter((line) => !/^(seconds|memory|memory-mean),/.test(line));
    };
    const here = await command('--out', at('here'));
    expect([here.code, here.stderr]).toEqual([0, '']);
    expect(await tables(at('cluster'))).toEqual(await tables(at('here')));
  });
});
