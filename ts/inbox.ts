/** What is posted to the agents in one bus, and who they are. */
import type { BusCore } from './core';
import { closed, internal, invalidArgument, type OSSAError } from './errors';
import type { Post } from './native';

/** An agent, as its inbox sees it. */
export interface Resident {
  readonly id: string;
  /** It is told something; what it throws is reported. */
  receive(post: Post): void;
  /** The bus is being closed: what is published now is the last that goes out. */
  evict(): void;
}

/** One a bus; the engine reads it once there is an agent. */
export class Inbox {
  readonly #core: BusCore;
  readonly #residents = new Map<string, Resident>();
  #name: Promise<string> | undefined;
  #closed = false;

  constructor(core: BusCore) {
    this.#core = core;
  }

  /** Its name, by which others post to it. It is read from now on. */
  open(): Promise<string> {
    return (this.#name ??= this.#core.call<{ inbox: string }>('agents.listen', {}).then(
      ({ inbox }) => inbox,
      (error: unknown) => {
        this.#name = undefined;
        throw error;
      },
    ));
  }

  /** @throws OSSAError ERR_INVALID_ARGUMENT when there is one of that id; ERR_CLOSED */
  add(resident: Resident): void {
    if (this.#closed) throw closed(`Agent '${resident.id}' was not made: its bus was closed`);
    if (this.#residents.has(resident.id)) {
      throw invalidArgument('agentId', `an agent '${resident.id}' is on this bus already`);
    }
    this.#residents.set(resident.id, resident);
  }

  /** It is told nothing more. */
  remove(resident: Resident): void {
    if (this.#residents.get(resident.id) === resident) this.#residents.delete(resident.id);
  }

  /** What {@link Message.Posted} told. What is for agents that have gone is nobody's: whoever posted hears that they went. */
  receive(text: string): void {
    for (const post of JSON.parse(text) as Post[]) {
      try {
        this.#residents.get(post.agent)?.receive(post);
      } catch (error) {
        this.#report(internal(`What agent '${post.agent}' was told could not be handled`, error));
      }
    }
  }

  /** The bus is being closed. */
  close(): void {
    this.#closed = true;
    for (const resident of [...this.#residents.values()]) resident.evict();
    this.#residents.clear();
  }

  #report(error: OSSAError): void {
    this.#core.lifecycle.error(error);
  }
}
