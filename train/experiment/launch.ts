/** Starting the runs of an experiment: here, or by a cluster's own scheduler as an array of them. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { argumentsOf } from '../cli/flags.ts';
import type { Experiment, Run } from './config.ts';
import { slugOf } from './config.ts';
import type { State } from './state.ts';

/** Runs `npm run train` with these arguments, its words into a log; resolves with the exit code. */
export type Start = (args: readonly string[], log: string, signal: AbortSignal) => Promise<number>;

/** What `train` is started with for a run as it stands; `threads` where the file says nothing of them. */
export const trainArguments = ({ run, state }: Pick<State, 'run' | 'state'>, threads?: number): readonly string[] => [
  ...(state === 'not begun'
    ? [...argumentsOf(run.arm.given), '--seed', String(run.seed), '--out', run.folder]
    : ['--resume', run.folder]),
  ...(threads === undefined || run.arm.given.threads !== undefined ? [] : ['--threads', String(threads)]),
];
/** Where a run's words go. */
export const logOf = (run: Run): string =>
  path.join(path.dirname(path.dirname(run.folder)), 'logs', `${path.basename(run.folder)}.log`);

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));
/** A process of its own for each run: what one leaves in memory is no part of the next. */
export const startProcess: Start = async (args, log, signal) => {
  await mkdir(path.dirname(log), { recursive: true, mode: 0o700 });
  const to = openSync(log, 'a', 0o600);
  try {
    return await new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [here('../cli/start.mjs'), here('../train.ts'), ...args], {
        stdio: ['ignore', to, to],
      });
      const stop = () => child.kill('SIGINT');
      signal.addEventListener('abort', stop, { once: true });
      child.once('error', reject);
      child.once('exit', (code) => {
        signal.removeEventListener('abort', stop);
        resolve(code ?? 1);
      });
    });
  } finally {
    closeSync(to);
  }
};

const shell = (text: string): string => (/^[\w./:=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** A SLURM array job: one task per run. Tasks share the folder, which must lie on a disk that all nodes see. */
export const slurmScript = (e: Experiment, config: string, runs: readonly Run[], folder: string): string =>
  `#!/bin/bash
# One task per run of this experiment; a task that is started again goes on where its run stopped.
#SBATCH --job-name=${slugOf(e.name)}
#SBATCH --array=0-${runs.length - 1}
#SBATCH --output=${path.join(path.resolve(folder), 'logs', 'slurm-%A-%a.log')}
#SBATCH --cpus-per-task=2
#SBATCH --requeue
set -euo pipefail
cd ${shell(process.cwd())}
exec npm run --silent experiment -- --config ${shell(path.resolve(config))} --out ${shell(path.resolve(folder))} --run "$SLURM_ARRAY_TASK_ID"
`;

/** A Kubernetes indexed Job: one pod per run. Image and volume are the person's; the folder lies on the volume. */
export const kubernetesJob = (e: Experiment, config: string, runs: readonly Run[], folder: string): string =>
  `# One pod per run of this experiment; a pod that is started again goes on where its run stopped.
# Fill in the image (this project with its packages) and the claim of a volume that all nodes see.
apiVersion: batch/v1
kind: Job
metadata:
  name: ${slugOf(e.name)}
spec:
  completionMode: Indexed
  completions: ${runs.length}
  parallelism: ${runs.length}
  backoffLimitPerIndex: 4
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: run
          image: FILL-IN
          command: [npm, run, --silent, experiment, --, --config, ${JSON.stringify(config)}, --out, ${JSON.stringify(folder)}, --run, $(JOB_COMPLETION_INDEX)]
          resources:
            requests: { cpu: "2", memory: 4Gi }
          volumeMounts:
            - { name: shared, mountPath: /shared }
      volumes:
        - name: shared
          persistentVolumeClaim: { claimName: FILL-IN }
`;
