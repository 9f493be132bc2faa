// A mel spectrogram that rolls by: what was heard on the left of the line, what is drawn already on its right.

const PAST_SECONDS = 8;
const FUTURE_SECONDS = 4;
// The colour map magma, as in the report.
const MAGMA = (
  "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf"
).split(" ");
const TICKS_HZ = [200, 500, 1000, 2000, 4000, 8000];

export class Spectrogram {
  #frames = [];
  #first = 0; // number of the first frame that is kept
  #canvas;
  #image;
  #model;
  #framesPerSecond;
  #past;

  constructor(canvas, model) {
    this.#canvas = canvas;
    this.#model = model;
    this.#framesPerSecond = model.sampleRate / model.hopLength;
    this.#past = Math.round(PAST_SECONDS * this.#framesPerSecond);
    canvas.width = this.#past + Math.round(FUTURE_SECONDS * this.#framesPerSecond);
    canvas.height = model.bandsHz.length;
    this.#image = new ImageData(canvas.width, canvas.height);
    this.clear();
  }

  clear() {
    this.#frames = [];
    this.#first = 0;
    this.draw(0);
  }

  // Take further frames, one after the other in one array.
  push(values) {
    for (let at = 0; at < values.length; at += this.#model.bandsHz.length) {
      this.#frames.push(values.subarray(at, at + this.#model.bandsHz.length));
    }
  }

  // Draw with this sample at the line.
  draw(sample) {
    const now = Math.round(sample / this.#model.hopLength);
    const gone = Math.max(0, Math.min(now - this.#past - this.#first, this.#frames.length));
    this.#frames.splice(0, gone);
    this.#first += gone;
    const [low, high] = this.#model.range;
    const { width, height, data } = this.#image;
    for (let x = 0; x < width; x++) {
      const frame = this.#frames[now - this.#past + x - this.#first];
      const brightness = x < this.#past ? 1 : 0.5;
      for (let band = 0; band < height; band++) {
        const share = frame ? Math.min(Math.max((frame[band] - low) / (high - low), 0), 1) : 0;
        const colour = COLOURS[Math.round(255 * share)];
        const pixel = 4 * ((height - 1 - band) * width + x);
        for (let part = 0; part < 3; part++) data[pixel + part] = brightness * colour[part];
        data[pixel + 3] = 255;
      }
    }
    this.#canvas.getContext("2d").putImageData(this.#image, 0, 0);
  }

  // Labels [text, place from 0 to 1] of the axes.
  get ticksHz() {
    const bands = this.#model.bandsHz;
    return TICKS_HZ.filter((hz) => hz >= bands[0] && hz <= bands.at(-1)).map((hz) => {
      const above = Math.max(1, bands.findIndex((band) => band >= hz));
      const band = above - 1 + (hz - bands[above - 1]) / (bands[above] - bands[above - 1]);
      return [hz < 1000 ? `${hz}` : `${hz / 1000}k`, (band + 0.5) / bands.length];
    });
  }

  // Place of the line, from 0 to 1.
  get now() {
    return this.#past / this.#image.width;
  }

  get ticksSeconds() {
    const all = PAST_SECONDS + FUTURE_SECONDS;
    const seconds = [-6, -4, -2, 0, 2];
    return seconds.map((second) => [second ? `${second > 0 ? "+" : "−"}${Math.abs(second)} s` : "now", (PAST_SECONDS + second) / all]);
  }
}

const COLOURS = Array.from({ length: 256 }, (_, i) => {
  const place = (i / 255) * (MAGMA.length - 1);
  const index = Math.min(Math.floor(place), MAGMA.length - 2);
  const [from, to] = [MAGMA[index], MAGMA[index + 1]].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return from.map((value, part) => value + (to[part] - value) * (place - index));
});
