// What newer browsers know of JSON, and TypeScript does not yet; site/json.js looks whether it is there.

interface JSON {
  rawJSON?: (text: string) => unknown;
  isRawJSON?: (value: unknown) => boolean;
  parse(text: string, reviver: (name: string, value: any, context: { source: string }) => unknown): any;
}
