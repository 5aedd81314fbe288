// The shell: the way to the pages, who is asked for a token, and what all pages share.

import { Button, Empty, Failure, Field, Icon, Loading, Page, Toasts, html, render, useData, useEffect, useState } from "./kit.js";
import { Questions } from "./ask.js";
import { useErrorBoundary } from "./vendor/htm-preact.js";
import { access, setToken, token } from "./api.js";
import { at, useRoute } from "./route.js";

/** Every page: `module` is its file where that has another name, `one` the file of a single thing on it. */
const PAGES = [
  { name: "overview", title: "Overview" },
  { name: "events", title: "Events", one: "event" },
  { name: "subscriptions", title: "Subscriptions" },
  { name: "letters", title: "Dead letters", one: "letter" },
  { name: "conversations", title: "Conversations", module: "conversation" },
  { name: "replays", title: "Replays" },
  { name: "schemas", title: "Schemas" },
  { name: "agents", title: "Agents" },
  { name: "routers", title: "Routers" },
];
const NEAR = ["overview", "events", "letters", "agents"]; // within reach of a thumb; the others are behind More
const HEALTH_EVERY = 10_000; // milliseconds

function Shell() {
  const route = useRoute();
  const [gate, setGate] = useState({ wanted: access.wanted, turn: 0 });
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const changed = () => setGate((old) => ({ wanted: access.wanted, turn: old.turn + 1 }));
    access.addEventListener("change", changed);
    return () => access.removeEventListener("change", changed);
  }, []);
  useEffect(() => setOpen(false), [route]);
  const page = PAGES.find((each) => each.name === route.page);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <${Bar} page=${page} open=${open} setOpen=${setOpen} />
    <main id="main" tabindex="-1">
      ${gate.wanted ? html`<${Gate} />` : html`<${Shown} key=${`${gate.turn}/${route.page}/${route.id}`} page=${page} route=${route} />`}
    </main>
    <${Questions} />
    <${Toasts} />
  `;
}

function skip(event) {
  event.preventDefault(); // the fragment names a page
  document.getElementById("main")?.focus();
}

function Bar({ page, open, setOpen }) {
  const link = (each) => html`
    <li key=${each.name} class=${NEAR.includes(each.name) ? "near" : "far"}>
      <a href=${at(each.name)} aria-current=${each === page ? "page" : null}>${Icon({ name: each.name })}<span>${each.title}</span></a>
    </li>`;
  const away = page && !NEAR.includes(page.name);
  return html`
    <nav class=${`bar ${open ? "open" : ""}`} aria-label="Pages">
      <a class="brand" href=${at("overview")}><img src="/assets/icon.svg" alt="" width="28" height="28" />WowEvent</a>
      <ul>
        ${PAGES.map(link)}
        <li class="more"><button type="button" aria-expanded=${open} class=${away ? "away" : ""} onClick=${() => setOpen(!open)}>${Icon({ name: "more" })}<span>More</span></button></li>
      </ul>
      <div class="foot"><${Standing} /><${Theme} />${token() && html`<${Button} kind="quiet" icon="leave" onClick=${() => setToken("")}>Forget the token</${Button}>`}</div>
    </nav>
  `;
}

/** How the engine is, in a word: what /health says, which is open to all. */
function Standing() {
  const { data, problem } = useData("/health", { every: HEALTH_EVERY });
  if (problem?.status === 0) return html`<p class="standing bad" role="status"><span class="dot"></span>The service does not answer</p>`;
  if (problem) return html`<p class="standing bad" role="status"><span class="dot"></span>Not healthy</p>`;
  if (!data) return html`<p class="standing"><span class="dot"></span>…</p>`;
  const engine = Object.entries(data).find(([, said]) => said === "connected");
  return html`<p class="standing good" role="status"><span class="dot"></span>${engine ? `${engine[0]} is connected` : "Running"}</p>`;
}

/** Light, dark, or as the system has it; kept by the browser. */
function Theme() {
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const [now, setNow] = useState(dark);
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setNow(dark());
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);
  const change = () => {
    const next = now ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("wowevent.theme", next);
    } catch {
      // It holds as long as the page does.
    }
    window.dispatchEvent(new Event("theme"));
    setNow(!now);
  };
  return html`<${Button} kind="quiet" icon=${now ? "sun" : "moon"} onClick=${change}>${now ? "Light" : "Dark"}</${Button}>`;
}

/** The form for a token, where the service asks for one. */
function Gate() {
  const [secret, setSecret] = useState("");
  const give = (event) => {
    event.preventDefault();
    if (secret.trim()) setToken(secret.trim());
  };
  return html`
    <form class="gate" onSubmit=${give}>
      <img src="/assets/icon.svg" alt="" width="44" height="44" />
      <h1>Show a token</h1>
      <p class="lead">This service asks who comes. Give a token of <code>wowevent token create</code>, or a JWT: this tab keeps it until it is closed.</p>
      <${Field} label="Token" type="password" value=${secret} onChange=${setSecret} error=${access.refused} required />
      <button type="submit" class="button primary">Continue</button>
    </form>
  `;
}

/** The page that the URL names. Its file is fetched when it is first looked at. */
function Shown({ page, route }) {
  const file = page && (route.id === null ? page.module ?? page.name : page.one ?? page.module ?? page.name);
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState(null);
  const [broken] = useErrorBoundary((error) => console.error(error));
  useEffect(() => {
    let current = true;
    document.title = page ? `${page.title} · WowEvent` : "WowEvent";
    if (file) {
      import(`./pages/${file}.js`).then(
        (module) => current && setFound(() => module.default),
        (error) => current && (console.error(error), setProblem({ message: "This page could not be loaded. Is the service running?" })),
      );
    }
    return () => {
      current = false;
    };
  }, [file]);
  useEffect(() => {
    if (!found || !arrived) return void (arrived = arrived || Boolean(found));
    scrollTo(0, 0);
    /** @type {HTMLElement | null} */ (document.querySelector("main h1"))?.focus({ preventScroll: true }); // a screen reader says where we are now
  }, [found]);
  if (!page) return html`<${Page} title="No such page"><${Empty} title="The link leads nowhere"><a href=${at("overview")}>To the overview</a></${Empty}></${Page}>`;
  const trouble = broken ? { message: `This page has a fault: ${broken.message}` } : problem;
  if (trouble) return html`<${Page} title=${page.title}><${Failure} problem=${trouble} retry=${() => location.reload()} /></${Page}>`;
  if (!found) return html`<${Loading} />`;
  return html`<${found} id=${route.id} query=${route.query} />`;
}

let arrived = false; // the first page takes no focus: nobody asked for another one

document.body.replaceChildren();
render(html`<${Shell} />`, document.body);
