// Keeps the page, the engine and the first model for use without a network; another model once it has been used.
// VERSION and FILES are in the line above: a changed folder is another version, and its old files are forgotten.

const PREFIX = "unet-edge ";
const CACHE = `${PREFIX}${new URL(self.registration.scope).pathname} ${VERSION}`;

self.addEventListener("install", (event) => {
  // "no-cache" asks the server whether a file has changed; what has not is not sent again.
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOthers().then(() => self.clients.claim()));
});

async function forgetOthers() {
  const mine = `${PREFIX}${new URL(self.registration.scope).pathname} `;
  for (const name of await caches.keys()) if (name.startsWith(mine) && name !== CACHE) await caches.delete(name);
}

self.addEventListener("fetch", (event) => {
  const inside = event.request.url.startsWith(self.registration.scope);
  if (event.request.method === "GET" && inside) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return kept;
  const received = await fetch(request);
  if (received.ok) await cache.put(request, received.clone());
  return received;
}
