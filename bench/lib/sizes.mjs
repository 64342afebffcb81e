/** Sizes of the data of events whose cost is looked at by size. */

/** Bytes of JSON, each ten times the one before. */
export const sizes = [100, 1_000, 10_000, 100_000];

/** What the side of a size is called. */
export const sideOf = (bytes) => `${bytes.toLocaleString('en-US')} bytes`;
