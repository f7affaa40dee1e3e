/** Places inside the project, whatever folder a command is started in. */
import path from 'node:path';

/** The base that ships with the project. */
export const SMALL_BASE = path.resolve(import.meta.dirname, '../../models/small-base');
