// What the pages use of htm-preact.js, in types. Ours: it comes without any.

/** What a template makes, and a component returns. */
export type Drawn = any;

export function h(...given: any[]): Drawn;
export function render(what: Drawn, where: Element): void;

/** What begins as null may become anything. */
export function useState(first: null): [any, (next: any) => void];
export function useState<T>(first: T | (() => T)): [T, (next: T | ((old: T) => T)) => void];
export function useRef(first: null): { current: any };
export function useRef<T>(first: T): { current: T };

/** `effect` may return what ends it. */
export function useEffect(effect: () => void | (() => void), on?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), on?: readonly unknown[]): void;
export function useMemo<T>(made: () => T, on: readonly unknown[]): T;
export function useCallback<T extends (...given: any[]) => unknown>(called: T, on: readonly unknown[]): T;
export function useErrorBoundary(told?: (error: any) => void): [any, () => void];
