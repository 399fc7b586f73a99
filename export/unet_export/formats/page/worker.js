// The model, in a thread of its own: the page stays quick while it works.

import * as ort from "./ort.wasm.bundle.min.js";
import { areas, classMask, found, modelInput, opacity, photoPlanes, place } from "./pixels.js";

const GZIP = [0x1f, 0x8b];
const DIGEST_CHARACTERS = 64; // SHA-256 in hexadecimal: a model file ends with that of all bytes before
const OPAQUE = 255;

const TOLERANCE = 1e-3; // of a probability, between the GPU and the processor
const AGREEMENT = 0.999; // of pixels that have the same class
const TURNS = 5;

const sessions = new Map(); // by file and device
let gpuEngine = null;

async function bytesOf(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: the server answers ${answer.status}: copy the whole folder to it`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(file) {
  const binary = await bytesOf(file);
  if (binary[0] === GZIP[0] && binary[1] === GZIP[1]) { // else the server says what it is, and the browser unpacks it
    const stream = new Blob([binary]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  return binary;
}

async function prepare(library, binary) {
  library.env.wasm.wasmBinary = await unpacked(binary);
  library.env.wasm.numThreads = 1; // more need headers that a static server does not send
  return library;
}

async function prepareGpu() {
  return prepare(await import("./ort.webgpu.bundle.min.js"), "ort-wasm-simd-threaded.asyncify.wasm.gz");
}

async function check(content, file) {
  if (!crypto.subtle) return; // plain HTTP
  const end = content.length - DIGEST_CHARACTERS;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content.subarray(0, end)));
  const actual = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (actual !== new TextDecoder().decode(content.subarray(end))) {
    throw new Error(`${file} is damaged: copy the folder to the server again`);
  }
}

const engine = prepare(ort, "ort-wasm-simd-threaded.wasm.gz");
engine.catch(() => {}); // whoever waits for it is told

// What the spec says of the engine's graph optimisers: those that compute this file wrongly are left out.
function optimizers({ spec }) {
  const disabled = spec.disabled_optimizers;
  if (disabled.includes("all")) return { graphOptimizationLevel: "disabled" };
  return disabled.length ? { extra: { optimization: { disable_specified_optimizers: disabled.join(";") } } } : {};
}

async function load(model) {
  const content = await bytesOf(model.file);
  await check(content, model.file);
  if (model.onGpu) gpuEngine ||= prepareGpu();
  const library = await (model.onGpu ? gpuEngine : engine);
  const executionProviders = [model.onGpu ? "webgpu" : "wasm"];
  return library.InferenceSession.create(content, { executionProviders, ...optimizers(model) });
}

function session(model) {
  const key = `${model.file} ${Boolean(model.onGpu)}`;
  if (!sessions.has(key)) {
    const loading = load(model);
    loading.catch(() => sessions.delete(key));
    sessions.set(key, loading);
  }
  return sessions.get(key);
}

// uint8 (n, h, w, 3) -> float32 (n, h', w', C)
async function infer(model, images) {
  const { height, width } = model.spec.input;
  const loaded = await session(model);
  const count = images.length / (height * width * 3);
  const { Tensor } = model.onGpu ? await gpuEngine : ort;
  const image = new Tensor("uint8", images, [count, height, width, 3]);
  const outputs = await loaded.run({ image });
  return outputs.probabilities.data;
}

// Inputs that use the whole range: noise, a ramp of each channel, areas with edges.
function testImages({ height, width }) {
  const size = height * width * 3;
  const images = [0, 1, 2].map(() => new Uint8Array(size));
  let noise = 1;
  for (let index = 0; index < size; index++) {
    const [channel, x, y] = [index % 3, Math.floor(index / 3) % width, Math.floor(index / 3 / width)];
    noise = (Math.imul(noise, 1664525) + 1013904223) >>> 0;
    images[0][index] = noise >>> 24;
    images[1][index] = Math.round((OPAQUE * [x, y, width - x][channel]) / Math.max(width, height));
    images[2][index] = ((Math.floor(x / 24) + Math.floor(y / 16)) * 53 * (channel + 1)) % 256;
  }
  return images;
}

function strongest(values, start, count) {
  let best = 0;
  for (let index = 1; index < count; index++) if (values[start + index] > values[start + best]) best = index;
  return best;
}

async function medianTime(model, image) {
  const times = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const start = performance.now();
    await infer(model, image);
    times.push(performance.now() - start);
  }
  return times.sort((one, other) => one - other)[Math.floor(TURNS / 2)];
}

// RGB as the network sees it, transparent pixels white.
function rgbOf(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  const rgb = new Uint8Array(picture.width * picture.height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    const level = data[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      const value = data[from + channel];
      rgb[to + channel] = level === OPAQUE ? value : Math.round((value * level + OPAQUE * (OPAQUE - level)) / OPAQUE);
    }
  }
  return rgb;
}

function picture(ids, width, height) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let index = 0; index < ids.length; index++) pixels[index] = (0xff000000 | ids[index]) >>> 0; // red
  return createImageBitmap(image);
}

const tasks = {
  async load({ model }) {
    await session(model);
  },

  // Whether the GPU gives what the processor gives, and what both take; model: the one on the GPU.
  async tryGpu({ model }) {
    const here = { ...model, onGpu: false };
    const classes = model.spec.classes.length;
    const images = testImages(model.spec.input);
    let [difference, same, pixels] = [0, 0, 0];
    for (const image of images) {
      const [expected, values] = [await infer(here, image), await infer(model, image)];
      for (let index = 0; index < expected.length; index++) {
        const distance = Math.abs(values[index] - expected[index]);
        difference = distance <= difference ? difference : distance; // NaN stays
      }
      for (let start = 0; start < expected.length; start += classes, pixels++) {
        same += strongest(values, start, classes) === strongest(expected, start, classes);
      }
    }
    const agreement = same / pixels;
    const passed = difference <= TOLERANCE && agreement >= AGREEMENT;
    const [gpu, cpu] = [await medianTime(model, images[0]), await medianTime(here, images[0])];
    return { passed, difference, agreement, gpu, cpu };
  },

  async infer({ model, images }) {
    return infer(model, images);
  },

  // A file, or a frame that is a picture already -> mask and what it says
  async segment({ model, photo, wantsIds }) {
    const bitmap = photo instanceof ImageBitmap ? photo : await createImageBitmap(photo);
    const { width, height } = bitmap;
    const rgb = rgbOf(bitmap);
    if (bitmap !== photo) bitmap.close();
    const { part } = place(width, height, model.spec);
    const planes = photoPlanes(await infer(model, modelInput(rgb, width, height, model.spec)), part, model.spec);
    const ids = classMask(planes, part, width, height);
    const mask = await picture(ids, width, height);
    const said = { areas: areas(ids, model.spec), found: found(planes, model.spec) };
    return { width, height, mask, planes, part, ids: wantsIds ? ids : null, ...said };
  },

  async cutout({ model, photo, result }) {
    const { width, height } = result;
    const levels = opacity(result.planes, result.part, width, height, model.spec);
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(photo, 0, 0);
    const image = context.getImageData(0, 0, width, height);
    for (let index = 0; index < levels.length; index++) {
      image.data[index * 4 + 3] = Math.min(levels[index], image.data[index * 4 + 3]);
    }
    return createImageBitmap(image);
  },
};

self.addEventListener("message", async ({ data }) => {
  try {
    const result = await tasks[data.task](data);
    self.postMessage({ id: data.id, result }, transferable(result));
  } catch (error) {
    self.postMessage({ id: data.id, error: error.message || String(error) });
  }
});

function transferable(result) {
  if (result instanceof ImageBitmap) return [result];
  if (result && result.mask) return [result.mask];
  return [];
}
