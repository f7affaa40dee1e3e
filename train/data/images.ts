/** What checks outside the repository import by this name. */
export * from './pictures/images.ts';
