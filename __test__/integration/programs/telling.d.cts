export type Told = { told: string; at: number; failed?: undefined } | { failed: string; told?: undefined };
export function listen(registry: object, say: (line: Told) => void): void;
