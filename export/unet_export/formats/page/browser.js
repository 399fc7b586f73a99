"use strict";
// What segments the photos: the model in this browser. Nothing leaves it.

const worker = new Worker("worker.js", { type: "module" });
let gpu = null; // size of its engine
const waiting = new Map(); // by number of the question
let questions = 0;

worker.addEventListener("message", ({ data }) => {
  const { done, fail } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) fail(new Error(data.error));
  else done(data.result);
});
worker.addEventListener("error", (event) => {
  for (const { fail } of waiting.values()) fail(new Error(event.message || "this browser runs no module workers: update it"));
  waiting.clear();
});

function ask(task, content) {
  return new Promise((done, fail) => {
    const id = ++questions;
    waiting.set(id, { done, fail });
    worker.postMessage({ id, task, ...content });
  });
}

// For use without a network. Only now: its copies must not compete with the first mask.
async function keepForLater() {
  if (!("serviceWorker" in navigator)) return; // plain HTTP
  try {
    await navigator.serviceWorker.register("service-worker.js");
  } catch (error) {
    console.warn(`not kept for use without a network: ${error.message}`);
  }
}

const source = {
  title: "unet-edge",
  hint: "Drop photos here, paste one, or choose them. They stay in this browser.",
  unreadable: "this browser cannot show files of this kind",
  refines: false,
  takesFrames: true,

  label: (entry) => `${entry.name}, ${entry.precision}, ${entry.onGpu ? "GPU" : `${(entry.bytes / 1e6).toFixed(1)} MB`}`,

  async models() {
    const answer = await fetch("models.json");
    if (!answer.ok) throw new Error(`models.json: the server answers ${answer.status}`);
    const { models, ...more } = await answer.json();
    gpu = more.gpu;
    ask("load", { model: models[0] }).then(
      keepForLater,
      (error) => say(`The model cannot be loaded (${error.message}).`, true),
    );
    return models;
  },

  // item.file: a file or a picture -> {width, height, mask, areas, found, ...}, and ids uint8 where they are wanted
  segment(item, wantsIds = false) {
    return ask("segment", { model: item.model, photo: item.file, wantsIds });
  },

  cutout(item) {
    const result = { width: item.width, height: item.height, planes: item.planes, part: item.part };
    return ask("cutout", { model: item.model, photo: item.photo, result });
  },

  // What the GPU may run: nothing where there is none, or no model whose numbers are floats.
  async gpuModel(models) {
    const model = models.find((entry) => entry.precision !== "int8");
    if (!gpu || !model || !navigator.gpu) return null;
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    return adapter && { ...model, onGpu: true, engine: `${model.engine}, WebGPU`, device: "this browser's GPU", engineBytes: gpu.bytes };
  },

  // The engine for the GPU is fetched, and its results compared with the processor's.
  tryGpu(model) {
    return ask("tryGpu", { model });
  },

  // uint8 (n, h, w, 3) of the model's input -> float32 probabilities
  infer(model, images) {
    return ask("infer", { model, images });
  },
};
