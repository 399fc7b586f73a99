// Photo -> model input -> mask, as unet-run makes them: Pillow's BILINEAR, which antialiases when it reduces.
// A port of unet_runtime/core/geometry.py, masks.py and resample.py; unet-export compares it with them in Chromium.

const FRACTION_BITS = 22; // of a weight in fixed point, as in Pillow's resampling of 8-bit pictures
const LEAST = Math.fround(1e-7);
const EVEN = Math.fround(1e-3);
const CLEAR = 0.2;
const SOLID = 0.8;
const MIN_SCORE = 0.5;

// --- Pillow's filter ---------------------------------------------------------------------------------

// Which points of a line each of `outputs` pixels is the weighted mean of: `count` from `first` on.
function tapsOf(inputs, outputs) {
  const scale = inputs / outputs;
  const reach = Math.max(scale, 1);
  const most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(outputs);
  const count = new Int32Array(outputs);
  const weights = new Float64Array(outputs * most);
  for (let pixel = 0; pixel < outputs; pixel++) {
    const center = (pixel + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(inputs, Math.trunc(center + reach + 0.5));
    let total = 0;
    for (let tap = 0; tap < end - begin; tap++) {
      const weight = Math.max(0, 1 - Math.abs((tap + begin - center + 0.5) * (1 / reach)));
      weights[pixel * most + tap] = weight;
      total += weight;
    }
    for (let tap = 0; tap < end - begin; tap++) weights[pixel * most + tap] /= total;
    first[pixel] = begin;
    count[pixel] = end - begin;
  }
  return { first, count, weights, most };
}

function inFixedPoint(taps) {
  const weights = new Int32Array(taps.weights.length);
  for (let index = 0; index < weights.length; index++) {
    weights[index] = Math.trunc(0.5 + taps.weights[index] * (1 << FRACTION_BITS));
  }
  return { ...taps, weights };
}

// 8 bits, `channels` a pixel; along x where `step` is `channels`.
function along(source, target, lines, outputs, channels, taps, lineStep, step, targetLineStep, targetStep) {
  const { first, count, weights, most } = taps;
  for (let line = 0; line < lines; line++) {
    for (let pixel = 0; pixel < outputs; pixel++) {
      const from = line * lineStep + first[pixel] * step;
      const to = line * targetLineStep + pixel * targetStep;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (FRACTION_BITS - 1);
        for (let tap = 0, at = from + channel; tap < count[pixel]; tap++, at += step) {
          sum += source[at] * weights[pixel * most + tap];
        }
        target[to + channel] = Math.min(255, sum >> FRACTION_BITS);
      }
    }
  }
}

function acrossResized(pixels, width, height, newWidth) {
  if (newWidth === width) return pixels;
  const result = new Uint8Array(height * newWidth * 3);
  along(pixels, result, height, newWidth, 3, inFixedPoint(tapsOf(width, newWidth)), width * 3, 3, newWidth * 3, 3);
  return result;
}

function downResized(pixels, width, height, newHeight) {
  if (newHeight === height) return pixels;
  const result = new Uint8Array(newHeight * width * 3);
  along(pixels, result, width, newHeight, 3, inFixedPoint(tapsOf(height, newHeight)), 3, width * 3, 3, width * 3);
  return result;
}

// RGB uint8 (height, width, 3) -> (newHeight, newWidth, 3), as Image.resize(..., BILINEAR).
export function resized(pixels, width, height, newWidth, newHeight) {
  // The order decides ties of rounding. As in Pillow 13; earlier ones always begin across.
  if (newHeight < height && height - newHeight > 2 * (width - newWidth)) {
    return acrossResized(downResized(pixels, width, height, newHeight), width, newHeight, newWidth);
  }
  return downResized(acrossResized(pixels, width, height, newWidth), newWidth, height, newHeight);
}

// float32 (height, width) -> (height, newWidth)
function widened(plane, width, height, newWidth) {
  if (newWidth === width) return plane;
  const { first, count, weights, most } = tapsOf(width, newWidth);
  const result = new Float32Array(height * newWidth);
  for (let row = 0; row < height; row++) {
    for (let pixel = 0; pixel < newWidth; pixel++) {
      let sum = 0;
      for (let tap = 0; tap < count[pixel]; tap++) {
        sum += plane[row * width + first[pixel] + tap] * weights[pixel * most + tap];
      }
      result[row * newWidth + pixel] = sum;
    }
  }
  return result;
}

// One row of a plane that has `width` pixels in each already, into `values`.
function rowOf(plane, width, taps, row, values) {
  const { first, count, weights, most } = taps;
  const start = first[row] * width;
  if (count[row] === 1) {
    for (let pixel = 0; pixel < width; pixel++) values[pixel] = plane[start + pixel] * weights[row * most];
    return;
  }
  if (count[row] === 2) {
    const [one, two] = [weights[row * most], weights[row * most + 1]];
    for (let pixel = 0, at = start; pixel < width; pixel++, at++) values[pixel] = plane[at] * one + plane[at + width] * two;
    return;
  }
  for (let pixel = 0; pixel < width; pixel++) {
    let sum = 0;
    for (let tap = 0; tap < count[row]; tap++) sum += plane[start + tap * width + pixel] * weights[row * most + tap];
    values[pixel] = sum;
  }
}

// --- photo -> model input ----------------------------------------------------------------------------

function evenRounded(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

// Where a photo lies in the model's input and output: geometry.place.
export function place(width, height, spec) {
  const { input, output } = spec;
  const margin = input.margin;
  const inner = [input.width - 2 * margin, input.height - 2 * margin];
  let box = { left: margin, top: margin, width: inner[0], height: inner[1] };
  if (input.fit !== "stretch") {
    const scale = Math.min(inner[0] / width, inner[1] / height);
    const wide = Math.min(inner[0], Math.max(1, evenRounded(width * scale)));
    const high = Math.min(inner[1], Math.max(1, evenRounded(height * scale)));
    box = { left: (input.width - wide) >> 1, top: (input.height - high) >> 1, width: wide, height: high };
  }
  const left = Math.max(0, box.left - margin);
  const top = Math.max(0, box.top - margin);
  const right = Math.min(output.width, box.left + box.width - margin);
  const bottom = Math.min(output.height, box.top + box.height - margin);
  return { box, part: { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) } };
}

function mirrored(position, length) {
  if (length === 1) return 0;
  const period = 2 * (length - 1);
  const inside = ((position % period) + period) % period;
  return Math.min(inside, period - inside);
}

// RGB uint8 of a photo -> uint8 (1, input.height, input.width, 3).
export function modelInput(pixels, width, height, spec) {
  const { input } = spec;
  const { box } = place(width, height, spec);
  const photo = resized(pixels, width, height, box.width, box.height);
  if (box.width === input.width && box.height === input.height) return photo;
  const canvas = new Uint8Array(input.width * input.height * 3);
  for (let row = 0; row < box.height; row++) {
    const line = photo.subarray(row * box.width * 3, (row + 1) * box.width * 3);
    canvas.set(line, ((box.top + row) * input.width + box.left) * 3);
  }
  return input.margin ? withMargin(canvas, input) : canvas;
}

function withMargin(canvas, { width, height, margin }) {
  const result = new Uint8Array(canvas.length);
  for (let row = 0; row < height; row++) {
    const from = (margin + mirrored(row - margin, height - 2 * margin)) * width;
    for (let column = 0; column < width; column++) {
      const at = (from + margin + mirrored(column - margin, width - 2 * margin)) * 3;
      for (let channel = 0; channel < 3; channel++) result[(row * width + column) * 3 + channel] = canvas[at + channel];
    }
  }
  return result;
}

// --- model output -> mask ----------------------------------------------------------------------------

// float32 (h, w, C) of the model's grid -> one plane a class of the photo's part, its shares: masks.photo_planes.
export function photoPlanes(probabilities, part, spec) {
  const count = spec.classes.length;
  const planes = spec.classes.map(() => new Float32Array(part.width * part.height));
  const values = new Float32Array(count);
  for (let row = 0; row < part.height; row++) {
    for (let column = 0; column < part.width; column++) {
      const at = ((part.top + row) * spec.output.width + part.left + column) * count;
      let total = 1;
      if (spec.output.activation === "sigmoid") {
        total = 0;
        for (let index = 0; index < count; index++) {
          values[index] = Math.max(probabilities[at + index], LEAST);
          total = Math.fround(total + values[index]);
        }
      } else {
        values.set(probabilities.subarray(at, at + count));
      }
      for (let index = 0; index < count; index++) planes[index][row * part.width + column] = values[index] / total;
    }
  }
  return planes;
}

// Class ids uint8 (height, width) at the photo's own size; a tie goes to the lower id: masks.class_mask.
export function classMask(planes, part, width, height) {
  const taps = tapsOf(part.height, height);
  const wide = planes.map((plane) => widened(plane, part.width, part.height, width));
  const ids = new Uint8Array(width * height);
  const best = new Float32Array(width);
  const values = new Float32Array(width);
  for (let row = 0; row < height; row++) {
    rowOf(wide[0], width, taps, row, best);
    const line = ids.subarray(row * width, (row + 1) * width);
    for (let index = 1; index < wide.length; index++) {
      rowOf(wide[index], width, taps, row, values);
      for (let pixel = 0; pixel < width; pixel++) {
        if (values[pixel] > best[pixel]) {
          best[pixel] = values[pixel];
          line[pixel] = index;
        }
      }
    }
  }
  return ids;
}

// Opacity of each pixel in a cut-out, uint8 (height, width): masks.opacity.
export function opacity(planes, part, width, height, spec) {
  const share = new Float32Array(part.width * part.height);
  for (let point = 0; point < share.length; point++) {
    const foreground = total(planes, spec, "foreground", point);
    share[point] = foreground / Math.fround(foreground + total(planes, spec, "background", point));
  }
  const taps = tapsOf(part.height, height);
  const wide = widened(share, part.width, part.height, width);
  const values = new Float32Array(width);
  const result = new Uint8Array(width * height);
  const [clear, scale] = [Math.fround(CLEAR), Math.fround(255 / (SOLID - CLEAR))];
  for (let row = 0; row < height; row++) {
    rowOf(wide, width, taps, row, values);
    for (let pixel = 0; pixel < width; pixel++) {
      const level = Math.fround(Math.fround(values[pixel] - clear) * scale);
      result[row * width + pixel] = evenRounded(Math.min(255, Math.max(0, level)));
    }
  }
  return result;
}

function total(planes, spec, role, point) {
  let sum = EVEN;
  spec.classes.forEach((entry, index) => {
    if (entry.role === role) sum = Math.fround(sum + planes[index][point]);
  });
  return sum;
}

// Foreground classes that count as found: segmentation.found.
export function found(planes, spec) {
  const sums = new Float64Array(planes.length);
  const points = new Float64Array(planes.length);
  for (let point = 0; point < planes[0].length; point++) {
    let best = 0;
    for (let index = 1; index < planes.length; index++) if (planes[index][point] > planes[best][point]) best = index;
    sums[best] += planes[best][point];
    points[best] += 1;
  }
  const names = [];
  spec.classes.forEach((entry, index) => {
    const score = sums[index] / Math.max(points[index], 1);
    if (entry.role === "foreground" && score >= MIN_SCORE && score > 0) names.push(entry.name);
  });
  return names;
}

// Pixels and share of each class of a mask, by name.
export function areas(ids, spec) {
  const pixels = new Float64Array(spec.classes.length);
  for (const id of ids) pixels[id] += 1;
  const result = {};
  spec.classes.forEach((entry, index) => {
    result[entry.name] = { pixels: pixels[index], share: pixels[index] / ids.length };
  });
  return result;
}
