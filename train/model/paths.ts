/** Places inside the project, whatever folder a command is started in. */
import path from 'node:path';

/** The base that ships with the project, by the name that settings hold. */
export const SMALL_BASE_NAME = 'models/small-base';
/** Where it lies. */
export const SMALL_BASE = path.resolve(import.meta.dirname, '../..', SMALL_BASE_NAME);

/** The place of a base as it is named: the shipped one is found from any working folder. */
export const placeOfBase = (name: string): string => (name === SMALL_BASE_NAME ? SMALL_BASE : name);
