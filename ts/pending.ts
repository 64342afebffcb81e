/**
 * The promises of publishes on their way, found by token. Tokens are consecutive, so they are kept in blocks of a
 * thousand: cheaper than a Map entry for each, and memory goes when a block is empty.
 */
type Resolve = (id: string) => void;
type Reject = (error: unknown) => void;

const BLOCK_BITS = 10;
const BLOCK_SIZE = 1 << BLOCK_BITS;
const BLOCK_MASK = BLOCK_SIZE - 1;

interface Block {
  readonly index: number;
  readonly resolve: Array<Resolve | undefined>;
  readonly reject: Array<Reject | undefined>;
  left: number;
  done: Map<number, () => void> | undefined;
}

let lastResolve: Resolve;
let lastReject: Reject;
/** One executor for all promises, so that none has to be made for each. */
function grab(resolve: Resolve, reject: Reject): void {
  lastResolve = resolve;
  lastReject = reject;
}

/** Promises by token. */
export class PendingTable {
  readonly #blocks = new Map<number, Block>();
  /** The one looked up last, which most often is the next one too. */
  #last: Block | undefined;
  #newest: Block | undefined;
  #size = 0;

  /** How many are waiting. */
  get size(): number {
    return this.#size;
  }

  /** A new promise for `token`. */
  add(token: number): Promise<string> {
    const promise = new Promise<string>(grab);
    const block = this.#find(token) ?? this.#make(token >>> BLOCK_BITS);
    const slot = token & BLOCK_MASK;
    block.resolve[slot] = lastResolve;
    block.reject[slot] = lastReject;
    block.left++;
    this.#size++;
    return promise;
  }

  /** Whether `token` still waits. */
  has(token: number): boolean {
    return this.#find(token)?.resolve[token & BLOCK_MASK] !== undefined;
  }

  /** Calls `run` when `token` is resolved or rejected. */
  whenDone(token: number, run: () => void): void {
    const block = this.#find(token);
    if (block !== undefined) (block.done ??= new Map()).set(token, run);
  }

  /** Resolves `token`; nothing happens if it does not wait. */
  resolve(token: number, id: string): void {
    const block = this.#find(token);
    const resolve = block?.resolve[token & BLOCK_MASK];
    if (block === undefined || resolve === undefined) return;
    this.#drop(block, token);
    resolve(id);
  }

  /** Rejects `token`; nothing happens if it does not wait. */
  reject(token: number, error: unknown): void {
    const block = this.#find(token);
    const reject = block?.reject[token & BLOCK_MASK];
    if (block === undefined || reject === undefined) return;
    this.#drop(block, token);
    reject(error);
  }

  /** Rejects all. */
  rejectAll(error: unknown): void {
    for (const block of [...this.#blocks.values()]) {
      for (let slot = 0; slot < BLOCK_SIZE; slot++) {
        if (block.reject[slot] !== undefined) this.reject(((block.index << BLOCK_BITS) | slot) >>> 0, error);
      }
    }
  }

  #find(token: number): Block | undefined {
    const index = token >>> BLOCK_BITS;
    if (this.#last?.index === index) return this.#last;
    const block = this.#blocks.get(index);
    if (block !== undefined) this.#last = block;
    return block;
  }

  #make(index: number): Block {
    const block: Block = {
      index,
      resolve: new Array<Resolve | undefined>(BLOCK_SIZE).fill(undefined),
      reject: new Array<Reject | undefined>(BLOCK_SIZE).fill(undefined),
      left: 0,
      done: undefined,
    };
    const before = this.#newest;
    this.#newest = block;
    this.#last = block;
    this.#blocks.set(index, block);
    if (before?.left === 0) this.#forget(before);
    return block;
  }

  #drop(block: Block, token: number): void {
    const slot = token & BLOCK_MASK;
    block.resolve[slot] = undefined;
    block.reject[slot] = undefined;
    this.#size--;
    const done = block.done?.get(token);
    if (done !== undefined) {
      block.done?.delete(token);
      done();
    }
    // The newest block stays: tokens to come fall into it, and a program that awaits each publish would remake it.
    if (--block.left === 0 && block !== this.#newest) this.#forget(block);
  }

  #forget(block: Block): void {
    this.#blocks.delete(block.index);
    if (this.#last === block) this.#last = this.#newest;
  }
}
