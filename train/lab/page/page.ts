/** What a page of the lab is. */
import type { Machine, Opened } from '../machine/machine.ts';
import type { Remote } from '../machine/protocol.ts';
import type { Route } from './route.ts';

/** What pages have in common. */
export interface Lab {
  /** the worker's table */
  readonly machine: Remote<Machine>;
  /** all of them */
  readonly pages: readonly Page[];
  /** the backend that runs */
  readonly opened: () => Opened;
  /** ends the worker with whatever it computes, and starts another */
  readonly restart: () => Promise<void>;
  /** hears what calls tell on their way, until the next page */
  readonly hear: (listener: (news: unknown) => void) => void;
  /** is called when the page is left, or drawn anew */
  readonly leaving: (work: () => void) => void;
}
/** A page. */
export interface Page {
  readonly id: string;
  readonly title: string;
  /** one sentence, for the list of pages */
  readonly about: string;
  /** Draws it into an element. Called again when the place or the backend changed. @throws Error with a line for the reader */
  show(into: HTMLElement, route: Route, lab: Lab): Promise<void>;
}
