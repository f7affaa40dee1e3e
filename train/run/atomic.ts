/**
 * Atomic writing inside run folders. Reports and images of patients may be in there, so files are 0600 and folders
 * 0700; the mechanism itself lives with the file formats, which need it too.
 */
import path from 'node:path';
import {
  type AtomicOptions,
  makeFolders,
  PRIVATE_FILE,
  PRIVATE_FOLDER,
  type Sink,
  sweepTemporary,
  syncFolder,
  writeFileAtomic,
} from '../../models/io/atomic.ts';
import { asFileError } from '../../models/io/error.ts';

export { PRIVATE_FILE, PRIVATE_FOLDER, sweepTemporary, syncFolder };

/**
 * Writes a file of a run folder: temp file, fsync, rename, fsync folder.
 * @throws FileError with path and cause; an older file stays as it was
 */
export async function writeRunFile(
  file: string,
  content: string | Uint8Array | ((write: Sink) => Promise<void>),
  options: Omit<AtomicOptions, 'public'> = {},
): Promise<void> {
  await writeFileAtomic(file, content, options);
}

/**
 * Makes a private folder (and its parents) unless it is there; new names are safe.
 * @returns the folders made, the highest first
 * @throws FileError with path and cause
 */
export async function makeRunFolder(folder: string): Promise<readonly string[]> {
  try {
    const made = await makeFolders(folder);
    for (const one of [...made].reverse()) await syncFolder(path.dirname(one));
    return made;
  } catch (error) {
    throw asFileError(error, folder);
  }
}
