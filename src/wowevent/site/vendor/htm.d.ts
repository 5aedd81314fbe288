// What the pages use of htm.js, in types. Ours.

/** Bound to what makes an element, it is a tag of templates. */
declare const htm: { bind(element: (...given: any[]) => any): (parts: TemplateStringsArray, ...values: unknown[]) => any };
export default htm;
