/** The hot paths whose instructions are counted: their names for benches/instructions.rs, and what is counted. */
export const paths = {
  envelope: 'metadata packed and read',
  publish: 'from the text of a publish to the memory store and back',
  consume: 'from the memory store through a handler to its settlement',
  batch: 'an event of a batch written for Redis, and of the replies to it',
  reply: "an entry of Redis' reply to XREADGROUP",
};
