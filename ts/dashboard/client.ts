/** Asking the HTTP API of the bus that this page comes from. */

/** An answer that is no success, or none at all (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  /** The part of the bus is switched off, or not there. */
  get isOff(): boolean {
    return this.code === 'ERR_DISABLED';
  }

  /** Nothing came back, or a proxy's word that nothing is behind it. */
  get isUnreachable(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 504;
  }
}

const TIMEOUT_MS = 15_000;

/** The answer to a GET; parameters without a value are left out. */
export function get<T>(path: string, parameters: Readonly<Record<string, string | undefined>> = {}, signal?: AbortSignal): Promise<T> {
  const kept = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '');
  return ask<T>(kept.length === 0 ? path : `${path}?${new URLSearchParams(kept)}`, signal === undefined ? {} : { signal });
}

/** The answer to a POST of JSON. */
export function post<T>(path: string, body: unknown): Promise<T> {
  return ask<T>(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
}

async function ask<T>(path: string, { signal, ...options }: RequestInit): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { ...options, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'ERR_UNREACHABLE', timeout.aborted ? 'The bus did not answer in time' : 'The bus cannot be reached');
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new ApiError(response.ok ? 0 : response.status, 'ERR_ANSWER', `The answer (status ${response.status}) is not JSON`);
  }
  if (response.ok) return body as T;
  const { code, message } = ((body as { error?: { code?: unknown; message?: unknown } } | null)?.error ?? {}) as Record<string, unknown>;
  throw new ApiError(response.status, String(code ?? 'ERR_ANSWER'), String(message ?? `The answer has status ${response.status}`));
}
