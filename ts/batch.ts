/** Deliveries that one call of a batch handler got together. */
import type { Asker } from './asker';
import type { Head } from './payload';
import type { FailureKind } from './settlements';

/** What is said of a delivery that failed: arguments of Settlements.failed behind the token. */
export type BatchFailure = [kind: FailureKind, message: string, options?: object | undefined];

/** One delivery of a batch as it crossed. */
export interface BatchItem {
  token: number;
  attempt: number;
  redelivered: boolean;
  asks: boolean;
  ms: number;
  seq: number;
  type: string;
  meta: Head | string;
  data: string;
}

/** The deliveries of a batch, in the order of the handler's events. */
export class Batch {
  /** Those that `context.fail()` named. */
  readonly failures = new Map<number, BatchFailure>();

  constructor(
    readonly tokens: readonly number[],
    /** Who waits for what the handler returns for each of them. */
    readonly askers: ReadonlyArray<Asker | undefined>,
  ) {}
}
