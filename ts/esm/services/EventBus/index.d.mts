// Types of the ES module entry. Copied to dist/ as it is.
export * from '../../../index.js';
