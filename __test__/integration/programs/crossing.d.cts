export interface Planned {
  target: string | string[];
  type: string;
  data: { from: string; n: number };
  contracts?: string[];
}
export const CONTRACTS: number;
export const PROCESSES: number;
export const PROJECTS: number;
export const ids: string[];
export function projectsOf(process: number): string[];
export function configOf(id: string): any;
export function contractsOf(id: string): any[];
export function messagesOf(id: string): Planned[];
export function targetsOf(id: string, message: Planned): string[];
