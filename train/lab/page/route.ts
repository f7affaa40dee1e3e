/** Where the reader is, as the part of the address behind `#`: `#/op/dot?seed=2`. A static host needs no rules for it. */

/** A place: the page, what of it, and its state. */
export interface Route {
  /** `op` */
  readonly page: string;
  /** `dot` */
  readonly part: string;
  readonly state: URLSearchParams;
}

export function routeOf(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [page = '', ...rest] = path.split('/').map(decodeURIComponent);
  return { page, part: rest.join('/'), state: new URLSearchParams(query) };
}
/** The address of a place. */
export function addressOf(page: string, part = '', state: Readonly<Record<string, string | undefined>> = {}): string {
  const query = Object.entries(state).flatMap(([k, v]) =>
    v === undefined || v === '' ? [] : [`${encodeURIComponent(k)}=${encodeURIComponent(v).replaceAll('%2C', ',')}`],
  );
  return `#/${page}${part ? `/${encodeURIComponent(part)}` : ''}${query.length > 0 ? `?${query.join('&')}` : ''}`;
}
/** Writes the state into the address without going anywhere, so that a link to it can be copied. */
export const remember = (page: string, part: string, state: Readonly<Record<string, string | undefined>>): void =>
  history.replaceState(null, '', addressOf(page, part, state));
