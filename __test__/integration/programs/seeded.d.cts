export declare function fails(n: number, attempt: number): boolean;
export declare function failsAlways(n: number): boolean;
