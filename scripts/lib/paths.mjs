/** Where things are in this repository. */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root, where package.json stands. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
