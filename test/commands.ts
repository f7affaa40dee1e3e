/** What checks outside the repository import by this name: the tiny base and the commands run in-process. */
export * from './support/commands.ts';
