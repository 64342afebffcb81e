/** What deploy/docker/Dockerfile says of how the image starts, to start the same without an engine. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DockerfileParser } from 'dockerfile-ast';
import { root } from './paths.mjs';

/** Variables, folder and command of the last stage. */
export function imageStart() {
  const instructions = DockerfileParser.parse(readFileSync(join(root, 'deploy/docker/Dockerfile'), 'utf8')).getInstructions();
  const from = instructions.map((instruction) => instruction.getKeyword()).lastIndexOf('FROM');
  const stage = instructions.slice(from);
  const said = (keyword) => stage.filter((instruction) => instruction.getKeyword() === keyword).map((found) => found.getArgumentsContent());
  const env = said('ENV').flatMap((line) => line.split(/\s+/).map((pair) => pair.split('=')));
  return { env: Object.fromEntries(env), folder: said('WORKDIR').at(-1), command: JSON.parse(said('CMD').at(-1)) };
}
