/** Waiting for conditions, never for a time. */

/** Waits until `condition` holds and answers what it answered; fails with its text, and what `show` says, when it never does. */
export async function until<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 20_000, everyMs = 10, show }: { timeoutMs?: number; everyMs?: number; show?: () => unknown } = {},
): Promise<T> {
  for (const end = Date.now() + timeoutMs; ; ) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) {
      const seen = show === undefined ? '' : `; seen: ${JSON.stringify(show())}`;
      throw new Error(`did not come true within ${timeoutMs} ms: ${condition}${seen}`);
    }
    await pause(everyMs);
  }
}

/** A pause, for a handler that is to take time or between two looks; nothing may rely on what happens meanwhile. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Fails when `promise` is not settled in time, so that a hang is told by its name. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A promise to be settled from outside. */
export interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}

/** What holds up a handler until the test lets it go on. */
export function gate(): Gate {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
